"""Migrations of a database: upgrade, downgrade, inspect, compare, and write revisions.

Nothing is printed here. Each function takes an engine; to change something, its sessions must be
allowed to write. A `directory` holds more revisions, besides the program's own. One migration of a
database runs at a time, with time limits. Failures raise a `MigrationError`, failures to connect an
error of SQLAlchemy.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script
from alembic.util import CommandError
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from aspen.database import alembic
from aspen.database.cancel import driver_of
from aspen.database.errors import (
    MigrationError,
    MigrationLockError,
    MigrationPermissionError,
    MigrationRefusedError,
    StandbyError,
    sqlstate,
)
from aspen.database.settings import shorter

ADVISORY_LOCK = 0x617370656E  # the bytes of "aspen"; any number works that is not used otherwise

_LOCK_NOT_AVAILABLE = "55P03"

_HOLDER = sa.text(
    "SELECT pid, application_name, usename FROM pg_catalog.pg_stat_activity"
    " WHERE pid = (SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :key)"
)
_EXISTS_ALREADY = frozenset({"42P06", "42P07"})  # duplicate_schema, duplicate_table
_SHOWN = 100  # characters of a statement
_ALEMBIC = threading.Lock()
"""Alembic keeps its state in globals, so only one thread at a time may use it."""


@dataclass(frozen=True)
class MigrationLimits:
    """The time limits of a migration, in milliseconds; 0 means no limit.

    Attributes:
        lock_ms: The longest a statement waits for a table that is in use. Later sessions queue
            behind it, so it is better to give up than to wait for a busy table.
        statement_ms: The longest one statement may run.
        turn_ms: The longest to wait for another migration of the same database to finish.
    """

    lock_ms: int = 5_000
    statement_ms: int = 600_000
    turn_ms: int = 60_000

    def settings(self) -> dict[str, str]:
        """Return the server settings for the migrating session."""
        return {
            # Alembic expects names to be looked up in public; those in aspen are qualified.
            "search_path": "public",
            "lock_timeout": str(self.lock_ms),
            "statement_timeout": str(self.statement_ms),
        }


_DEFAULT_LIMITS = MigrationLimits()


@dataclass(frozen=True)
class UpgradeResult:
    """The revisions of a database before and after an upgrade, and those applied, in order."""

    before: str | None
    after: str | None
    applied: tuple[str, ...]


@dataclass(frozen=True)
class DowngradeResult:
    """The revisions of a database before and after a downgrade, and those reverted, in order."""

    before: str | None
    after: str | None
    reverted: tuple[str, ...]


@dataclass(frozen=True)
class Revision:
    """One step in the schema's history; the ID is the time it was created (UTC)."""

    revision: str
    down_revision: str | None  # None for the first
    message: str
    created: datetime | None  # None if the ID contains no time
    is_current: bool  # the database is at this revision
    is_head: bool  # it is the newest


@dataclass
class MigrationRecord:
    """A record that is filled while migrations run."""

    before: str | None = None  # the revision when this run got the migration lock
    applied: list[str] = field(default_factory=list)  # or reverted, in that order
    # The statements of the current revision that are already committed, although it is not done;
    # this happens with ``autocommit_block()`` or with a COMMIT in the revision.
    kept: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)
    _is_done: bool = False

    def note(
        self, ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: object
    ) -> None:
        """Record one revision; Alembic calls this, with keywords, in the revision's transaction."""
        del ctx, heads, run_args
        self.applied.extend(step.up_revision_ids)
        self._is_done = True

    def watch(self, connection: Connection) -> None:
        """Record statements that are committed on a connection before their revision is done."""
        sa.event.listen(connection, "after_cursor_execute", self._executed)
        sa.event.listen(connection, "commit", self._committed)
        sa.event.listen(connection, "rollback", lambda _connection: self._open.clear())

    def _executed(
        self, connection: Connection, _cursor: object, statement: str, *_more: object
    ) -> None:
        words = statement.split(None, 1)
        verb = words[0].upper().rstrip(";") if words else ""
        if verb in {"ROLLBACK", "ABORT"}:
            self._open.clear()
        elif verb not in {"SELECT", "SHOW", "SET", "BEGIN", "COMMIT", "END"}:
            self._open.append(" ".join(statement.split()))
        driver = connection.connection.dbapi_connection
        # No transaction is open, either in autocommit mode or after a COMMIT in the revision. From
        # then on, each statement is committed at once.
        if driver is not None and driver.info.transaction_status == TRANSACTION_STATUS_IDLE:
            self._committed(connection)

    def _committed(self, _connection: Connection) -> None:
        self.kept += self._open
        self._open.clear()
        if self._is_done:  # this was the commit of the whole revision
            self.kept.clear()
            self._is_done = False

    @property
    def words(self) -> str:
        """Return a description of what a failed revision left behind."""
        before = f"Already applied and kept: {', '.join(self.applied)}. " if self.applied else ""
        if not self.kept:
            return f"{before}Nothing of this revision was kept."
        listed = "; ".join(one if len(one) <= _SHOWN else f"{one[:_SHOWN]}..." for one in self.kept)
        return (
            f"{before}This revision had already committed these statements, although it is not "
            f"recorded as applied: {listed}. Undo them manually before you run it again."
        )


def upgrade(
    engine: Engine,
    revision: str = "head",
    *,
    directory: Path | None = None,
    limits: MigrationLimits = _DEFAULT_LIMITS,
) -> UpgradeResult:
    """Apply the missing revisions, each in a transaction; the database may be empty.

    Raises:
        UnknownRevisionError: The program lacks the requested revision, or the database's.
        MigrationLockError: Another migration, or another session's use of a table, took too long.
        MigrationPermissionError: The role lacks privileges, or the session is read-only.
        MigrationError: Anything else; revisions applied before the failing one stay.
    """
    return UpgradeResult(*_migrate(command.upgrade, engine, revision, directory, limits))


def downgrade(
    engine: Engine,
    revision: str,
    *,
    directory: Path | None = None,
    limits: MigrationLimits = _DEFAULT_LIMITS,
) -> DowngradeResult:
    """Revert revisions down to the given one, which stays; ``base`` leaves an empty schema.

    Raises:
        MigrationError: As in `upgrade`.
    """
    return DowngradeResult(*_migrate(command.downgrade, engine, revision, directory, limits))


def current(engine: Engine) -> str | None:
    """Return the revision of the database, even if unknown, or None if it records none."""
    with explained_failures(_DEFAULT_LIMITS), engine.connect() as connection:
        if getattr(connection.connection.driver_connection, "pooled", False):
            return alembic.recorded_revision(connection)  # limits last for a transaction only
        # Without a transaction, which would take two more round trips.
        plain = connection.execution_options(isolation_level="AUTOCOMMIT")
        return alembic.recorded_revision(plain, alembic.recorded_heads(plain))


def head(directory: Path | None = None) -> str:
    """Return the newest revision."""
    return alembic.only_head(alembic.scripts(directory))


def has(revision: str) -> bool:
    """Return True if a revision is one of the program's own."""
    return revision in {script.revision for script in alembic.scripts().walk_revisions()}


def history(engine: Engine | None = None, *, directory: Path | None = None) -> list[Revision]:
    """Return all revisions, newest first; without an engine, none of them is the current one.

    Raises:
        UnknownRevisionError: The database is at a revision that the program does not have.
    """
    existing = alembic.scripts(directory)
    at = None if engine is None else current(engine)
    alembic.require_known(at, existing)
    return [_listed(script, at) for script in existing.walk_revisions()]


def check(engine: Engine) -> list[str]:
    """Return the differences between database and models, one line each.

    It only reads, and needs no write privileges. Names, types with their lengths, NULLs, defaults,
    generated columns, indexes, constraints, triggers, rules, policies, views, functions, types, and
    sequences are compared. Rows, privileges, comments, and storage parameters are not.
    """
    with explained_failures(_DEFAULT_LIMITS), alembic.reading(engine) as connection:
        return alembic.differences(connection)


def revision(
    engine: Engine, message: str, *, autogenerate: bool = True, directory: Path | None = None
) -> Path:
    """Write a new revision, and return its file (``YYYYMMDD_HHMMSS_message.py``, in UTC).

    Args:
        engine: A database at the newest revision, with which the models are compared.
        message: A one-line description of the change.
        autogenerate: True to fill it with what the models have and the database lacks.
        directory: The directory to write to, instead of the program's own.

    Raises:
        NotAtHeadError: The database is not at the newest revision.
        MigrationError: The message is empty, or as in `upgrade`.
    """
    with _ALEMBIC, explained_failures(_DEFAULT_LIMITS):
        return alembic.write_revision(
            engine, message, autogenerate=autogenerate, directory=directory
        )


def upgrade_sql(revision: str = "head", *, directory: Path | None = None) -> str:
    """Return the SQL of an upgrade of an empty database, or of a range such as ``from:to``."""
    existing = alembic.scripts(directory)
    for end in revision.split(":"):
        alembic.require_revision(end, existing)
    text = io.StringIO()
    with _ALEMBIC, explained_failures(_DEFAULT_LIMITS):
        command.upgrade(alembic.make_config(directory, output=text), revision, sql=True)
    return text.getvalue()


def _migrate(
    step: Callable[[Config, str], None],
    engine: Engine,
    target: str,
    directory: Path | None,
    limits: MigrationLimits,
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return the revision before and after, and the revisions between them in order."""
    existing = alembic.scripts(directory)
    alembic.require_revision(target, existing)
    config, journal = alembic.make_config(directory), MigrationRecord()
    with (
        _ALEMBIC,
        explained_failures(limits, journal),
        alembic.migration_engine(engine) as private,
        private.connect() as connection,
    ):
        alembic.require_known(alembic.recorded_revision(connection), existing)
        connection.rollback()
        journal.watch(connection)
        config.attributes.update(connection=connection, limits=limits, journal=journal)
        step(config, target)
        return journal.before, alembic.recorded_revision(connection), tuple(journal.applied)


def _listed(script: Script, at: str | None) -> Revision:
    down = script.down_revision
    return Revision(
        revision=script.revision,
        down_revision=down if down is None or isinstance(down, str) else ", ".join(down),
        message=script.doc,
        created=alembic.created(script.revision),
        is_current=script.revision == at,
        is_head=script.is_head,
    )


@contextmanager
def guarded(connection: Connection, limits: MigrationLimits) -> Iterator[None]:
    """Hold the migration lock and apply the limits in the block, then restore the settings.

    If the database or the role sets shorter limits, those apply.

    Raises:
        MigrationLockError: Another migration did not finish in time.
        MigrationRefusedError: A pooler may run each transaction in another session.
    """
    if getattr(driver_of(connection), "pooled", False):
        raise MigrationRefusedError(
            "Migrations cannot run through a connection pooler, because their lock and time limits "
            "need a single server session. Nothing was changed.",
            hint="Set the target's database_url to connect directly to the server.",
        )
    turn = {**limits.settings(), "lock_timeout": str(limits.turn_ms)}
    before = _change(connection, _allowed(connection, turn))
    try:
        _take_turn(connection, limits)
        try:
            _change(connection, _allowed(connection, limits.settings()))
            yield
        finally:
            _end(connection, sa.select(sa.func.pg_advisory_unlock(ADVISORY_LOCK)))
    finally:
        _end(connection, _setting(before))


def _allowed(connection: Connection, values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings, with none looser than the server's own unless that was requested."""
    driver = driver_of(connection)
    defaults = getattr(driver, "defaults", None)
    if defaults is None or driver.policy.overrides.timeouts:
        return dict(values)
    strict = defaults.timeouts
    return {
        name: str(shorter(int(value), strict[name])) if name in strict else value
        for name, value in values.items()
    }


def _take_turn(connection: Connection, limits: MigrationLimits) -> None:
    try:
        connection.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))
        connection.commit()
    except OperationalError as error:
        connection.rollback()
        if sqlstate(error) != _LOCK_NOT_AVAILABLE:
            raise
        raise MigrationLockError(
            f"Another migration of this database{_holder(connection)} was still running after "
            f"{limits.turn_ms / 1000:g} s.",
            hint="Try again when it has finished.",
        ) from error


def _holder(connection: Connection) -> str:
    holder = connection.execute(_HOLDER, {"key": ADVISORY_LOCK}).first()
    connection.rollback()
    return f" ({holder.application_name or holder.usename}, PID {holder.pid})" if holder else ""


def _setting(values: Mapping[str, str]) -> sa.Select[tuple[str, ...]]:
    return sa.select(*(sa.func.set_config(name, value, False) for name, value in values.items()))


def _change(connection: Connection, values: Mapping[str, str]) -> dict[str, str]:
    """Change the session's settings, and return their previous values."""
    names = list(values)
    current = connection.execute(sa.select(*(sa.func.current_setting(name) for name in names)))
    before = dict(zip(names, current.one(), strict=True))
    connection.execute(_setting(values))
    connection.commit()
    return before


def _end(connection: Connection, statement: sa.Select[tuple[str, ...]]) -> None:
    if connection.invalidated:
        return  # the session is gone, along with its lock and settings
    connection.rollback()
    connection.execute(statement)
    connection.commit()


@contextmanager
def explained_failures(
    limits: MigrationLimits, journal: MigrationRecord | None = None
) -> Iterator[None]:
    """Turn the failures of a migration into a `MigrationError`; one that changes has a journal.

    A failure to connect, or a lost connection, passes through unchanged.
    """
    try:
        yield
    except CommandError as error:
        raise MigrationError(str(error)) from error
    except DBAPIError as error:
        code = sqlstate(error)
        if code is None:
            raise
        left = (journal or MigrationRecord()).words
        if "CONCURRENTLY" in (error.statement or "").upper():
            left += " If an index is left that is marked INVALID, drop it."
        raise _translated(code, str(error.orig).strip(), limits, left) from error
    except Exception as error:
        if journal is None or not _is_of_a_revision(error):
            raise
        words = str(error).partition("\n")[0]
        raise MigrationError(
            f"The revision's code failed: {type(error).__name__}: {words}", hint=journal.words
        ) from error


def _is_of_a_revision(error: Exception) -> bool:
    """Return True if the code of a revision raised the error."""
    if isinstance(error, (MigrationError, SQLAlchemyError, StandbyError)):
        return False
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name in {"upgrade", "downgrade"} and (
            "down_revision" in trace.tb_frame.f_globals
        ):
            return True
        trace = trace.tb_next
    return False


def _translated(code: str, text: str, limits: MigrationLimits, left: str) -> MigrationError:
    first_line = text.splitlines()[0]
    match code:
        case "42501":  # insufficient_privilege
            return MigrationPermissionError(
                f"Permission denied: {first_line}",
                hint="Migrate as the owner of schema aspen, with CREATE rights on schema public.",
            )
        case "25006":  # read_only_sql_transaction
            return MigrationPermissionError(
                "The session is read-only.", hint="Run the migration in a session that can write."
            )
        case "55P03":  # lock_not_available
            return MigrationLockError(
                f"A table was locked for longer than {limits.lock_ms / 1000:g} s: {first_line}",
                hint=f"{left} Try again when the table is less busy.",
            )
        case "57014":  # query_canceled
            return MigrationError(
                f"A statement ran for longer than {limits.statement_ms / 1000:g} s, or was "
                f"canceled: {first_line}",
                hint=f"{left} Allow more time, then try again.",
            )
        case code if code in _EXISTS_ALREADY:
            return MigrationError(
                f"The database already has what the revision creates: {first_line}",
                hint="The database has no recorded revision. Compare its schema with the models; "
                "if they match, record the revision in public.alembic_version.",
            )
        case _:
            return MigrationError(
                f"The database rejected the migration: {first_line} (SQLSTATE {code})",
                hint=left,
            )
