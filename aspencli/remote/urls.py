"""Server addresses, and whether secrets may be sent to them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from aspencli.errors import BadInputError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """The origin of an address (RFC 6454), which identifies a server."""

    scheme: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Return True if the server is on this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_private(self) -> bool:
        """Return True if no one can eavesdrop on the connection: encrypted, or on this machine."""
        return self.scheme == "https" or self.is_loopback

    @property
    def place(self) -> str:
        """Return the host and port as written in an address, without the default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"


def origin_of(address: str, what: str) -> Origin:
    """Return the origin of an address.

    Args:
        address: An absolute ``http`` or ``https`` address.
        what: The server that the address is for, such as ``the prod API``, for messages.

    Raises:
        BadInputError: The address is invalid, or contains a user name or password.
    """
    parts, port = _split(address, what)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadInputError(
            f"Invalid URL for {what}: {address!r}",
            hint="Use the form https://api.example.org",
        )
    if "@" in parts.netloc:
        raise BadInputError(
            f"The URL for {what} contains a user name or password.",
            hint="Remove it. Your sign-in identifies you.",
        )
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def _split(address: str, what: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise BadInputError(
            f"Invalid URL for {what}: {error}", hint="Use the form https://api.example.org"
        ) from error
    return parts, port
