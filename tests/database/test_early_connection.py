"""A connection that opens in the background is used once, and only where it fits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from aspen.database.driver import EarlyConnection
from aspen.database.engine import Database

_PID = sa.text("SELECT pg_backend_pid()")
_OTHERS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def parameters(database: Database, **changes: Any) -> dict[str, Any]:
    """Return the libpq parameters that a database connects with."""
    place = database.url.translate_connect_args(username="user", database="dbname")
    return {**place, **database.arguments(), **changes}


def with_early(database: Database, early: EarlyConnection) -> Database:
    return Database(database.url, policy=database.policy, early=early)


@pytest.mark.unpooled("it closes connections early")
def test_early_connection_is_the_first_of_its_database(database: Database) -> None:
    early = EarlyConnection(database.policy, parameters(database))
    used = with_early(database, early)
    with used.connected() as connection:
        assert connection.scalar(_OTHERS) == 0
        with used.connected() as other:
            assert other.scalar(_PID) != connection.scalar(_PID)
    used.dispose()


def test_early_connection_for_other_sessions_is_not_used(database: Database) -> None:
    early = EarlyConnection(database.policy, parameters(database))
    assert early.take(database.writing().policy, parameters(database)) is None
    assert early.take(database.policy, parameters(database, port=1)) is None
    opened = early.take(database.policy, parameters(database))
    assert opened is not None
    assert early.take(database.policy, parameters(database)) is None
    opened.close()


@pytest.mark.unpooled("its sessions stay")
@pytest.mark.parametrize("is_open", [True, False])
def test_early_connection_that_is_not_needed_is_closed(database: Database, is_open: bool) -> None:
    early = EarlyConnection(database.policy, parameters(database))
    if is_open:
        early._thread.join()
    early.close()
    early._thread.join()
    with database.connected() as connection:
        wait_for(lambda: connection.scalar(_OTHERS) == 0)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_error_of_early_connection_is_raised_when_it_is_needed(database: Database) -> None:
    wrong = database.url.set(port=1)
    early = EarlyConnection(database.policy, parameters(Database(wrong, policy=database.policy)))
    used = Database(wrong, policy=database.policy, early=early)
    for _ in range(2):  # the second time, it connects again
        with pytest.raises(OperationalError, match="port 1 failed"), used.connected():
            pass
