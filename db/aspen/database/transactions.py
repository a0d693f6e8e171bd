"""The identity of a database, and the status of its transactions."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

CURRENT = "SELECT txid_current()"
STATUS = "SELECT txid_status(:transaction)"
_OID = "SELECT oid FROM pg_database WHERE datname = current_database()"
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_NOT_ALLOWED, _IN_THE_FUTURE = "42501", "22023"


@dataclass(frozen=True)
class DatabaseIdentity:
    """The identity of a database, to distinguish it from others with the same name and address.

    Attributes:
        oid: Its OID on the server; a database that is recreated gets a new one.
        system: The system identifier of the server, which replicas and backups share; None if
            this user may not read it.
    """

    oid: int
    system: str | None


def identify(connection: Connection) -> DatabaseIdentity:
    """Return the identity of a connection's database; no transaction may be open on it."""
    with connection.begin():
        oid = int(connection.execute(sa.text(_OID)).scalar_one())
    try:
        with connection.begin():
            system = str(connection.execute(sa.text(_SYSTEM)).scalar_one())
    except DBAPIError as error:
        if _state(error) != _NOT_ALLOWED:
            raise
        return DatabaseIdentity(oid, None)
    return DatabaseIdentity(oid, system)


def transaction_status(connection: Connection, transaction: int) -> str | None:
    """Return ``committed``, ``aborted`` or ``in progress``; None if the server does not know.

    The server forgets old transactions, and knows only those that it began itself. No transaction
    may be open on the connection.
    """
    try:
        with connection.begin():
            status = connection.execute(sa.text(STATUS), {"transaction": transaction}).scalar()
    except DBAPIError as error:
        if _state(error) != _IN_THE_FUTURE:
            raise
        return None
    return None if status is None else str(status)


def _state(error: DBAPIError) -> str | None:
    return getattr(error.orig, "pgcode", None)
