from __future__ import annotations

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from aspen.database.engine import CURRENT, Database, identify, transaction_status


def begun(connection: Connection) -> int:
    return int(connection.execute(sa.text(CURRENT)).scalar_one())


def test_transaction_status_is_in_progress_committed_or_aborted(database: Database) -> None:
    with database.engine.connect() as asking, database.writing().engine.connect() as connection:
        first = begun(connection)
        assert transaction_status(asking, first) == "in progress"
        connection.commit()
        assert transaction_status(asking, first) == "committed"
        second = begun(connection)
        connection.rollback()
        assert transaction_status(asking, second) == "aborted"
        connection.engine.dispose()


@pytest.mark.parametrize("unknown", [3, 10**6, 2**40])
def test_transaction_status_of_unknown_id_is_none(database: Database, unknown: int) -> None:
    with database.engine.connect() as connection:
        assert transaction_status(connection, unknown) is None


def test_databases_on_one_server_share_system_id_but_not_oid(
    database: Database, seeded: Database
) -> None:
    with database.engine.connect() as one, seeded.engine.connect() as other:
        first, second = identify(one), identify(other)
    assert first.system == second.system
    assert int(first.system or 0) > 0
    assert first.oid != second.oid


def test_database_identity_without_privilege_omits_system_id(database: Database) -> None:
    with database.begin() as session:
        session.execute(sa.text("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC"))
    with database.engine.connect() as connection:
        with connection.begin():
            connection.execute(sa.text("SET SESSION AUTHORIZATION pg_signal_backend"))
        identity = identify(connection)
        with pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(sa.text("SELECT * FROM pg_control_system()"))
        connection.invalidate()
    assert identity.oid > 0
    assert identity.system is None
