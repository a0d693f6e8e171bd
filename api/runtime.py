"""What one process of the service holds open, from its start to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from api.aws import Aws
from api.database import make_engine, make_sessions
from api.keys import TokenVerifier
from api.settings import Settings


@dataclass(frozen=True)
class Runtime:
    """Handed to the views piece by piece, by the dependencies in `api.deps`.

    Attributes:
        sessions: Makes sessions on the one engine.
        http: Speaks to the identity provider.
        tokens: Verifies who asks.
        aws: Storage, parameters and jobs.
    """

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    http: httpx.AsyncClient
    tokens: TokenVerifier
    aws: Aws


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Everything that the process shares; closed at the end."""
    engine = make_engine(settings.database_url)
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, connect=5)) as http:
        try:
            yield Runtime(
                settings=settings,
                sessions=make_sessions(engine),
                http=http,
                tokens=TokenVerifier(settings, http),
                aws=Aws(settings.aws_region, settings.boto_endpoint_url),
            )
        finally:
            await engine.dispose()
