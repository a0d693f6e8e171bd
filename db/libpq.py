"""libpq's environment variables, and normalization of the addresses that people write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from urllib.parse import quote

from db.connecting import InvalidDatabaseUrlError

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
        raise InvalidDatabaseUrlError("The database address contains a NUL character")
    found = _USER.fullmatch(address.strip())
    if not found:
        return address.strip()
    if "@" in found["rest"].partition("?")[0] or re.search(r"\?[^=]*@", found["rest"]):
        raise InvalidDatabaseUrlError(
            "The database address contains more than one @. "
            "Write an @ in the user name or password as %40"
        )
    user = _encoded(found["user"])
    password = "" if found["password"] is None else f":{_encoded(found['password'])}"
    return f"{found['scheme']}{user}{password}@{found['rest']}"


def _encoded(text: str) -> str:
    return quote(_BARE_PERCENT.sub("%25", text), safe="%!$&'()*+,;=-._~")
