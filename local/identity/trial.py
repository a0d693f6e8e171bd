"""The knobs of a provider that is started with ``--trial``: hard cases, made to happen.

Without it every knob keeps its ordinary value, and their address does not exist.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from threading import Lock
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from local.identity.settings import Dialect


class Signing(StrEnum):
    """Which key signs the tokens."""

    RIGHT = "right"
    WRONG_KEY = "wrong_key"
    """Another key under the id of the published one: the signature is bad."""
    UNKNOWN_KEY = "unknown_key"
    """Another key under an id of its own, which is not published."""


@dataclass(frozen=True)
class Knobs:
    """How the provider behaves now; the defaults are those of Auth0.

    Attributes:
        dialect: The statuses of the token endpoint's errors.
        interval: How many seconds a client shall wait between two polls.
        omit_interval: Leave ``interval`` out of the answer, as RFC 8628 allows.
        device_seconds: For how long device and user codes are valid.
        id_token_seconds: The same of an id_token.
        access_token_seconds: The same of an access_token.
        refresh_token_seconds: The same of a refresh token.
        code_seconds: The same of an authorization code.
        clock_offset: How many seconds the clock that tokens are dated by is ahead (or behind).
        issuer: The ``iss`` of tokens; None for the provider's own.
        audience: The ``aud`` of id_tokens; None for the client that asked.
        signing: Which key signs them.
        slow_down: So many of the next polls are answered ``slow_down``.
        throttled: So many of the next requests to ``/oauth/`` and ``/api/v2/`` get a 429.
        retry_after: What they are told to wait, in seconds; None leaves the header out.
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
    """Holds the knobs of one provider.

    Args:
        usual: Their ordinary values.
    """

    def __init__(self, usual: Knobs):
        self._usual = usual
        self._knobs = usual
        self._lock = Lock()

    @property
    def knobs(self) -> Knobs:
        """The knobs as they stand."""
        return self._knobs

    def change(self, changes: dict[str, Any]) -> Knobs:
        """Turn some of them.

        Raises:
            pydantic.ValidationError: A value does not fit, or there is no such knob.
        """
        with self._lock:
            self._knobs = _ADAPTER.validate_python({**asdict(self._knobs), **changes})
            return self._knobs

    def reset(self) -> Knobs:
        """Have their ordinary values again."""
        with self._lock:
            self._knobs = self._usual
            return self._knobs

    def take(self, name: str) -> bool:
        """Use up one of those that count down; whether there was one."""
        with self._lock:
            left: int = getattr(self._knobs, name)
            if left > 0:
                self._knobs = _ADAPTER.validate_python({**asdict(self._knobs), name: left - 1})
            return left > 0
