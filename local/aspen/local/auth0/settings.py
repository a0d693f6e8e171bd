"""The identity provider's settings, the knobs for tests, its secrets, and its format of times.

Without ``--trial``, every knob keeps its normal value.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

_LETTERS_AND_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Dialect(StrEnum):
    """The HTTP statuses of the token endpoint's errors; the bodies are the same."""

    AUTH0 = "auth0"
    """403 for a pending device code, 429 for polling too fast."""
    RFC = "rfc"
    """400, as in RFC 6749 and RFC 8628."""


@dataclass(frozen=True)
class ProviderSettings:
    """The settings of one provider.

    Attributes:
        port: The port to listen on, on 127.0.0.1.
        issuer: Its URL in tokens, ending in a slash.
        reuse_seconds: The time during which an exchanged refresh token can be exchanged again, for
            a client that lost the response; Auth0 calls it the rotation overlap period.
        burst: The number of Management API requests allowed at once.
        rate: The number of further requests allowed per second.
        trial: True if tests may trigger hard cases with ``Knobs``.
    """

    folder: Path
    port: int
    issuer: str
    dialect: Dialect = Dialect.AUTH0
    reuse_seconds: float = 0
    burst: int = 50
    rate: float = 15
    trial: bool = False

    @property
    def management_audience(self) -> str:
        """Return the audience of tokens for the Management API."""
        return f"{self.issuer}api/v2/"

    @property
    def userinfo_audience(self) -> str:
        """Return the audience of tokens for which none was requested."""
        return f"{self.issuer}userinfo"


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
        interval: The seconds that a client should wait between two polls.
        omit_interval: True to omit ``interval`` from the response, as RFC 8628 allows.
        device_seconds: The lifetime of device and user codes.
        clock_offset: The seconds to add to the clock that dates tokens; may be negative.
        issuer: The ``iss`` of tokens; None for the provider's own URL.
        audience: The ``aud`` of id_tokens; None for the requesting client.
        slow_down: The number of upcoming polls to answer with ``slow_down``.
        throttled: The number of upcoming ``/oauth/`` and ``/api/v2/`` requests to answer with 429.
        retry_after: The ``Retry-After`` of those responses, in seconds; None to omit the header.
        enterprise: False to refuse the requests that only Auth0's Enterprise plans have.
        refusal: The status of these refusals: 403 or 404.
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
    enterprise: bool = True
    refusal: Literal[403, 404] = 403


def iso(moment: float) -> str:
    """Return a time, in seconds since 1970, in Auth0's format."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def new_secret() -> str:
    """Return a secret of 256 random bits."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """Return the hash to store for a secret; secrets are long and random, so they need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_identifier(prefix: str, length: int = 16) -> str:
    """Return an identifier in Auth0's format, such as ``org_`` and 16 letters and digits."""
    return prefix + "".join(secrets.choice(_LETTERS_AND_DIGITS) for _ in range(length))


def new_user_id() -> str:
    """Return the ID of a new user in Auth0's format."""
    return new_identifier("auth0|", 24).lower()
