"""The settings of an identity provider."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from local.ports import HOST


class Dialect(StrEnum):
    """The HTTP statuses of the token endpoint's errors; the bodies are the same."""

    AUTH0 = "auth0"
    """403 for a pending device code, 429 for polling too fast."""
    RFC = "rfc"
    """400, as in RFC 6749 and RFC 8628."""


@dataclass(frozen=True)
class Settings:
    """The settings of one provider.

    Attributes:
        folder: The folder for its state.
        port: The port to listen on, on 127.0.0.1.
        issuer: Its URL in tokens, ending in a slash.
        dialect: The HTTP statuses of the token endpoint's errors.
        reuse_seconds: The time during which an exchanged refresh token can be exchanged again, for
            a client that lost the response; Auth0 calls it the rotation overlap period.
        burst: The number of Management API requests allowed at once.
        rate: The number of further requests allowed per second.
        trial: True if tests may trigger hard cases (``local.identity.trial``).
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


def own_address(port: int) -> str:
    """Return the default issuer of a provider on a port."""
    return f"http://{HOST}:{port}/"
