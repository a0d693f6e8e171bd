"""Addresses of servers: what may be asked there, and what may be told there."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from aspencli.errors import BadInputError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """The server behind an address (RFC 6454): two addresses with the same three are of one."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is this very machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can listen: encrypted, or never on a wire."""
        return self.scheme == "https" or self.is_loopback

    @property
    def place(self) -> str:
        """Host and port as they stand in an address; the usual port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"


def origin_of(address: str, what: str) -> Origin:
    """The server of an address.

    Args:
        address: An absolute ``http`` or ``https`` address.
        what: What it is the address of, for the message.

    Raises:
        BadInputError: It is no such address, or it holds a user or password.
    """
    parts, port = _split(address, what)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadInputError(
            f"{what} is no web address: {address!r}",
            hint="Write it like https://api.example.org",
        )
    if "@" in parts.netloc:
        raise BadInputError(
            f"{what} holds a user or a password",
            hint="Leave it out: the sign-in says who you are.",
        )
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def _split(address: str, what: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise BadInputError(
            f"{what} is no web address: {error}", hint="Write it like https://api.example.org"
        ) from error
    return parts, port
