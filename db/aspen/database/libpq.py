"""libpq's environment variables, and normalization of the addresses that people write.

Addresses with several hosts. Does not use SQLAlchemy, which is slow to import.

libpq writes them as ``u@one:1,two:2/db``, SQLAlchemy as ``u@/db?host=one:1&host=two:2``. Both of
them accept ``u@/db?host=one,two&port=1,2``, which is what this program uses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, quote, unquote, urlencode

from aspen.database.policy import InvalidDatabaseUrlError


def split_hosts(address: str) -> str:
    """Return an address with its hosts in the form that libpq and SQLAlchemy both accept."""
    scheme, separator, rest = address.partition("://")
    location, _, query = rest.partition("?")
    netloc, slash, path = location.partition("/")
    user, at, places = netloc.rpartition("@")
    parameters = parse_qsl(query, keep_blank_values=True)
    listed = [value for name, value in parameters if name == "host"]
    if "," in places:
        found = [_place(place) for place in places.split(",")]
        places = ""
    elif len(listed) > 1 or any(_has_port(value) for value in listed):
        found = [_place(place) for value in listed for place in value.split(",")]
        parameters = [(name, value) for name, value in parameters if name not in {"host", "port"}]
    else:
        return address
    parameters.append(("host", ",".join(host for host, _ in found)))
    if any(port for _, port in found):
        parameters.append(("port", ",".join(port for _, port in found)))
    more = urlencode(parameters, safe="/:,[]", quote_via=quote)
    return f"{scheme}{separator}{user}{at}{places}{slash or '/'}{path}?{more}"


def joined_hosts(hosts: str, ports: str) -> str:
    """Return ``one:1,two:2`` for ``one,two`` and ``1,2``, as people write it."""
    names, numbers = hosts.split(","), ports.split(",")
    if len(numbers) == 1:
        numbers *= len(names)
    return ",".join(_written(name, port) for name, port in zip(names, numbers, strict=False))


def _written(host: str, port: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if port else name


def _has_port(value: str) -> bool:
    return any(port for _, port in map(_place, value.split(",")))


def _place(text: str) -> tuple[str, str]:
    """Return the host and the port of ``host:port``; an IPv6 address loses its brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        host, port = text.removesuffix(":"), ""
    return unquote(host).removeprefix("[").removesuffix("]"), port


def first_text(value: str | Sequence[str] | None) -> str:
    """Return a parameter of an address as one string."""
    return value if isinstance(value, str) else ",".join(value or ())


def wanted_server(attributes: str) -> str:
    """Return a value of ``target_session_attrs`` that also works for read-only sessions.

    With ``read-write``, libpq rejects servers whose sessions are read-only, as ours are by default
    on every server. Its purpose is to find the primary.
    """
    return "primary" if attributes == "read-write" else attributes


# These select another server, database, or kind of session than the address does; a service file
# can contain all of these. PGCLUSTER is read by Debian's psql wrapper.
MISLEADING = frozenset(
    {
        *("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGAPPNAME", "PGOPTIONS"),
        *("PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGLOADBALANCEHOSTS", "PGCLUSTER"),
    }
)
# These control how a connection is opened, encrypted, and authenticated, and how its session
# starts (libpq, "Environment Variables"). Operators may need them for servers of their own.
CONNECTION = frozenset(
    {
        *("PGPASSWORD", "PGPASSFILE", "PGCONNECT_TIMEOUT", "PGCLIENTENCODING", "PGREQUIREAUTH"),
        *("PGSSLMODE", "PGREQUIRESSL", "PGSSLNEGOTIATION", "PGSSLCOMPRESSION", "PGSSLCERT"),
        *("PGSSLKEY", "PGSSLCERTMODE", "PGSSLROOTCERT", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLSNI"),
        *("PGSSLMINPROTOCOLVERSION", "PGSSLMAXPROTOCOLVERSION", "PGMINPROTOCOLVERSION"),
        *("PGMAXPROTOCOLVERSION", "PGGSSENCMODE", "PGGSSDELEGATION", "PGKRBSRVNAME", "PGGSSLIB"),
        *("PGCHANNELBINDING", "PGREQUIREPEER", "PGDATESTYLE", "PGTZ", "PGGEQO", "PGSYSCONFDIR"),
    }
)


def forget(names: Iterable[str]) -> None:
    """Remove variables from the environment of this process, and so of its children."""
    for name in names:
        os.environ.pop(name, None)


def set_variables() -> list[str]:
    """Return the names of the connection variables that are set, in alphabetical order."""
    return sorted(CONNECTION & os.environ.keys())


_USER = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@(?P<rest>.*)", re.S
)
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def clean_address(address: str) -> str:
    """Return an address with its user and password encoded so that all parsers agree.

    SQLAlchemy reads a password up to the first ``@``; libpq ends it at ``/`` or ``?``, takes the
    rest for a host or a database, and shows it in messages.

    Raises:
        InvalidDatabaseUrlError: The address is ambiguous, or contains a NUL character.
    """
    if "\0" in address or "%00" in address:
        raise InvalidDatabaseUrlError("The database URL contains a NUL character.")
    found = _USER.fullmatch(address.strip())
    if not found:
        return address.strip()
    if "@" in found["rest"].partition("?")[0] or re.search(r"\?[^=]*@", found["rest"]):
        raise InvalidDatabaseUrlError(
            "The database URL contains more than one @. "
            "Write an @ in the user name or password as %40."
        )
    user = _encoded(found["user"])
    password = "" if found["password"] is None else f":{_encoded(found['password'])}"
    return f"{found['scheme']}{user}{password}@{found['rest']}"


def _encoded(text: str) -> str:
    return quote(_BARE_PERCENT.sub("%25", text), safe="%!$&'()*+,;=-._~")
