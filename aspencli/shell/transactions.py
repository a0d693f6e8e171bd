"""Tracking of the console's sessions and the state of their transactions."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary, WeakSet

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_INTRANS
from psycopg2.extensions import cursor as plain_cursor
from sqlalchemy import event
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction


class Transactions:
    """A tracker of every session created or used while it is entered, by weak references."""

    def __init__(self) -> None:
        self._connections: WeakKeyDictionary[Session, WeakSet[Connection]] = WeakKeyDictionary()

    def __enter__(self) -> Self:
        event.listen(Session, "after_begin", self._began)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        event.remove(Session, "after_begin", self._began)

    def watch(self, session: Session) -> None:
        """Track a session before its first statement."""
        self._connections.setdefault(session, WeakSet())

    def roll_back_failed(self) -> int:
        """Roll back sessions that a failed statement left unusable, and return how many."""
        failed = [session for session in list(self._connections) if self._failed(session)]
        for session in failed:
            session.rollback()
        return len(failed)

    def unsaved(self) -> list[Session]:
        """Return the sessions that have uncommitted changes."""
        return [session for session in list(self._connections) if self._changed(session)]

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
