"""The resources that one process of the service shares, from startup to shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from aspen.api.aws import Aws
from aspen.api.database import make_engine, make_sessions
from aspen.api.keys import TokenVerifier
from aspen.api.limits import Limits
from aspen.api.management import Management
from aspen.api.settings import Settings
from aspen.api.signin import SignIn
from aspen.api.turns import Turns


@dataclass(frozen=True)
class Runtime:
    """The shared resources, which views get through the dependencies in `aspen.api.deps`.

    Attributes:
        sessions: The factory for sessions on the engine.
        http: The HTTP client for the identity provider.
        tokens: The verifier of identity tokens.
        sign_in: The browser sign-in.
        identity: The Management API of the provider: organizations, members, invitations.
        aws: The AWS clients for storage, parameters, and jobs.
        turns: The limits on one user's concurrent requests.
    """

    settings: Settings
    sessions: async_sessionmaker[AsyncSession]
    http: httpx.AsyncClient
    tokens: TokenVerifier
    sign_in: SignIn
    identity: Management
    aws: Aws
    turns: Turns


@asynccontextmanager
async def open_runtime(settings: Settings, limits: Limits) -> AsyncIterator[Runtime]:
    """Open the resources that the process shares, and close them at the end."""
    engine = make_engine(settings.database_url)
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, connect=5)) as http:
        tokens = TokenVerifier(settings, http)
        try:
            yield Runtime(
                settings=settings,
                sessions=make_sessions(engine),
                http=http,
                tokens=tokens,
                sign_in=SignIn(settings, http, tokens),
                identity=Management(settings, http),
                aws=Aws(settings.aws_region, settings.boto_endpoint_url, settings.access_key),
                turns=Turns(limits),
            )
        finally:
            await engine.dispose()
