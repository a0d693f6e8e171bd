"""The service's database: engine and sessions (asyncpg), and parameters for many values."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
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
_ROOT_FILE = "~/.postgresql/root.crt"  # libpq's own file of certificates
_LIBPQ = (
    *("hostaddr", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslsni"),
    *("connect_timeout", "application_name", "options", "target_session_attrs", "channel_binding"),
    *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "gssencmode"),
    *("tcp_user_timeout", "client_encoding", "load_balance_hosts", "require_auth"),
)
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


class _TunnelledContext(ssl.SSLContext):
    """TLS through a tunnel: the server is verified by its own name, not by the tunnel's."""

    server: str | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin TLS; see `ssl.SSLContext.wrap_bio`."""
        name = self.server or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def _for_asyncpg(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return an address for asyncpg, and the arguments that replace libpq's parameters in it.

    asyncpg has no ``hostaddr``, and SQLAlchemy passes it no other parameters of libpq. Those that
    only tune a connection are left out (libpq, "Parameter Key Words").
    """
    given = {name: value for name, value in url.query.items() if isinstance(value, str)}
    arguments: dict[str, Any] = {}
    mode, address = given.get("sslmode"), given.get("hostaddr")
    if mode == "disable":
        arguments["ssl"] = False
    elif mode in {"allow", "prefer"}:
        arguments["ssl"] = mode
    elif mode is not None:
        arguments["ssl"] = _tls(mode, given, server=url.host if address else None)
    if address:
        url = url.set(host=address)
    return url.difference_update_query(_LIBPQ), arguments


def _tls(mode: str, given: Mapping[str, str], *, server: str | None) -> _TunnelledContext:
    context = _TunnelledContext(ssl.PROTOCOL_TLS_CLIENT)
    context.server = server
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    else:
        root = given.get("sslrootcert", _ROOT_FILE)
        if root == "system":
            context.load_default_certs()
        else:
            context.load_verify_locations(Path(root).expanduser())
    if certificate := given.get("sslcert"):
        context.load_cert_chain(certificate, given.get("sslkey"))
    return context


def make_engine(url: URL) -> AsyncEngine:
    """Return the engine of a process; it opens no connection before the first session."""
    url, arguments = _for_asyncpg(url)
    return create_async_engine(
        url,
        connect_args={"server_settings": _SERVER_SETTINGS, "timeout": _WAIT_S, **arguments},
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
