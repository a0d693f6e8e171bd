"""The service's database: engine and sessions (asyncpg), and parameters for many values."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import sqlalchemy as sa
from asyncpg import InterfaceError, PostgresError
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from aspen.api.errors import unavailable

_Value = TypeVar("_Value")
_log = logging.getLogger(__name__)
_POOL, _OVERFLOW, _WAIT_S = 5, 15, 10
_TOGETHER = 10_000
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


class RequestSession(AsyncSession):
    """The session of a request, which may hold one of its user's turns at the database."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.turn = AsyncExitStack()
        self.is_kept = False  # True if a response is read from it, which closes it

    async def start(self, *, readonly: bool) -> None:
        """Begin the transaction.

        Raises:
            ApiError: 503 if no database connection is available.
        """
        try:
            await self.connection(execution_options={"postgresql_readonly": readonly})
        except (OSError, InterfaceError, PostgresError, SQLAlchemyError) as error:
            _log.warning("Cannot connect to the database: %s", error)
            raise unavailable("the database") from error

    async def give_back(self) -> None:
        """Return the connection to the pool during a long wait; loaded objects stay usable."""
        await self.commit()
        await self.turn.aclose()

    async def close(self) -> None:
        """Roll back uncommitted changes, and return the connection to the pool."""
        await asyncio.shield(super().close())
        await self.turn.aclose()


def make_sessions(engine: AsyncEngine) -> async_sessionmaker[RequestSession]:
    """Return a factory for sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, class_=RequestSession, expire_on_commit=False)


def integers(name: str) -> sa.BindParameter[Sequence[int]]:
    """Return an array parameter: a statement is limited to 32,767 separate ones.

    Pass its values when executing the statement. Statements contain reference cycles, so values
    stored in them stay in memory until the next garbage collection.
    """
    return sa.bindparam(name, type_=ARRAY(sa.Integer))


def texts(name: str) -> sa.BindParameter[Sequence[str]]:
    """Return an array parameter for any number of strings, as `integers` does for integers."""
    return sa.bindparam(name, type_=ARRAY(sa.String))


def batches(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    """Yield the values in batches, one for each statement.

    The driver takes 0.1 s to encode 100,000 values, which blocks the event loop.
    """
    for start in range(0, len(values), _TOGETHER):
        yield values[start : start + _TOGETHER]
