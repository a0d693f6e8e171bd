"""Database connections before they open: session settings, addresses, and environment variables.

Only the standard library is imported here, so that commands start fast.

- **Session settings.** Nothing relies on startup ``options``: poolers reject them, or drop them
  silently. The settings are applied and read back in one round trip after connecting. Behind a
  pooler, the next transaction may run in another server session, so settings are applied to one
  transaction at a time.
- **Addresses.** libpq writes several hosts as ``u@one:1,two:2/db``, SQLAlchemy as
  ``u@/db?host=one:1&host=two:2``. Both accept ``u@/db?host=one,two&port=1,2``, which is what this
  program uses.
- **Environment variables.** libpq fills in what an address leaves out from variables such as
  ``PGHOST``, and so could lead to another server than the target's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from aspen.database.errors import ServerReadOnlyError

# SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3, which is not installed here.
DRIVER = "postgresql+psycopg2"
SCHEMA = "aspen"
SEARCH_PATH = f"{SCHEMA},public"
TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
READ_ONLY = "default_transaction_read_only"
# Makes a server notice within this time that its client is gone, even during a long statement. It
# exists since PostgreSQL 14, and cannot be set there on every system; Linux can.
CLIENT_CHECK = "client_connection_check_interval"
CHECK_MS = 1_000
_NAME_LIMIT = 63  # bytes; PostgreSQL truncates application_name (NAMEDATALEN - 1)
# Settings of this program in ``options``: "-c name=value" and "--name=value" mean the same.
_OURS = re.compile(rf"(?:^|\s)(?:-c\s*|--)(?:{'|'.join((READ_ONLY, *TIMEOUTS))})=(?:\\.|\S)*", re.I)
_READ_ONLY_OPTION = re.compile(rf"(?:^|\s)(?:-c\s*|--){READ_ONLY}=((?:\\.|\S)*)", re.I)
# As in PostgreSQL's parse_bool.
_TRUE = frozenset({"on", "true", "tru", "tr", "t", "yes", "ye", "y", "1"})
# Settings from ALTER DATABASE and ALTER ROLE, which a pooler's older server session may not have.
_CONFIGURED = """
SELECT DISTINCT ON (split_part(e, '=', 1)) split_part(e, '=', 1) AS name,
       substr(e, strpos(e, '=') + 1) AS value
  FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) e
 WHERE s.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database
                              WHERE datname = current_database()))
   AND s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))
 ORDER BY 1, s.setrole <> 0 DESC, s.setdatabase <> 0 DESC
"""
_MILLISECONDS = """CASE WHEN c.value ~ '^[0-9]+$' THEN c.value::bigint
    ELSE (extract(epoch FROM c.value::interval) * 1000)::bigint END"""
_USER = re.compile(
    r"(?P<scheme>[\w+]+://)(?P<user>[^:/@?]*)(?::(?P<password>[^@]*))?@(?P<rest>.*)", re.S
)
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
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
INVALID_URL = "Invalid database URL (expected postgresql://user:password@host:port/name)."
"""The message for an address that cannot be parsed."""


class InvalidDatabaseUrlError(ValueError):
    """A database address that cannot be used; the message never repeats the address."""


# Session settings


@dataclass(frozen=True)
class Limits:
    """The time limits of a session; 0 means no limit."""

    statement_ms: int = 60_000  # the longest a statement may run (``statement_timeout``)
    lock_ms: int = 5_000  # the longest a statement may wait for a lock (``lock_timeout``)
    connect_s: int = 10  # the longest a connection may take to open


@dataclass(frozen=True)
class Overrides:
    """The stricter settings of a database or role to ignore, for one run and only on request."""

    read_only: bool = False  # ``default_transaction_read_only``
    timeouts: bool = False  # `TIMEOUTS`


class Guard(Enum):
    """The restrictions on a connection that is given to code other than our own."""

    NONE = "none"
    """No restrictions, for our own code only."""
    READING = "reading"
    """Every transaction is read-only, and stays so whatever SQL is sent."""
    REHEARSAL = "rehearsal"
    """Nothing is ever committed: a commit only releases a savepoint."""

    @property
    def guards(self) -> bool:
        """Return True if there are restrictions."""
        return self is not Guard.NONE


@dataclass(frozen=True)
class SessionPolicy:
    """The policy for the sessions of a database."""

    application_name: str = "aspencli"  # shown in the server's activity views
    limits: Limits = field(default_factory=Limits)
    writable: bool = False  # transactions may write by default
    overrides: Overrides = field(default_factory=Overrides)
    guard: Guard = Guard.NONE
    role: str | None = None  # the role that read-only sessions switch to

    def timeouts(self) -> dict[str, int]:
        """Return the time limits by the names of the server settings."""
        return {
            "statement_timeout": self.limits.statement_ms,
            "lock_timeout": self.limits.lock_ms,
            "idle_in_transaction_session_timeout": 0,
        }


@dataclass(frozen=True)
class Route:
    """The way that connections take to a server, if it is not the usual one.

    The address keeps the server's own name, which its certificate is for.
    """

    libpq: Mapping[str, Any]  # parameters that replace those of the address
    # Returns why a connection failed, given libpq's message; None if that says enough.
    explain: Callable[[str], Exception | None]
    # Returns the password that a user needs now, or None for that of the address.
    password: Callable[[str], str | None] = lambda _user: None


def check_address(policy: SessionPolicy, options: str) -> None:
    """Check that the options of its address do not make a session read-only that may write.

    Raises:
        ServerReadOnlyError: The last value of ``default_transaction_read_only`` in them is on.
    """
    if not policy.writable or policy.overrides.read_only:
        return
    values = _READ_ONLY_OPTION.findall(options)
    if values and values[-1].strip("'\"").lower() in _TRUE:
        raise ServerReadOnlyError(
            f"The address of this database sets {READ_ONLY}=on in its options. "
            "Nothing was written.",
            hint="Remove it from the address, or pass --override-read-only for this run.",
        )


def connection_arguments(policy: SessionPolicy, options: str = "") -> dict[str, Any]:
    """Return the driver's arguments for each new connection, besides the address.

    Some database hosts use the ``options`` of the address for routing. Limits and modes among them
    are dropped, because the policy sets those.
    """
    return {
        "application_name": policy.application_name,
        "connect_timeout": policy.limits.connect_s,
        # Overrides PGCLIENTENCODING, because names come in every script.
        "client_encoding": "utf8",
        # Always given, even if empty, so that libpq does not use PGOPTIONS.
        "options": _OURS.sub("", options).strip(),
        # Detect a dead peer in about a minute instead of two hours.
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }


def connection_parameters(policy: SessionPolicy, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the libpq parameters of each connection to an address, given as its parameters.

    Raises:
        ServerReadOnlyError: See `check_address`.
    """
    options = parameters.get("options", "")
    check_address(policy, options)
    return {
        **connection_arguments(policy, options),
        "hostaddr": "",
        **{name: value for name, value in parameters.items() if name != "options"},
    }


@dataclass(frozen=True)
class ServerDefaults:
    """The session defaults set by the server's configuration, the database, and the role."""

    read_only: bool  # ``default_transaction_read_only``
    timeouts: Mapping[str, int]  # in milliseconds, by the names of the settings; 0 for none

    def stricter(self, policy: SessionPolicy) -> dict[str, int]:
        """Return the effective time limits: the shorter of the two, unless overridden."""
        wanted = policy.timeouts()
        if policy.overrides.timeouts:
            return wanted
        return {name: shorter(self.timeouts[name], wanted[name]) for name in TIMEOUTS}

    def settings(self, policy: SessionPolicy) -> dict[str, str]:
        """Return the settings of a session by name, except for its mode."""
        limits = {name: str(value) for name, value in self.stricter(policy).items()}
        role = {"role": policy.role} if policy.role and not policy.writable else {}
        return {"search_path": SEARCH_PATH, **limits, **role}


def opening_statement(policy: SessionPolicy, backend_pid: int) -> str:
    """Return the statement that sets up a session and reads back the effective settings.

    Its row holds the server's process ID, the `ServerDefaults`, the values that were set, and what
    SQLAlchemy would ask in separate round trips: the current schema with `SEARCH_PATH`, and the
    isolation level. If the process is not the one that the connection was opened to
    (`backend_pid`), a pooler is in between. The settings are then local to the statement, so that
    they do not reach other clients' sessions.
    """
    wanted = policy.timeouts()
    sets = {"search_path": sql_literal(SEARCH_PATH), READ_ONLY: "'on'"}
    if policy.writable:
        sets[READ_ONLY] = "'off'" if policy.overrides.read_only else "d.read_only"
    for name in TIMEOUTS:
        # The shorter of the two, except that 0 means no limit.
        shortest = f"coalesce(least(nullif(d.{name}, 0), nullif({wanted[name]}, 0)), 0)"
        sets[name] = f"{wanted[name]}" if policy.overrides.timeouts else shortest
    if policy.role and not policy.writable:
        sets["role"] = sql_literal(policy.role)
    set_all = [f"set_config('{name}', ({value})::text, l.local)" for name, value in sets.items()]
    names = ", ".join(f"'{name}'" for name in (READ_ONLY, *TIMEOUTS))
    shortest_known = [
        f"coalesce(least(nullif(max(CASE p.name WHEN '{name}' THEN p.reset_val::bigint END), 0),"
        f" nullif(max(CASE c.name WHEN '{name}' THEN {_MILLISECONDS} END), 0)), 0) AS {name}"
        for name in TIMEOUTS
    ]
    return f"""
SELECT l.pid, d.read_only, {", ".join(f"d.{name}" for name in TIMEOUTS)}, {", ".join(set_all)},
       (SELECT set_config(name, '{CHECK_MS}', false) FROM pg_catalog.pg_settings
         WHERE name = '{CLIENT_CHECK}' AND setting = '0' AND NOT l.local
           AND version() ~ 'linux'),
       (SELECT nspname FROM pg_catalog.pg_namespace
         WHERE nspname IN ('{SCHEMA}', 'public') AND has_schema_privilege(oid, 'USAGE')
         ORDER BY nspname LIMIT 1),
       upper(current_setting('default_transaction_isolation'))
  FROM (SELECT CASE WHEN bool_or(
                   CASE p.name WHEN '{READ_ONLY}'
                   THEN p.reset_val::bool OR coalesce(c.value::bool, false) END)
               THEN 'on' ELSE 'off' END AS read_only,
               {", ".join(shortest_known)}
          FROM pg_catalog.pg_settings p LEFT JOIN ({_CONFIGURED}) c ON c.name = p.name
         WHERE p.name IN ({names})) d,
       (SELECT pg_backend_pid() AS pid, pg_backend_pid() <> {backend_pid} AS local) l
"""  # noqa: S608 - numbers, our own names, and a quoted schema


def transaction_settings(policy: SessionPolicy, defaults: ServerDefaults) -> str:
    """Return a query that applies all settings to the open transaction, behind a pooler.

    The last column of its row is the transaction's read-only setting.
    """
    chosen = defaults.settings(policy).items()
    sets = [f"set_config('{name}', {sql_literal(value)}, true)" for name, value in chosen]
    return f"SELECT {', '.join(sets)}, current_setting('transaction_read_only')"


def cut_name(name: str) -> str:
    """Return a name as PostgreSQL truncates it."""
    return name.encode()[:_NAME_LIMIT].decode(errors="ignore")


def sql_literal(value: str) -> str:
    """Return a value as an SQL literal."""
    escaped = value.replace("'", "''")
    return f"E'{escaped.replace(chr(92), chr(92) * 2)}'" if "\\" in value else f"'{escaped}'"


def shorter(one: int, other: int) -> int:
    """Return the shorter of two time limits; 0 means no limit."""
    return min(one, other) if one and other else one or other


# Addresses


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


def first_text(value: str | Sequence[str] | None) -> str:
    """Return a parameter of an address as one string."""
    return value if isinstance(value, str) else ",".join(value or ())


def wanted_server(attributes: str) -> str:
    """Return a value of ``target_session_attrs`` that also works for read-only sessions.

    With ``read-write``, libpq rejects servers whose sessions are read-only, as ours are by default
    on every server. Its purpose is to find the primary.
    """
    return "primary" if attributes == "read-write" else attributes


def _encoded(text: str) -> str:
    return quote(_BARE_PERCENT.sub("%25", text), safe="%!$&'()*+,;=-._~")


def _has_port(value: str) -> bool:
    return any(port for _, port in map(_place, value.split(",")))


def _place(text: str) -> tuple[str, str]:
    """Return the host and the port of ``host:port``; an IPv6 address loses its brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or (":" in host and not host.endswith("]")):
        host, port = text.removesuffix(":"), ""
    return unquote(host).removeprefix("[").removesuffix("]"), port


def _written(host: str, port: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}" if port else name


# Environment variables


def set_variables() -> list[str]:
    """Return the names of the connection variables that are set, in alphabetical order."""
    return sorted(CONNECTION & os.environ.keys())
