"""Start psql on the target's database, read-only by default, with the password kept hidden."""

from __future__ import annotations

import getopt
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from aspen.database import roles
from aspen.database.driver import libpq_parameters, opener
from aspen.database.errors import NotAllowedError
from aspen.database.settings import (
    CHECK_MS,
    CLIENT_CHECK,
    MISLEADING,
    READ_ONLY,
    InvalidDatabaseUrlError,
    SessionPolicy,
    connection_parameters,
    sql_literal,
)
from aspencli.config import Safety, Target
from aspencli.errors import BadInputError, RefusedError, UnreachableError

_MARKS = 3  # attempts to get the same server process twice

# The parameters of an address that libpq also reads from PG<NAME> (libpq, "Environment Variables").
# Those without such a variable only tune the connection (e.g., keepalives_idle).
_PARAMETERS = frozenset(
    {
        *("host", "hostaddr", "port", "service", "passfile", "client_encoding", "require_auth"),
        *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"),
        *("sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding"),
        *("requirepeer", "gssencmode", "krbsrvname", "gsslib"),
        *("target_session_attrs", "load_balance_hosts"),
    }
)
# PgBouncer: "unsupported startup parameter: options"; RDS Proxy: "command-line options".
_OPTIONS_REJECTED = re.compile(r"startup (?:parameter|packet)|\boptions\b", re.IGNORECASE)
_WHERE_TO_FIX = "Fix database_url in the config file, or the variable that sets it."
# psql's own options (psql --help); getopt also accepts them abbreviated.
_SHORT = "aAbc:d:eEf:F:h:HlL:no:p:P:qR:sStT:U:v:VwWxXz?01"
_LONG = [
    *("echo-all", "no-align", "echo-errors", "command=", "dbname=", "echo-queries", "echo-hidden"),
    *("file=", "field-separator=", "field-separator-zero", "host=", "html", "list", "log-file="),
    *("no-readline", "single-transaction", "output=", "port=", "pset=", "quiet"),
    *("record-separator=", "record-separator-zero", "single-step", "single-line", "tuples-only"),
    *("table-attr=", "username=", "set=", "variable=", "version", "no-password", "password"),
    *("expanded", "no-psqlrc", "help=", "csv"),
]
_ELSEWHERE = frozenset({"-d", "--dbname", "-h", "--host", "-p", "--port", "-U", "--username"})


@dataclass(frozen=True)
class Address:
    """The connection parameters of a database, by libpq keyword, and its session policy."""

    parameters: Mapping[str, str] = field(repr=False)  # they may include the password
    policy: SessionPolicy

    @property
    def writable(self) -> bool:
        """Return True if sessions may write."""
        return self.policy.writable

    @property
    def libpq(self) -> dict[str, Any]:
        """Return the libpq parameters of each connection, without access mode or limits."""
        return connection_parameters(self.policy, self.parameters)


@dataclass(frozen=True)
class SessionFacts:
    """The facts gathered by connecting once before psql starts."""

    settings: Mapping[str, str]  # for psql's session
    pooled: bool = False
    keeps_session: bool = True  # psql has one server session from start to end
    can_write: bool = True  # the login role can write anything
    reader: str | None = None  # the role that a read-only psql switches to

    @property
    def is_read_only_by_convention(self) -> bool:
        """Return True if SQL could turn a read-only psql session into a writing one."""
        return self.can_write and self.reader is None


def gather_facts(address: Address, *, as_reader: bool) -> SessionFacts:
    """Connect as psql will, and determine the settings for its session.

    With `as_reader`, look for a role that cannot write.

    Raises:
        psycopg2.Error: The connection failed.
        NotAllowedError: A read-only session could write, or a writing one could not.
    """
    connection = _connect_as_psql(address)
    # Read from the session before any of its settings are changed.
    honors_options = connection.defaults.read_only
    try:
        settings = connection.defaults.settings(address.policy)
        if not address.writable:
            settings[READ_ONLY] = "on"
        elif address.policy.overrides.read_only:
            settings[READ_ONLY] = "off"
        if connection.checks_client:
            settings[CLIENT_CHECK] = str(CHECK_MS)
        rights = roles.rights(connection) if as_reader else None
        standing = SessionFacts(
            settings,
            connection.pooled,
            can_write=rights is None or rights.can_write,
            reader=rights.reader if rights and rights.can_write and not connection.pooled else None,
        )
    finally:
        connection.close()
    if standing.pooled:
        return replace(standing, keeps_session=_keeps_session(address))
    if not (address.writable or honors_options):
        raise NotAllowedError(
            "Could not make the psql session read-only: something between this machine and "
            "the server dropped its settings. Nothing was run.",
            hint="Use aspencli db interact instead, which sets them for each transaction.",
        )
    return standing


def _connect_as_psql(address: Address) -> Any:  # a DriverConnection
    """Connect with psql's way of making a session read-only, unless a pooler rejects that."""
    import psycopg2

    factory = opener(address.policy)
    if address.writable:
        return _connect(address, connection_factory=factory)
    mode = f"-c {READ_ONLY}=on"
    options = " ".join(filter(None, [address.libpq["options"], mode]))
    try:
        return _connect(address, connection_factory=factory, options=options)
    except psycopg2.OperationalError as error:
        if not _OPTIONS_REJECTED.search(str(error)):
            raise
    return _connect(address, connection_factory=factory)


def _connect(address: Address, **more: Any) -> Any:
    import psycopg2

    return psycopg2.connect(**{**address.libpq, **more})


def _keeps_session(address: Address) -> bool:
    """Return True if the pooler gives each client its own session.

    Such a pooler resets a session before the next client gets it. So leave a mark in a session,
    and see if it is gone when the same server process serves the next connection. When in doubt,
    return False: a setting that leaked into other clients' sessions would do harm.
    """
    mark = f"aspencli.mark_{os.urandom(4).hex()}"
    for _attempt in range(_MARKS):
        marked = _ask_plainly(
            address, f"SELECT pg_backend_pid(), set_config('{mark}', 'on', false)"
        )
        found = _ask_plainly(address, f"SELECT pg_backend_pid(), current_setting('{mark}', true)")
        if found[0] == marked[0]:
            if found[1] != "on":
                return True
            _ask_plainly(address, f"SELECT pg_backend_pid(), set_config('{mark}', '', false)")
            return False
    return False


def _ask_plainly(address: Address, query: str) -> tuple[int, str | None]:
    with closing(_connect(address)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            pid, value = cursor.fetchone()
            return pid, value


def _options(address: Address, standing: SessionFacts) -> str:
    chosen = {**standing.settings, **({"role": standing.reader} if standing.reader else {})}
    words = [f"-c {name}={_escaped(value)}" for name, value in chosen.items()]
    return " ".join([*filter(None, [address.libpq["options"]]), *words])


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def read_address(address: str) -> dict[str, str]:
    """Return the libpq parameters of an address; see `libpq_parameters`.

    Raises:
        BadInputError: It is not a valid address.
    """
    try:
        return libpq_parameters(address)
    except InvalidDatabaseUrlError as error:
        raise BadInputError(str(error), hint=_WHERE_TO_FIX) from None


@dataclass(frozen=True)
class PsqlCall:
    """A psql command to run.

    Attributes:
        arguments: Its argv, including the program's name; never a password.
        startup: The script to run instead of the user's startup file, or None to use that file.
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)  # it may include the password
    startup: str | None = None

    def startup_pipe(self) -> int | None:
        """Return a descriptor from which psql can read its startup script, or None without one."""
        if self.startup is None:
            return None
        reading, writing = os.pipe()
        os.write(writing, self.startup.encode())
        os.close(writing)
        return reading


def find_psql(target: Target, bundled: Callable[[], Path | None]) -> Path:
    """Return the system's psql, falling back to the bundled one for the local target.

    The bundled psql is built without TLS, so it must not connect to a server over a network.

    Raises:
        UnreachableError: There is no usable psql.
    """
    if found := shutil.which("psql"):
        return Path(found)
    local = bundled() if target.safety is Safety.LOCAL else None
    if local:
        return local
    raise UnreachableError(
        "psql was not found on PATH. The psql bundled with the local PostgreSQL has no TLS, and "
        f"works only for the local target, not for {target.label}.",
        hint="Install the PostgreSQL client (postgresql-client, or libpq on Homebrew), "
        "or use: aspencli db interact",
    )


def psql_call(
    program: Path,
    address: Address,
    target: Target,
    arguments: Sequence[str],
    *,
    standing: SessionFacts,
    script: bool,
) -> PsqlCall:
    """Build the command that starts psql with the session's limits and access mode.

    The password is passed in ``PGPASSWORD``: only this user and root can read a process's
    environment, while any user can read its arguments. A temporary password file would be left
    behind, because psql replaces this process.

    Args:
        program: The psql to run.
        address: The database, and whether its sessions may write.
        target: The target whose database it is.
        arguments: The user's own psql arguments; they come last and take precedence.
        standing: The facts gathered about its session.
        script: True if psql runs unattended. It then stops at the first error with exit code 3
            instead of continuing and returning 0.
    """
    stop = ["-v", "ON_ERROR_STOP=1"] if script else []
    inherited = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    return PsqlCall(
        program,
        # argv[0] is the full path: a psql outside PATH locates its files by it.
        (str(program), *stop, *_prompts(address, target), *arguments),
        {**inherited, **dict(_connection(address, standing))},
        _startup_script(standing) if standing.pooled else None,
    )


def _startup_script(standing: SessionFacts) -> str:
    """Return the startup script for psql behind a pooler, which ignores ``options``.

    If transactions may run in different sessions, it sets nothing, since that would leak into
    other clients' sessions. The user's own startup file comes last.
    """
    lines = []
    if standing.keeps_session:
        sets = ", ".join(
            f"set_config('{name}', {sql_literal(value)}, false)"
            for name, value in standing.settings.items()
        )
        lines.append(f"SELECT {sets} \\gset aspencli_")
    own = Path(os.environ.get("PSQLRC") or "~/.psqlrc").expanduser()
    if own.is_file():
        lines.append(f"\\i {sql_literal(str(own))}")
    return "\n".join([*lines, ""])


def _connection(address: Address, standing: SessionFacts) -> Iterator[tuple[str, str]]:
    given = address.parameters
    yield "PGDATABASE", given.get("dbname", "")
    for name, variable in (("user", "PGUSER"), ("password", "PGPASSWORD")):
        if given.get(name):
            yield variable, given[name]
    session = address.libpq
    options = session["options"] if standing.pooled else _options(address, standing)
    if options:
        yield "PGOPTIONS", options
    yield "PGAPPNAME", session["application_name"]
    yield "PGCONNECT_TIMEOUT", str(session["connect_timeout"])
    for name in sorted(given.keys() & _PARAMETERS):
        yield "PG" + name.upper().replace("_", ""), given[name]


def _prompts(address: Address, target: Target) -> list[str]:
    """Return psql's prompt arguments: none for the local target, else a prompt naming the target.

    A ``PROMPT1`` in the user's psqlrc is read later and takes precedence.
    """
    if target.safety is Safety.LOCAL:
        return []
    lead = target.title + (" (read-write)" if address.writable else "")
    return ["-v", f"PROMPT1={lead} %/%R%x%# ", "-v", f"PROMPT2={lead} %/%R%x%# "]


@dataclass(frozen=True)
class Words:
    """The user's own psql arguments, parsed as psql parses them."""

    commands: tuple[str, ...]  # of -c
    files: tuple[str, ...]  # of -f; - is standard input
    elsewhere: tuple[str, ...]  # the options that would make it connect to another database
    skips_startup: bool
    log: str | None = None  # the file of -L

    @property
    def reads_stdin(self) -> bool:
        """Return True if it runs commands from standard input."""
        return not (self.commands or self.files) or "-" in self.files


def read_words(arguments: Sequence[str]) -> Words:
    """Parse psql's arguments.

    Raises:
        BadInputError: psql would reject them.
    """
    try:
        options, rest = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise BadInputError(f"Invalid psql arguments: {error}") from error
    return Words(
        tuple(value for name, value in options if name in {"-c", "--command"}),
        tuple(value for name, value in options if name in {"-f", "--file"}),
        (*(name for name, _ in options if name in _ELSEWHERE), *rest),
        any(name in {"-X", "--no-psqlrc"} for name, _ in options),
        next((value for name, value in reversed(options) if name in {"-L", "--log-file"}), None),
    )


@cache
def _leaving() -> re.Pattern[str]:
    # SQL that could end a session's access mode or role, or hide SQL that does. A role can be given
    # up with SET ROLE NONE, and a function may run text that is not visible here.
    return re.compile(
        r"""\b(?:role|authorization|session_authorization|set_config|pg_settings|reset|discard
            |execute|do|call|transaction_read_only|default_transaction_read_only
            |query_to_xml\w*|cursor_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table
            |dblink\w*)\b
          | u&
          | (?<![:\w]):[\w'"{]                       # a variable of psql's
          | \\(?!d|l\b|l\+|x\b|q\b|pset\b|timing\b|echo\b|sf\b|sv\b|z\b|copy\b|[.;?h])
        """,
        re.IGNORECASE | re.VERBOSE,
    )


def could_leave(texts: Sequence[str]) -> str | None:
    """Return the first SQL that could end its session's role or access mode, or None."""
    for text in texts:
        if found := _leaving().search(text):
            return found[0].strip()
    return None


def require_kept_session(standing: SessionFacts, words: Words, *, writable: bool) -> None:
    """Check that a pooler cannot drop psql's read-only mode.

    Raises:
        RefusedError: It does, or might.
    """
    if not standing.pooled or writable or not standing.can_write:
        return
    if not standing.keeps_session:
        raise RefusedError(
            "psql cannot be read-only here: a connection pooler may run each transaction in a "
            "different server session. Nothing was run.",
            hint="Use aspencli db interact, which sets up each transaction, or connect to the "
            "database directly.",
        )
    if words.skips_startup:
        raise RefusedError(
            "Behind a pooler, psql is made read-only by its startup file, which -X "
            "(--no-psqlrc) skips. Nothing was run.",
            hint="Run it without -X.",
        )
