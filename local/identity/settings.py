"""What an identity provider is started with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from local.ports import HOST


class Dialect(StrEnum):
    """Which HTTP statuses the token endpoint's errors come with; the bodies are the same."""

    AUTH0 = "auth0"
    """403 for a device code that is still pending, 429 for one that is asked about too often."""
    RFC = "rfc"
    """400, as RFC 6749 and RFC 8628 have it."""


@dataclass(frozen=True)
class Settings:
    """How one provider behaves.

    Attributes:
        folder: Where it keeps its state.
        port: Where it listens on 127.0.0.1.
        issuer: Its address as tokens state it, ending in a slash.
        dialect: The statuses of the token endpoint's errors.
        reuse_seconds: For how long a refresh token that was exchanged is exchanged once more, for
            a client that lost the answer; Auth0 calls it the rotation overlap period.
        burst: How many requests the Management API takes at once.
        rate: How many more it takes with each second.
        trial: Whether the hard cases can be made to happen (``local.identity.trial``).
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
        """What a token for the Management API names as its audience."""
        return f"{self.issuer}api/v2/"

    @property
    def userinfo_audience(self) -> str:
        """What a token names as its audience when none was asked for."""
        return f"{self.issuer}userinfo"


def own_address(port: int) -> str:
    """The issuer of a provider that nothing else was said of."""
    return f"http://{HOST}:{port}/"
