"""The knobs of a provider started with ``--trial``, with which tests trigger hard cases.

Without it, every knob keeps its normal value and ``/trial/knobs`` does not exist.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from threading import Lock
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from local.identity.settings import Dialect


class Signing(StrEnum):
    """The key that signs the tokens."""

    RIGHT = "right"
    WRONG_KEY = "wrong_key"
    """Another key under the published key's ID: the signature is invalid."""
    UNKNOWN_KEY = "unknown_key"
    """Another key under its own ID, which is not published."""


@dataclass(frozen=True)
class Knobs:
    """The current behavior of the provider; the defaults are those of Auth0.

    Attributes:
        dialect: The HTTP statuses of the token endpoint's errors.
        interval: The seconds that a client should wait between two polls.
        omit_interval: True to omit ``interval`` from the response, as RFC 8628 allows.
        device_seconds: The lifetime of device and user codes.
        id_token_seconds: The lifetime of an id_token.
        access_token_seconds: The lifetime of an access_token.
        refresh_token_seconds: The lifetime of a refresh token.
        code_seconds: The lifetime of an authorization code.
        clock_offset: The seconds to add to the clock that dates tokens; may be negative.
        issuer: The ``iss`` of tokens; None for the provider's own URL.
        audience: The ``aud`` of id_tokens; None for the requesting client.
        signing: The key that signs them.
        slow_down: The number of upcoming polls to answer with ``slow_down``.
        throttled: The number of upcoming ``/oauth/`` and ``/api/v2/`` requests to answer with 429.
        retry_after: The ``Retry-After`` of those responses, in seconds; None to omit the header.
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    dialect: Dialect = Dialect.AUTH0
    interval: float = 5
    omit_interval: bool = False
    device_seconds: float = 900
    id_token_seconds: int = 36_000
    access_token_seconds: int = 86_400
    refresh_token_seconds: int = 30 * 86_400
    code_seconds: float = 60
    clock_offset: float = 0
    issuer: str | None = None
    audience: str | None = None
    signing: Signing = Signing.RIGHT
    slow_down: int = 0
    throttled: int = 0
    retry_after: int | None = 2


_ADAPTER = TypeAdapter(Knobs)


class Trial:
    """The current knobs of one provider.

    Args:
        usual: Their normal values.
    """

    def __init__(self, usual: Knobs):
        self._usual = usual
        self._knobs = usual
        self._lock = Lock()

    @property
    def knobs(self) -> Knobs:
        """Return the current values of the knobs."""
        return self._knobs

    def change(self, changes: dict[str, Any]) -> Knobs:
        """Change some of the knobs.

        Raises:
            pydantic.ValidationError: A value is invalid, or the knob does not exist.
        """
        with self._lock:
            self._knobs = _ADAPTER.validate_python({**asdict(self._knobs), **changes})
            return self._knobs

    def reset(self) -> Knobs:
        """Restore the normal values."""
        with self._lock:
            self._knobs = self._usual
            return self._knobs

    def take(self, name: str) -> bool:
        """Decrement a knob that counts down; return False if it was already 0."""
        with self._lock:
            left: int = getattr(self._knobs, name)
            if left > 0:
                self._knobs = _ADAPTER.validate_python({**asdict(self._knobs), name: left - 1})
            return left > 0
