"""The resources that one process of the service shares, and the limits on one user's share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

import httpx
from sqlalchemy.ext.asyncio import async_sessionmaker

from aspen.api.aws import Aws
from aspen.api.database import RequestSession, make_engine, make_sessions
from aspen.api.errors import ApiError
from aspen.api.limits import ServiceLimits
from aspen.api.settings import Settings
from aspen.api.signin import SignIn, TokenVerifier
from aspen.identity.management import Management


@dataclass(frozen=True)
class Runtime:
    """The shared resources, which views get through the dependencies in `aspen.api.deps`."""

    settings: Settings
    sessions: async_sessionmaker[RequestSession]
    tokens: TokenVerifier
    sign_in: SignIn
    identity: Management
    aws: Aws
    turns: Turns


@asynccontextmanager
async def open_runtime(settings: Settings, limits: ServiceLimits) -> AsyncIterator[Runtime]:
    """Open the resources that the process shares, and close them at the end."""
    engine = make_engine(settings.database_url)
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, connect=5)) as http:
        tokens = TokenVerifier(settings, http)
        try:
            yield Runtime(
                settings=settings,
                sessions=make_sessions(engine),
                tokens=tokens,
                sign_in=SignIn(settings, http, tokens),
                identity=Management(settings.management, http),
                aws=Aws(settings.aws_region, settings.boto_endpoint_url, settings.access_key),
                turns=Turns(limits),
            )
        finally:
            await engine.dispose()


class Turns:
    """The turns of one process. Except for large bodies, users wait only for their own requests."""

    def __init__(self, limits: ServiceLimits):
        self._limits = limits
        # Each lives as long as a request that holds or waits for a turn.
        self._of_users = WeakValueDictionary[tuple[str, int], asyncio.Semaphore]()
        self._large = asyncio.Semaphore(1)
        self._large_from = 0.0  # the earliest start of the next one, in event loop time

    def database(self, user: str) -> AbstractAsyncContextManager[None]:
        """Hold a turn to use a database connection.

        Raises:
            ApiError: 429 if the user's other requests take too long.
        """
        return self._turn(user, self._limits.connections_per_user)

    @asynccontextmanager
    async def large(self, user: str) -> AsyncIterator[None]:
        """Hold the turn to process a large body, which takes many times its size in memory.

        Parsing and checking one blocks the event loop, so there is a pause between two.

        Raises:
            ApiError: 429 if the requests before it take too long.
        """
        async with self._turn(user, 1), AsyncExitStack() as stack:
            await self._wait(self._large)
            stack.callback(self._end_large)
            await asyncio.sleep(max(self._large_from - _now(), 0))
            yield

    def _end_large(self) -> None:
        self._large_from = _now() + self._limits.large_pause_seconds
        self._large.release()

    @asynccontextmanager
    async def _turn(self, user: str, most: int) -> AsyncIterator[None]:
        semaphore = self._of_users.setdefault((user, most), asyncio.Semaphore(most))
        await self._wait(semaphore)
        try:
            yield
        finally:
            semaphore.release()

    async def _wait(self, semaphore: asyncio.Semaphore) -> None:
        try:
            await asyncio.wait_for(semaphore.acquire(), self._limits.turn_seconds)
        except TimeoutError as error:
            raise ApiError(
                429, "too many requests at once", headers={"Retry-After": "2"}
            ) from error


def _now() -> float:
    return asyncio.get_running_loop().time()
