"""Safeguards for migrating a database in use: time limits, and one migration at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from aspen.database.errors import MigrationLockError, MigrationRefusedError

ADVISORY_LOCK = 0x617370656E  # the bytes of "aspen"; any number works that is not used otherwise

_LOCK_NOT_AVAILABLE = "55P03"

_HOLDER = sa.text(
    "SELECT pid, application_name, usename FROM pg_catalog.pg_stat_activity"
    " WHERE pid = (SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :key)"
)


@dataclass(frozen=True)
class MigrationLimits:
    """The time limits of a migration, in milliseconds; 0 means no limit.

    Attributes:
        lock_ms: The longest a statement waits for a table that is in use. Later sessions queue
            behind it, so it is better to give up than to wait for a busy table.
        statement_ms: The longest one statement may run.
        turn_ms: The longest to wait for another migration of the same database to finish.
    """

    lock_ms: int = 5_000
    statement_ms: int = 600_000
    turn_ms: int = 60_000

    def settings(self) -> dict[str, str]:
        """Return the server settings for the migrating session."""
        return {
            # Alembic expects names to be looked up in public; those in aspen are qualified.
            "search_path": "public",
            "lock_timeout": str(self.lock_ms),
            "statement_timeout": str(self.statement_ms),
        }


@contextmanager
def guarded(connection: Connection, limits: MigrationLimits) -> Iterator[None]:
    """Hold the migration lock and apply the limits in the block, then restore the settings.

    If the database or the role sets shorter limits, those apply.

    Raises:
        MigrationLockError: Another migration did not finish in time.
        MigrationRefusedError: A pooler may run each transaction in another session.
    """
    if getattr(_driver(connection), "pooled", False):
        raise MigrationRefusedError(
            "Migrations cannot run through a connection pooler, because their lock and time limits "
            "need a single server session. Nothing was changed.",
            hint="Set the target's database_url to connect directly to the server.",
        )
    turn = {**limits.settings(), "lock_timeout": str(limits.turn_ms)}
    before = _change(connection, _allowed(connection, turn))
    try:
        _take_turn(connection, limits)
        try:
            _change(connection, _allowed(connection, limits.settings()))
            yield
        finally:
            _end(connection, sa.select(sa.func.pg_advisory_unlock(ADVISORY_LOCK)))
    finally:
        _end(connection, _setting(before))


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _allowed(connection: Connection, values: Mapping[str, str]) -> dict[str, str]:
    """Return the settings, with none looser than the server's own unless that was requested."""
    driver = _driver(connection)
    defaults = getattr(driver, "defaults", None)
    if defaults is None or driver.policy.overrides.timeouts:
        return dict(values)
    strict = {name: defaults.timeouts[name] for name in values.keys() & defaults.timeouts.keys()}
    return {
        name: str(min(filter(None, (int(value), strict[name])), default=0))
        if name in strict
        else value
        for name, value in values.items()
    }


def _take_turn(connection: Connection, limits: MigrationLimits) -> None:
    try:
        connection.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))
        connection.commit()
    except OperationalError as error:
        connection.rollback()
        if getattr(error.orig, "pgcode", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise MigrationLockError(
            f"Another migration of this database{_holder(connection)} was still running after "
            f"{limits.turn_ms / 1000:g} s.",
            hint="Try again when it has finished.",
        ) from error


def _holder(connection: Connection) -> str:
    holder = connection.execute(_HOLDER, {"key": ADVISORY_LOCK}).first()
    connection.rollback()
    return f" ({holder.application_name or holder.usename}, PID {holder.pid})" if holder else ""


def _setting(values: Mapping[str, str]) -> sa.Select[tuple[str, ...]]:
    return sa.select(*(sa.func.set_config(name, value, False) for name, value in values.items()))


def _change(connection: Connection, values: Mapping[str, str]) -> dict[str, str]:
    """Change the session's settings, and return their previous values."""
    names = list(values)
    current = connection.execute(sa.select(*(sa.func.current_setting(name) for name in names)))
    before = dict(zip(names, current.one(), strict=True))
    connection.execute(_setting(values))
    connection.commit()
    return before


def _end(connection: Connection, statement: sa.Select[tuple[str, ...]]) -> None:
    if connection.invalidated:
        return  # the session is gone, along with its lock and settings
    connection.rollback()
    connection.execute(statement)
    connection.commit()
