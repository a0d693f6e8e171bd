"""Operations on a whole database: create, inspect, and drop it, and migrate its schema."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from aspen.database import migrate
from aspen.database.alembic import is_older, unknown_revision
from aspen.database.cancel import cancellable
from aspen.database.engine import Database, refusal_state
from aspen.database.errors import (
    BrokenRevisionsError,
    MigrationError,
    MigrationLockError,
    MigrationPermissionError,
    MigrationRefusedError,
    NotAtHeadError,
    UnknownRevisionError,
    sqlstate,
)
from aspen.database.migrate import DowngradeResult, Revision, UpgradeResult
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    RefusedError,
)
from aspencli.text import counted

# Every server has one of these to connect to while another database is created or dropped.
_MAINTENANCE = ("postgres", "template1")
_SYSTEM = frozenset({"postgres", "template0", "template1", "rdsadmin"})
_DUPLICATE_DATABASE = "42P04"
_OBJECT_IN_USE = "55006"
_GAVE_UP = frozenset({"55P03", "57014"})  # lock_not_available, query_canceled
_NO_DATABASE = "3D000"
_LEAVING_S = 1.0  # a server process takes some milliseconds to exit after its client leaves
BASE = "base"
_KINDS: tuple[tuple[type[MigrationError], type[AspenError], str], ...] = (
    (BrokenRevisionsError, BadInputError, ""),
    (UnknownRevisionError, NotFoundError, "List all revisions: aspencli db history"),
    (MigrationLockError, ConflictError, "See what is running: aspencli db activity"),
    (MigrationRefusedError, RefusedError, ""),
    (NotAtHeadError, ConflictError, "Run: aspencli db upgrade"),
    (MigrationPermissionError, CredentialsError, ""),
)
_STEPS = re.compile(r"[+-]\d+")


@dataclass(frozen=True)
class Visitor:
    """Another session in the database; its client is None for a socket, its state if hidden."""

    pid: int
    user: str | None
    application: str | None
    client: str | None
    state: str | None

    def __str__(self) -> str:
        where = f" from {self.client}" if self.client else ""
        name = f", {self.application}" if self.application else ""
        return f"PID {self.pid}: {self.user}{where}{name} ({self.state or 'state hidden'})"


@dataclass(frozen=True)
class Holdings:
    """The contents of a database, shown before it is dropped."""

    size: int  # on disk, in bytes
    samples: int | None  # None if there is no samples table, or counting timed out
    visitors: tuple[Visitor, ...]


def name_of(database: Database) -> str:
    """Return the database name in the connection URL.

    Raises:
        BadInputError: The URL has no database name.
    """
    name = database.url.database
    if not name:
        raise BadInputError(
            f"The database URL has no database name: {database.display_url}",
            hint="Add the name at the end: postgresql://user@host:port/aspen_db",
        )
    return name


def exists(database: Database) -> bool:
    """Return True if the database exists on the server."""
    with beside(database) as connection:
        return _exists(connection, name_of(database))


def create(database: Database) -> bool:
    """Create the database, empty and in UTF-8, and return False if it already exists."""
    name = name_of(database)
    with beside(database) as connection:
        if _exists(connection, name):
            return False
        # Use template0, because a site's template1 may have another encoding or extra objects.
        statement = (
            f"CREATE DATABASE {_quoted(connection, name)} ENCODING 'UTF8' TEMPLATE template0"
        )
        try:
            cancellable(connection, lambda: connection.exec_driver_sql(statement))
        except DBAPIError as error:
            if sqlstate(error) == _DUPLICATE_DATABASE:  # created by someone else in the meantime
                return False
            raise
    return True


def holdings(database: Database) -> Holdings | None:
    """Return the contents of the database, or None if it does not exist."""
    name = name_of(database)
    with beside(database) as connection:
        if not _exists(connection, name):
            return None
        size = connection.scalar(sa.select(sa.func.pg_database_size(name)))
        visitors = _visitors(connection, name)
    return Holdings(int(size or 0), _samples(database), visitors)


def require_alone(name: str, visitors: Sequence[Visitor], *, always: bool = False) -> None:
    """Check that no other session is connected.

    Raises:
        ConflictError: Another session is connected.
    """
    if visitors or always:
        users = counted(len(visitors), "other session") if visitors else "other sessions"
        raise ConflictError(
            f"Database {name} is in use by {users}; nothing was written.",
            hint="Ask their owners to disconnect, or pass --force to terminate the sessions.",
            details=[str(visitor) for visitor in visitors[:10]],
        )


def drop(database: Database, *, force: bool = False) -> bool:
    """Drop the database and everything in it, and return False if it does not exist.

    Raises:
        RefusedError: It is one of the server's system databases.
        ConflictError: Other sessions are connected, and ``force`` is not set.
    """
    name = name_of(database)
    if name in _SYSTEM:
        raise RefusedError(
            f"{name} is a system database and cannot be dropped.",
            hint="Check the database name in the target's database URL.",
        )
    database.dispose()
    with beside(database) as connection:
        if not _exists(connection, name):
            return False
        if not force:
            require_alone(name, lasting_visitors(connection, name))
        clause = " WITH (FORCE)" if force else ""
        try:
            statement = f"DROP DATABASE {_quoted(connection, name)}{clause}"
            cancellable(connection, lambda: connection.exec_driver_sql(statement))
        except DBAPIError as error:
            if sqlstate(error) == _OBJECT_IN_USE:  # someone connected in the meantime
                require_alone(name, _visitors(connection, name), always=True)
            raise
    return True


def _samples(database: Database) -> int | None:
    try:
        with database.reading() as session:
            if session.scalar(sa.select(sa.func.to_regclass("aspen.samples"))) is None:
                return None
            return int(session.scalar(sa.text("SELECT count(*) FROM aspen.samples")) or 0)
    except OperationalError as error:
        if sqlstate(error) in _GAVE_UP:
            return None
        raise
    finally:
        database.dispose()


def _exists(connection: sa.Connection, name: str) -> bool:
    query = sa.text("SELECT EXISTS (SELECT FROM pg_database WHERE datname = :name)")
    return bool(connection.scalar(query, {"name": name}))


def _visitors(connection: sa.Connection, name: str) -> tuple[Visitor, ...]:
    query = sa.text(
        "SELECT pid, usename, application_name, host(client_addr), state FROM pg_stat_activity"
        " WHERE datname = :name AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        " ORDER BY pid"
    )
    return tuple(Visitor(*row) for row in connection.execute(query, {"name": name}))


def lasting_visitors(connection: sa.Connection, name: str) -> tuple[Visitor, ...]:
    """Return the other sessions, after waiting for closing ones (such as our own) to exit."""
    deadline = time.monotonic() + _LEAVING_S
    while (visitors := _visitors(connection, name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return visitors


@contextmanager
def beside(database: Database) -> Iterator[sa.Connection]:
    """Yield an autocommit connection to another database on the same server.

    CREATE and DROP DATABASE can run neither in a transaction nor from within the database itself.
    """
    for name in _MAINTENANCE:
        other = database.neighbor(name)
        try:
            connection = other.engine.connect()
        except OperationalError as error:
            other.dispose()
            if name != _MAINTENANCE[-1] and refusal_state(error.orig) == _NO_DATABASE:
                continue
            raise
        try:
            with connection:
                yield connection.execution_options(isolation_level="AUTOCOMMIT")
        finally:
            other.dispose()
        return


def _quoted(connection: sa.Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


@dataclass(frozen=True)
class SchemaState:
    """The state of a database's schema."""

    revision: str | None  # None if it has no schema
    head: str  # the newest in this program
    behind: int | None  # revisions; None if this program does not know the database's
    hidden: str | None = None  # why the revision cannot be read
    older: str | None = None  # how to update it if it is older than our oldest revision

    @property
    def word(self) -> str:
        """Return ``up to date``, ``behind``, ``empty``, or ``unknown``."""
        if self.revision is None and not self.hidden:
            return "empty"
        if self.older is not None:
            return "behind"
        if self.behind is None:
            return "unknown"
        return "behind" if self.behind else "up to date"


@dataclass(frozen=True)
class SetupPlan:
    """The plan for setting up a database, with the revisions to apply, oldest first."""

    database: str
    create: bool
    steps: tuple[Revision, ...]


@contextmanager
def _translated_failures() -> Iterator[None]:
    """Translate migration errors into the command line's errors and exit codes."""
    try:
        yield
    except MigrationError as error:
        for kind, told_as, step in _KINDS:
            if isinstance(error, kind):
                hint = " ".join(part for part in (error.hint, step) if part)
                raise told_as(error.message, hint=hint) from error
        raise AspenError(error.message, hint=error.hint) from error


@_translated_failures()
def schema_state(database: Database) -> SchemaState:
    """Return the schema's revision and how far it is behind the newest one."""
    at, chain = migrate.current(database.engine), _chain()
    position = _position(chain, at)
    behind = None if position is None else len(chain) - 1 - position
    older = None
    if at is not None and is_older(at, chain[0].revision):
        older = unknown_revision(at, chain[0].revision).hint
    return SchemaState(at, chain[-1].revision, behind, older=older)


def visible_schema_state(database: Database) -> SchemaState:
    """Return the same, or the reason why the user may not read the revision."""
    try:
        return schema_state(database)
    except CredentialsError as error:
        return SchemaState(None, _chain()[-1].revision, None, error.message)


@_translated_failures()
def history(database: Database, *, directory: Path | None = None) -> list[Revision]:
    """Return all revisions, newest first, with the database's current one marked."""
    return migrate.history(database.engine, directory=directory)


def pending(
    database: Database, revision: str = "head", *, directory: Path | None = None
) -> list[Revision]:
    """Return the revisions that an upgrade would apply, oldest first.

    Raises:
        NotFoundError: The revision does not exist, or the database's own revision is unknown here.
        BadInputError: The revision is older than the database's.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to < at:
        raise _wrong_way(chain, at, to, revision, "older", "downgrade")
    return chain[at + 1 : to + 1]


def undone(database: Database, revision: str, *, directory: Path | None = None) -> list[Revision]:
    """Return the revisions that a downgrade would revert, newest first.

    Raises:
        NotFoundError: The revision does not exist, or the database's own revision is unknown here.
        BadInputError: The revision is newer than the database's.
    """
    chain, at = _stand(database, directory)
    to = _resolve(chain, at, revision)
    if to > at:
        raise _wrong_way(chain, at, to, revision, "newer", "upgrade")
    return chain[to + 1 : at + 1][::-1]


def _wrong_way(
    chain: Sequence[Revision], at: int, to: int, revision: str, than: str, command: str
) -> BadInputError:
    now, then = (BASE if place < 0 else chain[place].revision for place in (at, to))
    return BadInputError(
        f"Revision {revision} is {than} than the database's current revision ({now}).",
        hint=f"To {command}: aspencli db {command} {then}",
    )


@_translated_failures()
def upgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> UpgradeResult:
    """Apply `pending` revisions; the database's sessions must be writable."""
    if not steps:
        at = migrate.current(database.engine)
        return UpgradeResult(at, at, ())
    return migrate.upgrade(database.engine, steps[-1].revision, directory=directory)


@_translated_failures()
def downgrade(
    database: Database, steps: Sequence[Revision], *, directory: Path | None = None
) -> DowngradeResult:
    """Revert the `undone` revisions; the database's sessions must be writable."""
    if not steps:
        at = migrate.current(database.engine)
        return DowngradeResult(at, at, ())
    end = steps[-1].down_revision or BASE
    return migrate.downgrade(database.engine, end, directory=directory)


@_translated_failures()
def upgrade_sql(steps: Sequence[Revision], *, directory: Path | None = None) -> str:
    """Return the SQL that applies the revisions in order; there must be some."""
    ends = f"{steps[0].down_revision or BASE}:{steps[-1].revision}"
    return migrate.upgrade_sql(ends, directory=directory)


@_translated_failures()
def differences(database: Database) -> list[str]:
    """Return the differences between the database and the models, one per line."""
    return migrate.check(database.engine)


@_translated_failures()
def write_revision(
    database: Database, message: str, *, empty: bool = False, directory: Path | None = None
) -> Path:
    """Write a new revision file, filled with the changes that the models have over the database."""
    return migrate.revision(database.engine, message, autogenerate=not empty, directory=directory)


@_translated_failures()
def plan_setup(database: Database) -> SetupPlan:
    """Return what is missing: the database, revisions, or nothing."""
    there = exists(database)
    steps = pending(database) if there else _chain()
    return SetupPlan(name_of(database), not there, tuple(steps))


def setup(database: Database, plan: SetupPlan) -> tuple[bool, UpgradeResult]:
    """Create the database if it is missing, and upgrade its schema to the newest revision.

    Returns:
        True if the database was created, and the result of the migration.
    """
    created = plan.create and create(database)
    return created, upgrade(database, plan.steps)


def _chain(directory: Path | None = None) -> list[Revision]:
    """Return every revision in this program, oldest first, each following the one before."""
    return migrate.history(directory=directory)[::-1]


def _position(chain: Sequence[Revision], revision: str | None) -> int | None:
    """Return the index of a revision in the chain; -1 for an empty database, None if unknown."""
    if revision is None:
        return -1
    return next((i for i, step in enumerate(chain) if step.revision == revision), None)


@_translated_failures()
def _stand(database: Database, directory: Path | None) -> tuple[list[Revision], int]:
    chain, at = _chain(directory), migrate.current(database.engine)
    position = _position(chain, at)
    if position is None and is_older(at or "", chain[0].revision):
        error = unknown_revision(at or "", chain[0].revision)
        raise NotFoundError(error.message, hint=error.hint)
    if position is None:
        raise NotFoundError(
            f"The database is at revision {at}, which this version of aspencli does not know.",
            hint="A newer version migrated it. Update aspencli, then try again.",
        )
    return chain, position


def _resolve(chain: Sequence[Revision], at: int, wanted: str) -> int:
    """Return the index that ``head``, ``base``, ``+1``, ``-1``, or a revision prefix refers to."""
    if wanted == "head":
        return len(chain) - 1
    if wanted == BASE:
        return -1
    if _STEPS.fullmatch(wanted):
        found = [at + int(wanted)] if -1 <= at + int(wanted) < len(chain) else []
    else:
        found = [i for i, step in enumerate(chain) if step.revision.startswith(wanted)]
    if len(found) != 1:
        message = f"Revision not found: {wanted!r}"
        if found:
            message = f"Ambiguous revision: {wanted!r} matches {len(found)} revisions."
        raise NotFoundError(message, hint="List all revisions: aspencli db history")
    return found[0]
