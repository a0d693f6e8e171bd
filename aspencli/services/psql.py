"""How psql is started: on the target's database, read-only, with the password out of sight."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aspencli.errors import BadInputError, UnreachableError
from aspencli.targets import Safety, Target
from db.connecting import InvalidDatabaseUrlError, Limits, cut_name, session_arguments
from db.hosts import split_hosts, wanted_server
from db.libpq import MISLEADING, clean_address

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
        application_name: What the server's activity views show.
        writable: Whether sessions may write.
    """

    parameters: Mapping[str, str] = field(repr=False)
    application_name: str
    writable: bool = False

    @property
    def session(self) -> dict[str, Any]:
        """What each of its sessions is told (libpq keywords)."""
        return session_arguments(cut_name(self.application_name), Limits(), writable=self.writable)

    @property
    def answers(self) -> bool:
        """Whether somebody can sign in there."""
        import psycopg2

        try:
            psycopg2.connect(**{**self.session, "hostaddr": "", **self.parameters}).close()
        except psycopg2.Error:
            return False
        return True


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
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


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
        {**inherited, **dict(_connection(address))},
    )


def _connection(address: Address) -> Iterator[tuple[str, str]]:
    given = address.parameters
    yield "PGDATABASE", given.get("dbname", "")
    for name, variable in (("user", "PGUSER"), ("password", "PGPASSWORD")):
        if given.get(name):
            yield variable, given[name]
    session = address.session
    yield "PGOPTIONS", session["options"]
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
    lead = target.label + (" (writing)" if address.writable else "")
    return ["-v", f"PROMPT1={lead} %/%R%x%# ", "-v", f"PROMPT2={lead} %/%R%x%# "]
