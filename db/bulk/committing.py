"""Committing so that the outcome is known even when the connection breaks at that moment."""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from db.database import Database
from db.errors import OutcomeUnknownError
from db.transactions import STATUS

_PAUSES = (0.1, 0.5, 1, 2, 5, 10)  # seconds between attempts to ask


def commit_surely(connection: Connection, database: Database, transaction: int) -> None:
    """Commit; where the connection is lost meanwhile, ask the server which way it went.

    Args:
        connection: What the transaction is open on.
        database: Where to ask.
        transaction: Its id.

    Raises:
        DBAPIError: It was not committed.
        OutcomeUnknownError: The server could not be asked.
    """
    try:
        connection.commit()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        if _ask(database, transaction) != "committed":
            raise


def _ask(database: Database, transaction: int) -> str:
    """``committed`` or ``aborted``."""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            with database.reading() as session:
                status = session.scalar(sa.text(STATUS), {"transaction": transaction})
        except OperationalError:
            continue
        # The server may take a moment to notice that its client is gone.
        if status in {"committed", "aborted"}:
            return str(status)
    raise OutcomeUnknownError(transaction)
