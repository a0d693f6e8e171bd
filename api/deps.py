"""What a view can ask for by naming it: the session, the settings, AWS."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, cast

from asyncpg import InterfaceError, PostgresError
from fastapi import Depends, Request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from api.aws import Aws
from api.errors import unavailable
from api.management import Management
from api.runtime import Runtime
from api.settings import Settings

_log = logging.getLogger(__name__)
_READING = frozenset({"GET", "HEAD"})


def get_runtime(request: Request) -> Runtime:
    """What this process holds open."""
    return cast("Runtime", request.app.state.runtime)


def get_settings(request: Request) -> Settings:
    """How the service is configured."""
    return get_runtime(request).settings


def get_aws(request: Request) -> Aws:
    """AWS; its clients block, so call them with `asyncio.to_thread`."""
    return get_runtime(request).aws


def get_identity(request: Request) -> Management:
    """The Management API of the identity provider."""
    return get_runtime(request).identity


async def get_db(request: Request) -> AsyncIterator[AsyncSession]:
    """The request's session, in one transaction that a GET may not write in.

    It lives until the last byte of the answer is out, so that lists can be streamed. What a view
    has not committed by then is rolled back: a view that writes says ``await db.commit()`` once,
    where its change is whole.
    """
    async with _session(request, readonly=request.method in _READING) as session:
        yield session


async def get_writing_db(request: Request) -> AsyncIterator[AsyncSession]:
    """Like `get_db`, for the one kind of GET that writes: the way back from a sign-in."""
    async with _session(request, readonly=False) as session:
        yield session


@asynccontextmanager
async def _session(request: Request, *, readonly: bool) -> AsyncIterator[AsyncSession]:
    async with get_runtime(request).sessions() as session:
        try:
            await session.connection(execution_options={"postgresql_readonly": readonly})
        except (OSError, InterfaceError, PostgresError, SQLAlchemyError) as error:
            _log.warning("no connection to the database: %s", error)
            raise unavailable("the database") from error
        yield session


AppRuntime = Annotated[Runtime, Depends(get_runtime)]
AppSettings = Annotated[Settings, Depends(get_settings)]
Identity = Annotated[Management, Depends(get_identity)]
AwsClients = Annotated[Aws, Depends(get_aws)]
Db = Annotated[AsyncSession, Depends(get_db)]
WritingDb = Annotated[AsyncSession, Depends(get_writing_db)]
