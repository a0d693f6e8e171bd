"""Explanations of errors for operators: exit code, message, and what to do next.

Nothing heavy is imported here: without SQLAlchemy loaded, an error cannot be one of its own.
"""

from __future__ import annotations

import datetime as dt
import errno
import linecache
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from typer._click.exceptions import ClickException, NoSuchOption, UsageError

from aspen.database import settings
from aspen.database.errors import (
    NotAllowedError,
    StandbyError,
    TemporaryTablesDeniedError,
    lost_at_commit,
)
from aspencli import __version__, files
from aspencli.errors import BUG, INTERRUPTED, AspenError, RefusedError, UncertainError, error_json

if TYPE_CHECKING:
    from sqlalchemy.exc import DBAPIError

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
# Lines in which PostgreSQL repeats the statement with its values, or a row.
_VALUES = re.compile(r"^(LINE \d+:|DETAIL:).*$", re.MULTILINE)
_EXTRA_ARGUMENTS = re.compile(r"Got unexpected extra argument\(s\) \((.*)\)", re.DOTALL)
_ISSUES = "Please report it, with that file, to the maintainers of aspencli."
_PRIMARY_NEEDED = (
    "Connect to the primary: set the target's database_url to it, or list all hosts there and add "
    "target_session_attrs=read-write."
)


@dataclass(frozen=True)
class Failure:
    """The explanation of an error."""

    code: int
    message: str
    hint: str | None = None
    details: tuple[str, ...] = ()
    kind: str | None = None  # its name for programs, if it is not that of the exit code

    def as_json(self) -> str:
        """Return the explanation for programs, as one line of JSON."""
        return error_json(
            self.code, self.message, kind=self.kind, next_step=self.hint, details=self.details
        )


# Keyed by SQLSTATE, its prefix (PostgreSQL, appendix A), or a name of our own.
_STATES = {
    "08": Failure(5, "The connection to the database was lost", "Try again."),
    "28": Failure(4, "The database rejected this user", "Check the user and password."),
    "3D000": Failure(
        6, "The database does not exist", "Check its name, or create it: aspencli db create"
    ),
    "3F000": Failure(6, "The schema is missing", "Create it: aspencli db upgrade"),
    "42P01": Failure(6, "A table is missing", "Upgrade the schema: aspencli db upgrade"),
    "42501": Failure(4, "This database user does not have permission", "Use one that does."),
    "25006": Failure(
        3, "This session is read-only; nothing was written", "To allow writes: --write"
    ),
    "57014": Failure(
        5,
        "The statement was canceled: it took too long, or someone canceled it",
        "Try again when the database is less busy.",
    ),
    "57P": Failure(5, "The database is shutting down or restarting", "Try again in a moment."),
    "55P03": Failure(
        7,
        "Another session holds a lock on the data to change; nothing was written",
        "Try again later, or find the session: aspencli db activity",
    ),
    "40": Failure(7, "Conflict with another transaction; nothing was written", "Try again."),
    "23505": Failure(7, "It already exists", "Choose another value."),
    "23": Failure(7, "It violates a constraint of the database", "See the details."),
    "22P05": Failure(
        2,
        "The database's encoding cannot store {}; nothing was written",
        "Replace it, or use a UTF-8 database: aspencli db create creates one.",
    ),
    "plain": Failure(
        4,
        "The database does not accept unencrypted connections from here for this user",
        "If it requires TLS, add ?sslmode=require to its address. Otherwise ask its administrator "
        "to allow your host in pg_hba.conf.",
    ),
    "certificate": Failure(
        5,
        "The database server's certificate was rejected",
        "Check sslrootcert, and that the host in the address matches the certificate.",
    ),
    "28000": Failure(
        4,
        "The database server rejected this user",
        "The user may not exist, may lack LOGIN, or may not be allowed to connect from your host "
        "(pg_hba.conf). Check the user in the target's address, or ask the administrator.",
    ),
    "53300": Failure(
        5,
        "The connection limit of the server, database, or user has been reached",
        "Try again later, or see who is connected: aspencli db activity --all",
    ),
    "53": Failure(5, "The database is out of resources", "Try again later, or free some."),
}
# States that mean something else while a connection is being opened.
_REFUSALS = {
    "42501": Failure(
        4,
        "This user is not allowed to connect to the database",
        "Ask its owner to run: GRANT CONNECT ON DATABASE … TO …",
    ),
    "55000": Failure(
        5,
        "The database does not accept connections",
        "Its owner can allow them: ALTER DATABASE … ALLOW_CONNECTIONS true",
    ),
}
_OPENING = (
    (r"no pg_hba\.conf entry .*, (?:no encryption|SSL off)", "plain"),
    (r"certificate verify failed|certificate .* does not match host name", "certificate"),
    (r"password authentication failed|no password supplied|pg_hba|role .* does not exist", "28"),
    (r"database .* does not exist", "3D000"),
    (r"too many (clients|connections)|remaining connection slots", "53"),
    (r"starting up|shutting down|recovery mode", "57P"),
)
_UNTRANSLATABLE = "22P05"
_STATES_OF_SERVERS = frozenset({"28", "3D000", "53", "57P"})
_NO_TLS = Failure(
    2,
    "The database server does not support TLS, which is required",
    "Enable TLS on the server. If the network in between can be trusted, add ?sslmode=disable to "
    "the database address.",
)
_LOST_AT_COMMIT = Failure(
    1,
    "Connection lost during the commit; it is unknown whether the changes were written.",
    "Check the data before you repeat the change.",
    kind=UncertainError.kind,
)
_UNANSWERED = Failure(
    5, "The database is not responding", "Check that it is running and reachable."
)
# Errors that libpq itself reports about connection settings. They are always in English, because
# the driver's libpq is built without translations.
_SETTING = re.compile(
    r"^(?:connection to server .* failed: )?(?P<what>"
    r"(?:invalid (?:\S+ value|integer value|port number|connection option|\"\w+\" value)"
    r"|could not parse network address|could not match \d+ "
    r"|(?:definition of )?service |syntax error in service file|Unix-domain socket path .* too long"
    r"|weak sslmode|GSSAPI encryption required|authentication method requirement"
    r"|channel binding (?:is )?required|server does not support SSL"
    r"|root certificate file|could not (?:load|read|open) .*(?:certificate|key|CRL|crl) ?file"
    r"|certificate file|private key file|missing \"=\"|unterminated quoted string"
    r"|invalid (?:URI|dsn|percent)|forbidden value|unexpected (?:character|spaces)).*)",
    re.MULTILINE,
)
_SHOWN_LINES = 12
_SHOWN_SQL = 300
_READ_ONLY = "25006"
# Hints for the operator's own code, by SQLSTATE (PostgreSQL manual, appendix A).
_HINTS = {
    "57014": "To allow more time in this session: "
    """session.execute(sa.text("SET statement_timeout = '10min'"))""",
    "55P03": "Another session holds a lock. Find it in pg_locks, or try again later.",
}


def explain(error: Exception) -> Failure:
    """Return the explanation of an error that ended the command."""
    if isinstance(error, AspenError):
        return Failure(error.exit_code, error.message, error.hint, error.details, error.kind)
    if isinstance(error, ClickException):
        return _of_usage(error)
    return _of_rules(error) or _of_database(error) or _of_system(error) or _bug(error)


def is_of_output(error: Exception) -> bool:
    """Return True if the error comes from writing the results."""
    if not isinstance(error, OSError) or error.filename:
        return False
    return error.errno == errno.EBADF or error.errno in _NO_ROOM


def _of_usage(error: ClickException) -> Failure:
    ctx = error.ctx if isinstance(error, UsageError) else None
    hint = f"See: {ctx.command_path} --help" if ctx else "See: aspencli --help"
    return Failure(error.exit_code, _usage_message(error), hint)


def _usage_message(error: ClickException) -> str:
    """Return Click's message, with its suggestions worded as those of commands are."""
    if isinstance(error, NoSuchOption) and error.possibilities:
        similar = sorted(error.possibilities)
        choice = similar[0] if len(similar) == 1 else f"one of {', '.join(similar)}"
        return f"{error.message}. Did you mean {choice}?"
    if extra := _EXTRA_ARGUMENTS.fullmatch(error.message):
        return f"Unexpected argument{'s' if ' ' in extra[1] else ''}: {extra[1]}"
    return error.format_message()


def _of_system(error: Exception) -> Failure | None:
    if not isinstance(error, OSError):
        return None
    if error.errno in _NO_ROOM:
        what = error.filename or "the results"
        return Failure(1, f"{what}: {error.strerror}", "Free up space, then run the command again.")
    if error.filename:
        what = f"{error.filename}: {error.strerror}"
        return Failure(1, what, "Fix this, then run the command again.")
    if error.errno == errno.EBADF:
        return Failure(
            1,
            "Cannot write the results: standard output is closed.",
            "Redirect it to a file or to /dev/null, then run the command again.",
        )
    return None


def _bug(error: Exception) -> Failure:
    try:
        hint = f"The details are in {_crash_file(error)}. {_ISSUES}"
    except (OSError, RefusedError):
        hint = f"Run the command again with --debug for details. {_ISSUES}"
    words = str(error).partition("\n")[0]
    return Failure(1, f"Bug in aspencli: {type(error).__name__}: {words}", hint, kind=BUG)


def _crash_file(error: Exception) -> Path:
    folder = files.state_dir() / "crashes"
    files.make_folder(folder)
    path = folder / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    lines = traceback.format_exception(error)  # frames and messages; no variables, no arguments
    text = _VALUES.sub(r"\1 (omitted: may contain data)", "".join(lines))
    files.write_whole(path, f"aspencli {__version__}, Python {sys.version}\n\n{text}")
    return path


# Errors of the database


def _of_rules(error: Exception) -> Failure | None:
    """Explain an error that the database layer itself raises."""
    if isinstance(error, settings.InvalidDatabaseUrlError):
        hint = "Fix database_url in the config file, or the variable that sets it."
        return Failure(2, str(error), hint)
    if isinstance(error, StandbyError | NotAllowedError):
        return Failure(3, str(error), getattr(error, "hint", _PRIMARY_NEEDED))
    if isinstance(error, TemporaryTablesDeniedError):
        return Failure(4, str(error), f"Ask the database's owner to run: {error.grant}")
    return None


def _of_database(error: Exception) -> Failure | None:
    if "sqlalchemy" not in sys.modules:  # starting psql does not import it
        return None
    from sqlalchemy.exc import DBAPIError, NoResultFound

    if isinstance(error, NoResultFound):
        return Failure(6, "Not found")
    if not isinstance(error, DBAPIError):
        return None
    state = getattr(error.orig, "pgcode", None)
    text = str(error.orig).strip()
    if lost_at_commit(error):
        return replace(_LOST_AT_COMMIT, details=tuple(text.splitlines()[:1]))
    found = _by_state(state) if state else _of_connection(error, text)
    if found is None:
        return None
    if state == _UNTRANSLATABLE:
        found = replace(found, message=found.message.format(_character(text)))
    return replace(found, details=tuple(line.strip() for line in text.splitlines()[:6]))


def _character(text: str) -> str:
    """Return the character whose bytes appear in a message."""
    found = re.search(r"0x[0-9a-f]{2}(?: 0x[0-9a-f]{2})*", text)
    character = bytes.fromhex(found[0].replace("0x", "")).decode(errors="replace") if found else ""
    return f"{character} (U+{ord(character):04X})" if len(character) == 1 else "a character"


def _by_state(state: str) -> Failure | None:
    return next((_STATES[state[:n]] for n in (5, 3, 2) if state[:n] in _STATES), None)


def _of_connection(error: DBAPIError, text: str) -> Failure | None:
    """Return the rule for a connection that failed to open or was lost."""
    if "server does not support SSL" in text:
        return _NO_TLS
    if setting := _SETTING.search(text):
        return Failure(2, f"Invalid database connection setting: {setting['what']}", _where_set())
    from aspen.database.engine import refusal_state

    state = refusal_state(error.orig)
    for pattern, meaning in _OPENING:
        # The English text is a fallback for the SQLSTATE, and says more only about encryption.
        if re.search(pattern, text) and (state is None or meaning not in _STATES_OF_SERVERS):
            return _STATES[meaning]
    if state and not state.startswith("08"):
        return _REFUSALS.get(state) or _by_state(state) or _UNANSWERED
    known = error.connection_invalidated or "connection" in text or state
    return _UNANSWERED if known or "could not translate host name" in text else None


def _where_set() -> str:
    names = settings.set_variables()
    stray = f", and these environment variables: {', '.join(names)}" if names else ""
    return f"Check the target's database address (aspencli config show){stray}."


# Errors of the operator's own code


def brief(
    error: BaseException, *, how_to_write: str, is_own: Callable[[str], bool]
) -> Failure | None:
    """Return a short message for an error, or None where the traceback is more useful.

    ``is_own`` returns True if a file name in the traceback is the operator's own code.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    place = _place(error, is_own)
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "Interrupted", details=place)
    if isinstance(error, AspenError):
        return Failure(error.exit_code, error.message, error.hint, (*error.details, *place))
    if isinstance(error, StandbyError | NotAllowedError):
        code = RefusedError.exit_code if isinstance(error, NotAllowedError) else 1
        hint = getattr(error, "hint", _PRIMARY_NEEDED) or how_to_write
        return Failure(code, str(error), hint, place)
    if isinstance(error, DBAPIError):
        return _of_driver(error, how_to_write, place)
    if isinstance(error, SQLAlchemyError):
        # The first argument is the message without the link to the SQLAlchemy website.
        message = str(error.args[0]) if error.args else ""
        return Failure(1, f"{type(error).__name__}: {message}", details=place)
    return None


def _of_driver(error: DBAPIError, how_to_write: str, place: tuple[str, ...]) -> Failure:
    driver = error.orig
    if lost_at_commit(error):
        return replace(_LOST_AT_COMMIT, details=(*str(driver).strip().splitlines()[:1], *place))
    lines = str(driver).strip().splitlines() or [""]
    details = (*lines[1:_SHOWN_LINES], *_statement(error), *place)
    state = getattr(driver, "pgcode", None)
    hint = how_to_write if state == _READ_ONLY else _HINTS.get(state or "")
    return Failure(1, f"{type(driver).__name__}: {lines[0]}", hint, details)


def _statement(error: DBAPIError) -> list[str]:
    if error.statement is None:
        return []
    sql = " ".join(error.statement.split())
    return ["SQL: " + (sql if len(sql) <= _SHOWN_SQL else sql[:_SHOWN_SQL] + "…")]


def _place(error: BaseException, is_own: Callable[[str], bool]) -> tuple[str, ...]:
    """Return the innermost line of the operator's code; empty if the code has only one line."""
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_own(frame.f_code.co_filename)
    ]
    if not own or len(linecache.getlines(own[-1][0])) < 2:  # noqa: PLR2004 - at least two lines
        return ()
    filename, line = own[-1]
    return (f"at line {line}: {linecache.getline(filename, line).strip()}",)
