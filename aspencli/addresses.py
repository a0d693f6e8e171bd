"""Addresses: which may lead to the same API or database, and how secrets are sent to them.

Several names can refer to one server, so addresses are compared by normalized host name, IP
addresses, port, and database name. When in doubt, two count as the same: the cost is a prompt that
names the stricter target.

Each HTTP client connects to one server, so its proxy is chosen here, by the rules that curl
documents (``NO_PROXY``, ``CURLOPT_NOPROXY``). The HTTP library reads the same variables, but fails
on an entry of ``NO_PROXY`` that it cannot parse, such as an address in brackets or a network.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from aspencli.errors import BadInputError

THIS_MACHINE = "this machine"
_HTTP, _HTTPS = 80, 443
_POSTGRES_PORT = 5432
_STACK = "{stack}"
_LOOKUP_S = 1.5  # for all names together; names that do not resolve by then are ignored
_INHERITED = ("host", "port", "database", "user")
_WORDS = re.compile(r"\b(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S*))")
_LOOSE = re.compile(r"[\dxa-f.]*\d[\dxa-f.]*").fullmatch
_PORTS = {"http": _HTTP, "https": _HTTPS}
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@dataclass(frozen=True)
class Server:
    """A host and a port."""

    host: str  # normalized; `THIS_MACHINE` for a loopback address or a socket
    port: int

    def __str__(self) -> str:
        return f"{self.host.replace(' ', '-')}:{self.port}"


@dataclass(frozen=True)
class DatabaseAddress:
    """The databases that a connection address may lead to."""

    servers: frozenset[Server]  # more than one if the address lists several
    names: frozenset[str]  # of databases; more than one if the address names it twice

    def __str__(self) -> str:
        return " ".join(sorted(f"{one}/{name}" for one in self.servers for name in self.names))


def same_api(one: str, other: str) -> bool:
    """Return True if both addresses lead to the same API."""
    first, second = Addresses([one], [], {}), Addresses([other], [], {})
    return first.meets(second, {}) or first.meets(second, look_up(first.hosts | second.hosts))


class Addresses:
    """The parsed addresses of one target."""

    def __init__(self, apis: Iterable[str], databases: Iterable[str], environ: Mapping[str, str]):
        self.apis = [server for api in apis if (server := api_server(api))]
        self.databases = [database_address(url, environ) for url in databases]

    @property
    def hosts(self) -> set[str]:
        """Return the hosts of all addresses, for DNS lookups."""
        servers = [*self.apis, *(s for one in self.databases for s in one.servers)]
        return {one.host for one in servers}

    def meets(
        self, other: Addresses, found: Mapping[str, frozenset[str]], *, local: bool = True
    ) -> bool:
        """Return True if the two targets have an address in common.

        ``found`` has the IP addresses of hosts; it is empty to compare names only. Unless the
        target should be on this machine (``local``), two API names at one public IP address are
        two servers: a load balancer routes by name.
        """

        def same(one: Server, two: Server, *, by_address: bool) -> bool:
            if one.port != two.port:
                return False
            if _is_same_host(one.host, two.host):
                return True
            shared = found.get(one.host, frozenset()) & found.get(two.host, frozenset())
            return bool(shared) and (by_address or any(map(_is_not_public, shared)))

        def api(one: Server, two: Server) -> bool:
            numeric = _is_numeric(one.host) or _is_numeric(two.host)
            return same(one, two, by_address=local or numeric)

        def database(one: DatabaseAddress, two: DatabaseAddress) -> bool:
            return bool(one.names & two.names) and any(
                same(a, b, by_address=True) for a in one.servers for b in two.servers
            )

        return any(api(a, b) for a in self.apis for b in other.apis) or any(
            database(a, b) for a in self.databases for b in other.databases
        )


def api_server(address: str) -> Server | None:
    """Return the server of an API, or None if the address names none."""
    try:
        # Clients may accept backslashes and stray spaces, as browsers do.
        parts = urlsplit(address.strip().replace("\\", "/"))
        host, port = parts.hostname, parts.port or _HTTPS
    except ValueError:
        return None
    if not host:
        return None
    # Servers redirect http to https, so both count as one.
    return Server(canonical_host(host), _HTTPS if port == _HTTP else port)


def database_address(address: str, environ: Mapping[str, str] = os.environ) -> DatabaseAddress:
    """Return the databases that an address may lead to, as libpq reads it.

    Missing parts come from the service file, then from the environment. If a part is given twice,
    both values count, because drivers disagree on which one wins.
    """
    rest = address.partition("://")[2]
    location, _, query = rest.partition("?")
    netloc, _, path = location.partition("/")
    given: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    if "://" not in address:  # libpq's keyword/value format
        for name, quoted, plain in _WORDS.findall(address):
            given.setdefault(name, []).append(quoted or plain)
    user, _, netloc = netloc.rpartition("@")
    service = _service(given.get("service", [environ.get("PGSERVICE", "")])[-1], environ)
    defaults = {**{key: environ.get(f"PG{key.upper()}", "") for key in _INHERITED}, **service}
    hosts, ports = _hosts(netloc)
    for one in given.get("host", []):
        more, more_ports = _hosts(one)
        hosts, ports = hosts + more, ports + more_ports
    hosts += [one for value in given.get("hostaddr", []) for one in value.split(",")]
    ports += [one for value in given.get("port", []) for one in value.split(",")]
    hosts = [host for host in hosts if host] or defaults.get("host", "").split(",")
    numbers = {int(port) for port in ports if port.isdecimal()}
    if not numbers or "" in ports:
        inherited = [p for p in defaults.get("port", "").split(",") if p.isdecimal()]
        numbers |= {int(port) for port in inherited} or {_POSTGRES_PORT}
    names = {unquote(path), *given.get("dbname", [])} - {""}
    names = names or {defaults.get("dbname") or defaults.get("database") or ""} - {""}
    names = names or {unquote(user.partition(":")[0]) or (given.get("user") or [""])[-1]}
    servers = {Server(canonical_host(host), number) for host in hosts for number in numbers}
    return DatabaseAddress(frozenset(servers), frozenset(names))


def _hosts(text: str) -> tuple[list[str], list[str]]:
    """Return the hosts and ports in ``one:1,two:2``; an empty port means the default."""
    hosts, ports = [], []
    for part in text.split(","):
        host, colon, port = part.rpartition(":")
        if not colon or "]" in port or (":" in host and not host.startswith("[")):
            host, port = part, ""
        hosts.append(unquote(host))
        ports.append(port)
    return (hosts, ports) if text else ([], [])


def _service(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a service's settings from the service files, or an empty dict."""
    if not name:
        return {}
    files = [environ.get("PGSERVICEFILE") or "~/.pg_service.conf"]
    if folder := environ.get("PGSYSCONFDIR"):
        files.append(f"{folder}/pg_service.conf")
    for file in files:
        found: dict[str, str] = {}
        section = ""
        try:
            text = Path(file).expanduser().read_text(errors="replace")
        except OSError:
            continue  # libpq cannot read it either
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line.strip("[]")
            elif section == name and not line.startswith("#") and "=" in line:
                key, _, value = line.partition("=")
                found[key.strip()] = value.strip()
        if found:
            return found
    return {}


def canonical_host(host: str) -> str:
    """Normalize a host: letter case, trailing dot, IP notation, and IDN."""
    host = unquote(host).strip().strip("[]").rstrip(".").lower()
    if not host or host.startswith(("/", "@")) or f".{host}".endswith(".localhost"):
        return THIS_MACHINE
    if not host.isascii():
        host = _ascii(host)
    return _number(host) or host


def _ascii(host: str) -> str:
    if host.isascii():  # loading the codec would take longer than everything else here
        return host.rstrip(".")
    try:
        return host.encode("idna").decode().rstrip(".")
    except UnicodeError:
        return host


def _number(host: str) -> str | None:
    """Return the normalized IP address, or None for a name."""
    if not (_is_numeric(host) or _LOOSE(host)):
        return None
    import ipaddress

    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:  # 127.1, 0x7f000001: other notations that the resolver accepts
            found = ipaddress.ip_address(socket.inet_aton(host))
        except OSError:
            return None
    found = getattr(found, "ipv4_mapped", None) or found
    return THIS_MACHINE if _is_here(str(found)) else str(found)


def _is_here(address: str) -> bool:
    """Return True if an IP address belongs to this machine."""
    import ipaddress

    found = ipaddress.ip_address(address)
    if found.is_loopback or found.is_unspecified:
        return True
    family = socket.AF_INET6 if found.version == 6 else socket.AF_INET  # noqa: PLR2004 - IPv6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return True


def _is_numeric(host: str) -> bool:
    return host == THIS_MACHINE or ":" in host or host.replace(".", "").isdecimal()


def _is_not_public(address: str) -> bool:
    import ipaddress

    return address == THIS_MACHINE or not ipaddress.ip_address(address).is_global


def _is_same_host(one: str, other: str) -> bool:
    if one == other:
        return True
    for pattern, host in ((one, other), (other, one)):
        if _STACK in pattern:  # the address is a pattern for all stacks
            parts = map(re.escape, pattern.split(_STACK))
            if re.fullmatch("[^.]+".join(parts), host):
                return True
    return False


def look_up(hosts: Iterable[str]) -> dict[str, frozenset[str]]:
    """Return the IP addresses of the hosts that resolve before the timeout."""
    found = {host: frozenset({host}) for host in hosts if _is_numeric(host)}
    names = [host for host in hosts if host not in found and _STACK not in host]
    answers: dict[str, frozenset[str]] = {}

    def ask(name: str) -> None:
        answers[name] = frozenset(_addresses_of(name))

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _LOOKUP_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return found | dict(answers)


def _addresses_of(name: str) -> Iterator[str]:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the name does not resolve from this machine
        return
    for answer in answers:
        number = _number(str(answer[4][0]))
        if number:
            yield number


# Origins and proxies


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
        import ipaddress

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
        raise _invalid_url(what, str(error)) from error
    if "@" in parts.netloc:  # so it must not be shown
        raise BadInputError(
            f"The URL for {what} contains a user name or password.",
            hint="Remove it. Your sign-in identifies you.",
        )
    if parts.scheme not in _PORTS or not parts.hostname or not address.isprintable():
        raise _invalid_url(what, repr(address))
    return Origin(parts.scheme, parts.hostname.lower(), port or _PORTS[parts.scheme])


def _invalid_url(what: str, reason: str) -> BadInputError:
    return BadInputError(
        f"Invalid URL for {what}: {reason}", hint="Use the form https://api.example.org"
    )


def proxy_for(origin: Origin) -> str | None:
    """Return the address of the proxy for a server, or None for a direct connection.

    Raises:
        BadInputError: The address of the proxy cannot be used.
    """
    from urllib.request import getproxies  # not needed by commands that use only the database

    found = getproxies()
    source = origin.scheme if found.get(origin.scheme) else "all"
    address = found.get(source)
    if not address or origin.is_loopback or is_bypassed(origin, found.get("no", "")):
        return None
    return _checked_proxy(address, _variable(source))


def without_password(address: str) -> str:
    """Return a proxy's address without its user and password."""
    return address.rpartition("@")[2]


def is_bypassed(origin: Origin, no_proxy: str) -> bool:
    """Return True if a value of ``NO_PROXY`` matches the server; invalid entries are skipped.

    An entry is ``*``, a name (which covers its subdomains), an address, or a network such as
    ``10.0.0.0/8``, each with or without a scheme and a port; IPv6 with or without brackets.
    """
    return any(_matches(entry, origin) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _matches(entry: str, origin: Origin) -> bool:
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
    import ipaddress

    try:
        network = ipaddress.ip_network(host.partition("%")[0], strict=False)
    except ValueError:
        name = host.removeprefix("*").lstrip(".").rstrip(".")
        return bool(name) and f".{origin.host.rstrip('.')}".endswith(f".{name}")
    try:
        return ipaddress.ip_address(origin.host.partition("%")[0]) in network
    except ValueError:
        return False


def _checked_proxy(address: str, variable: str) -> str:
    if "://" not in address:
        address = f"http://{address}"
    scheme = address.partition("://")[0].lower()
    place = without_password(address.partition("://")[2])
    host = re.fullmatch(r"(\[[^]]+\]|[^:/\s\[\]]+)(?::(\d{1,5}))?/?", place)
    port = int(host.group(2) or 1) if host else 0
    if scheme not in _PROXY_SCHEMES or host is None or not 0 < port < 2**16:
        # The address is not repeated, because it may contain a password.
        raise BadInputError(
            f"Invalid proxy address in {variable}",
            hint="Use the form http://proxy.example.org:3128 "
            f"({', '.join(_PROXY_SCHEMES)} are supported), or unset {variable}.",
        )
    return address


def _variable(source: str) -> str:
    """Return the variable that a proxy comes from; the lower-case one takes precedence."""
    lower = f"{source}_proxy"
    return lower if os.environ.get(lower) else lower.upper()
