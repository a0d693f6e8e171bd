"""Server addresses: whether secrets may be sent to them, and through which proxy.

The HTTP library reads the same variables for the proxy, but fails on an entry of ``NO_PROXY`` that
it cannot parse, such as an address in brackets or a network. Each client here connects to one
server, so its proxy is chosen here, by the rules that curl documents (``NO_PROXY``,
``CURLOPT_NOPROXY``).
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from aspencli.errors import BadInputError

_PORTS = {"http": 80, "https": 443}
_SCHEMES = ("http", "https", "socks5", "socks5h")


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

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"


def origin_of(address: str, what: str) -> Origin:
    """Return the origin of an address.

    Args:
        address: An absolute ``http`` or ``https`` address.
        what: The server that the address is for, such as ``the prod API``, for messages.

    Raises:
        BadInputError: The address is invalid, or contains a user name or password.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise _invalid(what, str(error)) from error
    if "@" in parts.netloc:  # so it must not be shown
        raise BadInputError(
            f"The URL for {what} contains a user name or password.",
            hint="Remove it. Your sign-in identifies you.",
        )
    if parts.scheme not in _PORTS or not parts.hostname or not address.isprintable():
        raise _invalid(what, repr(address))
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def _invalid(what: str, reason: str) -> BadInputError:
    return BadInputError(
        f"Invalid URL for {what}: {reason}", hint="Use the form https://api.example.org"
    )


def proxy_for(origin: Origin) -> str | None:
    """Return the address of the proxy for a server, or None for a direct connection.

    Raises:
        BadInputError: The address of the proxy cannot be used.
    """
    found = getproxies()
    source = origin.scheme if found.get(origin.scheme) else "all"
    address = found.get(source)
    if not address or origin.is_loopback or is_bypassed(origin, found.get("no", "")):
        return None
    return _checked(address, _variable(source))


def without_password(address: str) -> str:
    """Return a proxy's address without its user and password."""
    return address.rpartition("@")[2]


def is_bypassed(origin: Origin, no_proxy: str) -> bool:
    """Return True if a value of ``NO_PROXY`` matches the server; invalid entries are skipped.

    An entry is ``*``, a name (which covers its subdomains), an address, or a network such as
    ``10.0.0.0/8``, each with or without a scheme and a port; IPv6 with or without brackets.
    """
    return any(_names(entry, origin) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _names(entry: str, origin: Origin) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2].lower()
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(\d+))?", entry)
    if bracketed:
        host, port = bracketed.group(1), bracketed.group(2)
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    else:
        host, port = entry, None
    if port and port != str(origin.port):
        return False
    try:
        network = ipaddress.ip_network(host.partition("%")[0], strict=False)
    except ValueError:
        name = host.removeprefix("*").lstrip(".").rstrip(".")
        return bool(name) and f".{origin.host.rstrip('.')}".endswith(f".{name}")
    try:
        return ipaddress.ip_address(origin.host.partition("%")[0]) in network
    except ValueError:
        return False


def _checked(address: str, variable: str) -> str:
    if "://" not in address:
        address = f"http://{address}"
    scheme = address.partition("://")[0].lower()
    place = without_password(address.partition("://")[2])
    host = re.fullmatch(r"(\[[^]]+\]|[^:/\s\[\]]+)(?::(\d{1,5}))?/?", place)
    port = int(host.group(2) or 1) if host else 0
    if scheme not in _SCHEMES or host is None or not 0 < port < 2**16:
        # The address is not repeated, because it may contain a password.
        raise BadInputError(
            f"Invalid proxy address in {variable}",
            hint=f"Use the form http://proxy.example.org:3128 ({', '.join(_SCHEMES)} are supported)"
            f", or unset {variable}.",
        )
    return address


def _variable(source: str) -> str:
    """Return the variable that a proxy comes from; the lower-case one takes precedence."""
    lower = f"{source}_proxy"
    return lower if os.environ.get(lower) else lower.upper()
