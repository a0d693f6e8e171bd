"""How psql is started: on the target's database, read-only, with the password out of sight."""

from __future__ import annotations

import getopt
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aspencli.errors import BadInputError, RefusedError, UnreachableError
from aspencli.targets import Safety, Target
from db import reading_role
from db.connecting import (
    READ_ONLY,
    InvalidDatabaseUrlError,
    SessionPolicy,
    connection_arguments,
    quoted,
)
from db.driver import opener
from db.errors import NotAllowedError
from db.hosts import split_hosts, wanted_server
from db.libpq import MISLEADING, clean_address

_MARKS = 3  # attempts to be served by the same process twice

# The parameters of an address that libpq also takes from PG<NAME> (libpq, "Environment Variables").
# Those that have no variable there only tune the connection (keepalives_idle and its like).
_PARAMETERS = frozenset(
    {
        *("host", "hostaddr", "port", "service", "passfile", "client_encoding", "require_auth"),
        *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"),
        *("sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding"),
        *("requirepeer", "gssencmode", "krbsrvname", "gsslib"),
        *("target_session_attrs", "load_balance_hosts"),
    }
)


_WHERE_TO_FIX = "Fix database_url in the config file, or the variable that sets it."
_SPELLING = re.compile(r"postgres(?:ql)?(?:\+\w+)?://")  # with SQLAlchemy's name of a driver


@dataclass(frozen=True)
class Address:
    """Where psql goes, and as what.

    Attributes:
        parameters: What the address has, by libpq's keywords. It may hold the password, so it is
            left out of ``repr``.
        policy: What holds for its sessions.
    """

    parameters: Mapping[str, str] = field(repr=False)
    policy: SessionPolicy

    @property
    def writable(self) -> bool:
        """Whether sessions may write."""
        return self.policy.writable

    @property
    def libpq(self) -> dict[str, Any]:
        """What each connection is given, without a mode or limits (libpq keywords)."""
        options = self.parameters.get("options", "")
        return {
            **connection_arguments(self.policy, options),
            "hostaddr": "",
            **{name: value for name, value in self.parameters.items() if name != "options"},
        }


@dataclass(frozen=True)
class Standing:
    """What was found out by connecting before psql does.

    Attributes:
        settings: What psql's session is to be set to.
        pooled: Whether a pooler is in between.
        keeps_session: Whether psql keeps one session of the server from start to end.
        can_write: Whether the role of the address can write anything.
        reader: The role that a reading psql takes on instead; None where it stays what it is.
    """

    settings: Mapping[str, str]
    pooled: bool = False
    keeps_session: bool = True
    can_write: bool = True
    reader: str | None = None

    @property
    def is_read_only_by_convention(self) -> bool:
        """Whether SQL could make a reading psql write."""
        return self.can_write and self.reader is None


def look(address: Address, *, as_reader: bool) -> Standing:
    """Connect as psql will, and find out what its session can be held to.

    Args:
        address: Where.
        as_reader: Whether to look for a role that cannot write.

    Raises:
        psycopg2.Error: It cannot connect.
        NotAllowedError: A reading session could write, or a writing one could not.
    """
    connection = _connect(address, connection_factory=opener(address.policy))
    try:
        settings = {
            "search_path": address.policy.search_path,
            **{
                name: str(value)
                for name, value in connection.defaults.stricter(address.policy).items()
            },
        }
        if not address.writable:
            settings[READ_ONLY] = "on"
        elif address.policy.overrides.read_only:
            settings[READ_ONLY] = "off"
        rights = reading_role.rights(connection, address.policy.schema) if as_reader else None
        standing = Standing(
            settings,
            connection.pooled,
            can_write=rights is None or rights.can_write,
            reader=rights.reader if rights and rights.can_write and not connection.pooled else None,
        )
    finally:
        connection.close()
    if standing.pooled:
        return replace(standing, keeps_session=_keeps_session(address))
    _verify(address, standing)
    return standing


def _connect(address: Address, **more: Any) -> Any:
    import psycopg2

    return psycopg2.connect(**{**address.libpq, **more})


def _keeps_session(address: Address) -> bool:
    """Return True if the pooler gives each of its clients a session of their own.

    Such a pooler resets a session before the next client gets it. So a mark that is left in one,
    and is gone when the same server process serves the next connection, tells. Any doubt counts
    against it: a setting that reached the sessions of others would do harm.
    """
    mark = f"aspencli.mark_{secrets.token_hex(4)}"
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


def _verify(address: Address, standing: Standing) -> None:
    """Make sure that psql's way to the settings, by ``options``, arrives at the server.

    Raises:
        NotAllowedError: It does not.
    """
    if address.writable:
        return
    options = _options(address, standing)
    with closing(_connect(address, options=options)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"SHOW {READ_ONLY}")
            if cursor.fetchone()[0] != "on":
                raise NotAllowedError(
                    "psql's session could not be made read-only: something between here and the "
                    "server dropped its settings. Nothing was run.",
                    hint="Use our own console, which sets them for each transaction: "
                    "aspencli db interact",
                )


def _options(address: Address, standing: Standing) -> str:
    chosen = {**standing.settings, **({"role": standing.reader} if standing.reader else {})}
    words = [f"-c {name}={_escaped(value)}" for name, value in chosen.items()]
    return " ".join([*filter(None, [address.libpq["options"]]), *words])


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def read_address(address: str) -> dict[str, str]:
    """The parameters of an address, as libpq reads them, which psql is made of.

    (SQLAlchemy would read it too, and take longer to load than psql to start.)

    Raises:
        BadInputError: It is none.
    """
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        address = clean_address(address)
        if not _SPELLING.match(address):
            raise ValueError(address)
        found = dict(parse_dsn(_SPELLING.sub("postgresql://", split_hosts(address), count=1)))
    except InvalidDatabaseUrlError as error:
        raise BadInputError(str(error), hint=_WHERE_TO_FIX) from None
    except (ProgrammingError, ValueError):
        # The parser's message could repeat a password.
        raise BadInputError(
            "not a database address; expected postgresql://user:password@host:port/name",
            hint=_WHERE_TO_FIX,
        ) from None
    if wanted := found.get("target_session_attrs"):
        found["target_session_attrs"] = wanted_server(wanted)
    return found


@dataclass(frozen=True)
class PsqlCall:
    """One start of psql.

    Attributes:
        program: The file to run.
        arguments: Its argv, the program's name first; never a password.
        environment: The environment to run it in. It may hold the password, so it is left out of
            ``repr``.
        startup: What it runs first, in the place of the operator's startup file; None for that.
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    startup: str | None = None


def find_psql(target: Target, bundled: Callable[[], Path | None], path: str | None = None) -> Path:
    """The psql to run: the system's, else for the local target the bundled one.

    The bundled psql is built without TLS, so it must not speak to a server over a network.

    Args:
        target: Whose database it is.
        bundled: Looks for the psql of the local PostgreSQL; None when that is not installed.
        path: Where to look, as in ``PATH``; the environment's when None.

    Raises:
        UnreachableError: There is none that can be used.
    """
    found = shutil.which("psql", path=path)
    if found:
        return Path(found)
    local = bundled() if target.safety is Safety.LOCAL else None
    if local:
        return local
    raise UnreachableError(
        f"there is no psql on PATH to reach {target.label} with; the one that comes with the local "
        "PostgreSQL has no TLS, and serves the local target only",
        hint="Install PostgreSQL's client (postgresql-client, or libpq of Homebrew), "
        "or use our own console: aspencli db interact",
    )


def psql_call(
    program: Path,
    address: Address,
    target: Target,
    arguments: Sequence[str] = (),
    *,
    standing: Standing,
    script: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> PsqlCall:
    """How to start psql on a database, with the limits and the mode of its sessions.

    The password goes through ``PGPASSWORD``: only this user and root can read a process's
    environment, while everybody can read its arguments. A temporary password file would outlive
    us, since psql takes the place of this process.

    Args:
        program: The psql to run.
        address: Where, and whether its sessions may write.
        target: Whose database it is.
        arguments: What the operator hands on to psql; it comes last, and so wins.
        standing: What was found out about its session.
        script: Nobody is at the keyboard: psql then ends at the first error, with exit code 3,
            instead of going on and ending with 0.
        environ: The environment to inherit.
    """
    stop = ["-v", "ON_ERROR_STOP=1"] if script else []
    inherited = {name: value for name, value in environ.items() if name not in MISLEADING}
    return PsqlCall(
        program,
        # Its own path comes first: not on PATH, psql finds its files by that.
        (str(program), *stop, *_prompts(address, target), *arguments),
        {**inherited, **dict(_connection(address, standing))},
        None if not standing.pooled else startup_script(standing, environ),
    )


def startup_script(standing: Standing, environ: Mapping[str, str] = os.environ) -> str:
    """Return what psql runs first behind a pooler, which takes no ``options``.

    Where transactions may run in different sessions nothing is set: it would reach those of others.
    The operator's own file comes after it.
    """
    lines = []
    if standing.keeps_session:
        sets = ", ".join(
            f"set_config('{name}', {quoted(value)}, false)"
            for name, value in standing.settings.items()
        )
        lines.append(f"SELECT {sets} \\gset aspencli_")
    own = Path(environ.get("PSQLRC") or "~/.psqlrc").expanduser()
    if own.is_file():
        lines.append(f"\\i {quoted(str(own))}")
    return "\n".join([*lines, ""])


def _connection(address: Address, standing: Standing) -> Iterator[tuple[str, str]]:
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
    """On the local target psql's own; elsewhere the target leads, so that nobody mistakes it.

    A ``PROMPT1`` in the operator's psqlrc comes later, and wins.
    """
    if target.safety is Safety.LOCAL:
        return []
    lead = target.title + (" (writing)" if address.writable else "")
    return ["-v", f"PROMPT1={lead} %/%R%x%# ", "-v", f"PROMPT2={lead} %/%R%x%# "]


# psql's own options (psql --help); getopt finds them however they are abbreviated.
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
# What could end the mode or the role of a session, or hide what does. The role may be given up
# (SET ROLE NONE), and a function may run text that nobody sees here.
_LEAVING = re.compile(
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


@dataclass(frozen=True)
class Words:
    """What the operator hands on to psql, as psql understands it.

    Attributes:
        commands: The texts of ``-c``.
        files: Those of ``-f``; ``-`` is standard input.
        elsewhere: The options by which it would connect to something else.
        skips_startup: Whether it reads no startup file.
    """

    commands: tuple[str, ...]
    files: tuple[str, ...]
    elsewhere: tuple[str, ...]
    skips_startup: bool

    @property
    def reads_stdin(self) -> bool:
        """Whether it runs what stands on standard input."""
        return not (self.commands or self.files) or "-" in self.files


def read_words(arguments: Sequence[str]) -> Words:
    """Read psql's arguments.

    Raises:
        BadInputError: psql would not take them.
    """
    try:
        options, rest = getopt.gnu_getopt(list(arguments), _SHORT, _LONG)
    except getopt.GetoptError as error:
        raise BadInputError(f"psql does not take these arguments: {error}") from error
    return Words(
        tuple(value for name, value in options if name in {"-c", "--command"}),
        tuple(value for name, value in options if name in {"-f", "--file"}),
        (*(name for name, _ in options if name in _ELSEWHERE), *rest),
        any(name in {"-X", "--no-psqlrc"} for name, _ in options),
    )


def could_leave(texts: Sequence[str]) -> str | None:
    """Return what in some SQL could end the role or the mode of its session; None if nothing."""
    for text in texts:
        if found := _LEAVING.search(text):
            return found[0].strip()
    return None


def require_kept_session(standing: Standing, words: Words, *, writable: bool) -> None:
    """Make sure that a pooler does not take psql's mode away.

    Raises:
        RefusedError: It does, or may.
    """
    if not standing.pooled or writable or not standing.can_write:
        return
    if not standing.keeps_session:
        raise RefusedError(
            "psql cannot be made read-only here: a pooler in front of the database may run each "
            "transaction in another session of the server. Nothing was run.",
            hint="Use our own console, which sets each transaction up (aspencli db interact), "
            "or connect to the database directly.",
        )
    if words.skips_startup:
        raise RefusedError(
            "Behind a pooler psql is made read-only by its startup file, which -X "
            "(--no-psqlrc) skips. Nothing was run.",
            hint="Leave -X out.",
        )
