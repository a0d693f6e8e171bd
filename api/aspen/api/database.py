"""The service's database engine: one per process, using asyncpg."""

from __future__ import annotations

import logging

from asyncpg import InterfaceError, PostgresError
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from aspen.api.errors import unavailable

_log = logging.getLogger(__name__)
_POOL, _OVERFLOW, _WAIT_S = 5, 15, 10
_SERVER_SETTINGS = {
    "application_name": "aspen-api",
    "search_path": "aspen,public",
    "timezone": "UTC",
    "statement_timeout": "120s",
    "lock_timeout": "10s",
    # A client that reads a list slowly must not keep a transaction open indefinitely.
    "idle_in_transaction_session_timeout": "600s",
    # Compiling these queries takes longer than running them.
    "jit": "off",
    # One parameter may hold ten IDs or ten thousand, which need different plans.
    "plan_cache_mode": "force_custom_plan",
}


def make_engine(url: URL) -> AsyncEngine:
    """Return the engine of a process; it opens no connection before the first session."""
    return create_async_engine(
        url,
        connect_args={"server_settings": _SERVER_SETTINGS, "timeout": _WAIT_S},
        pool_size=_POOL,
        max_overflow=_OVERFLOW,
        pool_timeout=_WAIT_S,
        pool_pre_ping=True,
        pool_recycle=1_800,
        hide_parameters=True,
    )


def make_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return a factory for sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, expire_on_commit=False)


async def connect(session: AsyncSession, *, readonly: bool) -> None:
    """Begin the transaction of a session.

    Raises:
        ApiError: 503 if no database connection is available.
    """
    try:
        await session.connection(execution_options={"postgresql_readonly": readonly})
    except (OSError, InterfaceError, PostgresError, SQLAlchemyError) as error:
        _log.warning("Cannot connect to the database: %s", error)
        raise unavailable("the database") from error
