"""The environment of the operator's code: defined names, open session, and write mode.

The database writes only after writing was requested. All sessions are tracked, so that failed
transactions are rolled back and uncommitted changes are not lost without a warning. Ctrl-C cancels
the running statement on the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary, WeakSet

import psycopg2
import sqlalchemy as sa
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import cursor as plain_cursor
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

from aspen.database import models
from aspen.database.cancel import run_cancellable
from aspen.database.engine import Database
from aspen.database.errors import lost_at_commit
from aspen.database.profiling.sqltime import (
    disable_profiling,
    enable_profiling,
    enable_profiling_ctx,
)
from aspen.database.sessions import ReadSession
from aspen.database.settings import Guard
from aspencli.errors import ConflictError, RefusedError
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.cli.console.completion import Names
    from aspencli.cli.console.run import ConsoleRequest


_FAILED = "Statement failed; transaction rolled back."
_RECONNECTS = "The next statement opens a new connection."
_LOST = f"Connection lost; its transaction was rolled back. {_RECONNECTS}"
_LOST_AT_COMMIT = f"Connection lost. {_RECONNECTS}"  # the error tells about the commit


class Workspace:
    """The database of one console, in the mode last requested."""

    def __init__(self, request: ConsoleRequest, how_to_write: str):
        from aspencli.cli.console.profiling import ConsoleProfiling  # imports Pygments

        self.request = request
        self._how_to_write = how_to_write
        self.transactions = ConsoleTransactions()
        self.profiling = ConsoleProfiling(request.messages)
        with ExitStack() as opened:
            opened.enter_context(self.transactions.tracked())
            opened.enter_context(interruptible())
            opened.callback(self.profiling.close)
            if request.profile:
                self.profile(on=True)
            self._source = request.open_database()
            self._exits = opened.pop_all()
        self._databases: list[GuardedDatabase] = []
        self._database = self._open(writable=self._source.writable)
        if self._database.writable:
            self._record()
        if request.around is not None:
            self._exits.enter_context(request.around(self._database.engine))
        self.session: Session = self._database.make_session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every session and connection; uncommitted changes are lost."""
        with self._exits:
            self.transactions.close()
            for database in self._databases:
                database.dispose()

    @property
    def writing(self) -> bool:
        """Return True if new sessions may write."""
        return self._database.writable

    def connect(self) -> None:
        """Open a connection and keep it for the first statement.

        Raises:
            sqlalchemy.exc.OperationalError: If the database is unreachable or refuses access.
        """
        with self._database.engine.connect():
            """Keep the connection in the pool."""

    def names(self) -> dict[str, Any]:
        """Return the names defined for the operator's code."""
        return {
            **{name: getattr(models, name) for name in models.__all__},
            "sa": sa,
            "select": sa.select,
            "enable_profiling": enable_profiling,
            "disable_profiling": disable_profiling,
            "enable_profiling_ctx": enable_profiling_ctx,
            **self.database_names(),
        }

    def database_names(self) -> dict[str, Any]:
        """Return the names that change with the mode."""
        return {"engine": self._database, "db": self._database, "session": self.session}

    def new_session(self) -> Session:
        """Return another session of the database, in the mode last requested."""
        return self._database.make_session()

    def read_names(self) -> Names:
        """Return the names of tables, columns, and functions for completion."""
        from aspencli.cli.console.completion import read_names

        connection = self._database.engine.raw_connection()
        try:
            return read_names(connection.driver_connection)
        finally:
            connection.close()

    def profile(self, *, on: bool) -> None:
        """Start or stop printing each query with its time, and a summary of each cell."""
        if on:
            self.profiling.switch_on(self.transactions.connections())
        else:
            self.profiling.switch_off()

    def switch(self, *, writable: bool) -> None:
        """Reopen the database in the other mode; existing sessions keep theirs.

        Raises:
            ConflictError: If a session has uncommitted changes.
        """
        if unsaved := self.transactions.unsaved():
            verb = "has" if unsaved == 1 else "have"
            raise ConflictError(
                f"{counted(unsaved, 'session')} {verb} uncommitted changes",
                hint="Finish first: session.commit() or session.rollback()",
            )
        # Not closed: results already shown stay attached to it and can still load attributes.
        self.session.rollback()
        self._database = self._open(writable=writable)
        self.session = self._database.make_session()
        if writable:
            self._record()

    def _record(self) -> None:
        """Report every statement from now on to the record of the session, if it has one."""
        if self.request.heard is not None:
            self.profiling.record(self.request.heard, self.transactions.connections())

    def _open(self, *, writable: bool) -> GuardedDatabase:
        database = GuardedDatabase(
            self._source,
            writable=writable,
            on_session=self.transactions.watch,
            how_to_write=self._how_to_write,
            name=self.request.writing_name,
        )
        self._databases.append(database)
        return database


class GuardedDatabase(Database):
    """A database in which every way to write follows the console's mode.

    Elsewhere, a program asks to write by calling ``begin()`` or ``writing()``; at a prompt these
    would bypass the confirmation that the safety rules require. Databases derived from this one,
    its engines, and their connections are guarded the same way (see `aspen.database.driver`). A
    new engine created from ``engine.url`` is not.
    """

    def __init__(
        self,
        source: Database,
        *,
        writable: bool,
        on_session: Callable[[Session], None],
        how_to_write: str,
        name: Callable[[], str] | None,
    ):
        policy = source.policy
        guard = Guard.READING if not writable else policy.guard
        if writable and guard is Guard.READING:
            guard = Guard.NONE  # writing was requested
        policy = replace(policy, writable=writable, guard=guard)
        if writable and name is not None:
            policy = replace(policy, application_name=name())
        super().__init__(source.url, policy=policy, route=source.route)
        self._on_session = on_session
        self._how_to_write = how_to_write

    def make_session(self) -> ReadSession:
        """Return a new session, which is rolled back when one of its statements fails."""
        session = super().make_session()
        self._on_session(session)
        return session

    def _require_writing(self) -> None:
        if not self.writable:
            raise RefusedError(
                "This console is read-only; nothing was written", hint=self._how_to_write
            )


class ConsoleTransactions:
    """A tracker of sessions and the connections that they use, by weak references."""

    def __init__(self) -> None:
        self._lost: str | None = None  # the outcome of the last loss of a connection
        self._connections: WeakKeyDictionary[Session, WeakSet[Connection]] = WeakKeyDictionary()

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Track every session that is used within a ``with`` block."""
        event.listen(Session, "after_begin", self._began)
        event.listen(Engine, "handle_error", self._note_loss)
        try:
            yield
        finally:
            event.remove(Engine, "handle_error", self._note_loss)
            event.remove(Session, "after_begin", self._began)

    def watch(self, session: Session) -> None:
        """Track a session before its first statement."""
        self._connections.setdefault(session, WeakSet())

    def roll_back_failed(self) -> str | None:
        """Roll back sessions that a failed statement left unusable, and return what happened."""
        lost, self._lost = self._lost, None
        failed = [session for session in list(self._connections) if self._failed(session)]
        for session in failed:
            session.rollback()
        return (lost or _FAILED) if failed else None

    def unsaved(self) -> int:
        """Return the number of sessions with uncommitted changes."""
        return sum(map(self._changed, list(self._connections)))

    def connections(self) -> list[Connection]:
        """Return the connections that the sessions currently hold."""
        return [
            connection
            for session in list(self._connections)
            for connection in self._open(session)
            if not connection.invalidated
        ]

    def close(self) -> None:
        """Close every session; uncommitted changes are lost."""
        self.roll_back_failed()
        for session in list(self._connections):
            session.close()

    def _began(
        self, session: Session, _transaction: SessionTransaction, connection: Connection
    ) -> None:
        # The session under an AsyncSession can only be rolled back by its own event loop.
        if not connection.dialect.is_async:
            self._connections.setdefault(session, WeakSet()).add(connection)

    def _note_loss(self, failure: ExceptionContext) -> None:
        error = failure.sqlalchemy_exception
        if failure.is_disconnect and isinstance(error, DBAPIError):
            self._lost = _LOST_AT_COMMIT if lost_at_commit(error) else _LOST

    def _open(self, session: Session) -> list[Connection]:
        return [connection for connection in self._connections[session] if not connection.closed]

    def _failed(self, session: Session) -> bool:
        if not session.is_active:  # a flush failed
            return True
        return any(map(_is_failed, self._open(session)))

    def _changed(self, session: Session) -> bool:
        if session.new or session.deleted or any(map(session.is_modified, session.dirty)):
            return True
        return any(_wrote(connection) for connection in self._open(session))


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _is_failed(connection: Connection) -> bool:
    if connection.invalidated:
        return True
    driver = _driver(connection)
    if driver.closed:
        # Lost while the driver was used directly, which SQLAlchemy did not notice.
        connection.invalidate()
        return True
    return bool(driver.get_transaction_status() == TRANSACTION_STATUS_INERROR)


def _wrote(connection: Connection) -> bool:
    """Return True if the open transaction has written: the server gave it an ID only then."""
    if connection.invalidated:
        return False
    driver = _driver(connection)
    if driver.closed or driver.get_transaction_status() != TRANSACTION_STATUS_INTRANS:
        return False
    # Asked directly on the driver, with a plain cursor, so that this query is not profiled.
    with driver.cursor(cursor_factory=plain_cursor) as cursor:
        try:
            cursor.execute("SELECT txid_current_if_assigned() IS NOT NULL")
        except psycopg2.OperationalError:  # the connection is lost, and its changes too
            return False
        return bool(cursor.fetchone()[0])


@contextmanager
def interruptible() -> Iterator[None]:
    """Make every statement on every engine interruptible by Ctrl-C within a ``with`` block.

    psycopg2's own solution, a wait callback, is not used: it forbids COPY, and it makes the driver
    ignore ``connect_timeout``.
    """
    methods = ("do_execute", "do_executemany", "do_execute_no_params")
    listeners = [(method, _listener(method)) for method in methods]
    listeners.append(("handle_error", _keep_connection))
    for name, listener in listeners:
        event.listen(Engine, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners:
            event.remove(Engine, name, listener)


def _listener(method: str) -> Callable[..., bool | None]:
    """Return a listener that runs a method of the dialect so that Ctrl-C can cancel it."""

    def execute(*arguments: Any) -> bool:
        dialect = arguments[-1].dialect
        if dialect.driver != "psycopg2":
            return False  # SQLAlchemy runs it
        run_cancellable(arguments[0].connection, getattr(dialect, method), *arguments)
        return True

    return execute


def _keep_connection(failure: ExceptionContext) -> None:
    # SQLAlchemy discards a connection when an interrupt passes through it, because the driver may
    # be mid-operation. Here the statement has ended, and the transaction is rolled back.
    if isinstance(failure.original_exception, KeyboardInterrupt):
        failure.is_disconnect = False
