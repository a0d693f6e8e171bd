"""Turns: how much of the service one user takes at a time, so that there is some for the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from api.errors import ApiError
from api.limits import Limits


class Turns:
    """The turns of one process. Users wait for their own requests, not for those of others.

    Args:
        limits: How many requests of a user are answered at a time, and how long others wait.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._of_users: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._waiting: dict[tuple[str, int], int] = {}
        self._large = asyncio.Semaphore(1)
        self._large_from = 0.0  # by the loop's clock

    @asynccontextmanager
    async def database(self, user: str) -> AsyncIterator[None]:
        """Take a turn at a connection to the database.

        Raises:
            ApiError: 429, when the user's other requests take too long.
        """
        async with self._turn(user, self._limits.connections_per_user):
            yield

    @asynccontextmanager
    async def large(self, user: str) -> AsyncIterator[None]:
        """Take the turn at a large body: each takes many times its size in memory.

        While it is parsed and checked, the loop answers no one, so there is a pause between two.

        Raises:
            ApiError: 429, when requests before it take too long.
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
        key = user, most
        semaphore = self._of_users.setdefault(key, asyncio.Semaphore(most))
        self._waiting[key] = self._waiting.get(key, 0) + 1
        try:
            await self._wait(semaphore)
            try:
                yield
            finally:
                semaphore.release()
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key], self._of_users[key]

    async def _wait(self, semaphore: asyncio.Semaphore) -> None:
        try:
            await asyncio.wait_for(semaphore.acquire(), self._limits.turn_seconds)
        except TimeoutError as error:
            raise ApiError(
                429, "too many requests at once", headers={"Retry-After": "2"}
            ) from error


def _now() -> float:
    return asyncio.get_running_loop().time()
