"""Commits whose outcome is looked up if the connection is lost meanwhile."""

from __future__ import annotations

import time

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError

from aspen.database.engine import STATUS, Database
from aspen.database.errors import OutcomeUnknownError

_PAUSES = (0.1, 0.5, 1, 2, 5, 10)  # seconds before each attempt to ask


def commit_surely(connection: Connection, database: Database, transaction: int) -> None:
    """Commit; if the connection is lost meanwhile, ask the server for the outcome.

    Raises:
        DBAPIError: It was not committed.
        OutcomeUnknownError: The server could not be reached.
    """
    try:
        connection.commit()
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        if _ask(database, transaction) != "committed":
            raise


def _ask(database: Database, transaction: int) -> str:
    """Return ``committed`` or ``aborted``."""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            with database.reading() as session:
                status = session.scalar(sa.text(STATUS), {"transaction": transaction})
        except OperationalError:
            continue
        # The server may take a moment to notice that the client is gone.
        if status in {"committed", "aborted"}:
            return str(status)
    raise OutcomeUnknownError(transaction)
