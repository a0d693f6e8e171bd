"""Operations on a whole database: create, inspect, and drop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError

from aspen.database.cancel import cancellable
from aspen.database.engine import Database, refusal_state
from aspen.database.errors import sqlstate
from aspencli.errors import BadInputError, ConflictError, RefusedError
from aspencli.text import counted

# Every server has one of these to connect to while another database is created or dropped.
_MAINTENANCE = ("postgres", "template1")
_SYSTEM = frozenset({"postgres", "template0", "template1", "rdsadmin"})
_DUPLICATE_DATABASE = "42P04"
_OBJECT_IN_USE = "55006"
_GAVE_UP = frozenset({"55P03", "57014"})  # lock_not_available, query_canceled
_NO_DATABASE = "3D000"
_LEAVING_S = 1.0  # a server process takes some milliseconds to exit after its client leaves


@dataclass(frozen=True)
class Visitor:
    """Another session in the database.

    Attributes:
        pid: The PID of its server process.
        user: The database user.
        application: The application name.
        client: The client's address; None for a socket on the server's own machine.
        state: ``active``, ``idle``, ``idle in transaction`` and so on; None if it is hidden.
    """

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
    """The contents of a database, shown before it is dropped.

    Attributes:
        name: The database name.
        size: The size on disk, in bytes.
        samples: The number of samples; None if there is no samples table or counting timed out.
        visitors: The other sessions in the database.
    """

    name: str
    size: int
    samples: int | None
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
    with _beside(database) as connection:
        return _exists(connection, name_of(database))


def create(database: Database) -> bool:
    """Create the database, empty and in UTF-8, and return False if it already exists."""
    name = name_of(database)
    with _beside(database) as connection:
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
    with _beside(database) as connection:
        if not _exists(connection, name):
            return None
        size = connection.scalar(sa.select(sa.func.pg_database_size(name)))
        visitors = _visitors(connection, name)
    return Holdings(name, int(size or 0), _samples(database), visitors)


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

    Args:
        database: The database to drop.
        force: Whether to end other sessions; requires PostgreSQL 13.

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
    with _beside(database) as connection:
        if not _exists(connection, name):
            return False
        if not force:
            require_alone(name, _lasting_visitors(connection, name))
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


def _lasting_visitors(connection: sa.Connection, name: str) -> tuple[Visitor, ...]:
    """Return the other sessions, after waiting for closing ones (such as our own) to exit."""
    deadline = time.monotonic() + _LEAVING_S
    while (visitors := _visitors(connection, name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return visitors


@contextmanager
def _beside(database: Database) -> Iterator[sa.Connection]:
    """Yield an autocommit connection to another database on the same server.

    CREATE and DROP DATABASE can run neither in a transaction nor from within the database itself.
    """
    for name in _MAINTENANCE:
        other = Database(
            database.url.set(database=name), policy=replace(database.policy, writable=True)
        )
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
