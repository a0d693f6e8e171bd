"""Which database it is, and what became of a transaction there."""

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
    """What tells a database from another of the same name and address.

    Attributes:
        oid: Its number within its server; a database that is made anew has another.
        system: The identifier of the server's data, the same on its replicas and their backups;
            None where this user may not read it.
    """

    oid: int
    system: str | None


def identify(connection: Connection) -> DatabaseIdentity:
    """Which database a connection is open to; no transaction may be open there."""
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
    """``committed``, ``aborted`` or ``in progress``; None where the server cannot tell any more.

    It forgets old transactions, and knows none that it has not begun itself. No transaction may be
    open on the connection.
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
