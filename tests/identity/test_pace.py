"""The pace of requests, against a token bucket in a loop whose clock jumps to the next event."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

from aspen.identity.pace import IN_FLIGHT, HeldError, Pace

_BURST, _RATE = 50, 15.0


class _JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while it would wait."""

    def __init__(self) -> None:
        super().__init__(_Selector(self))
        self.now = 0.0

    def time(self) -> float:
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: _JumpingLoop):
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        self._loop.now += timeout or 0
        return super().select(0)


def _run(work: Coroutine[Any, Any, None]) -> None:
    loop = _JumpingLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


class _Bucket:
    """A provider that takes a while to respond, and allows some requests at once and per second.

    Args:
        says: True if its responses say how many requests are left.
        latency: The seconds that a response takes.
    """

    def __init__(self, *, says: bool = True, latency: float = 0.05):
        self.level, self.at = float(_BURST), 0.0
        self.served = self.refused = self.in_flight = self.most_in_flight = 0
        self._says, self._latency = says, latency

    async def ask(self, pace: Pace) -> None:
        """Send requests until one is served."""
        while True:
            async with pace.turn():
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                allowed = self._take()
                headers = {
                    "x-ratelimit-limit": str(_BURST),
                    "x-ratelimit-remaining": str(int(self.level)),
                }
                await asyncio.sleep(self._latency)
                self.in_flight -= 1
                if allowed:
                    pace.served(headers if self._says else {})
                    self.served += 1
                    return
                self.refused += 1
                pace.refused(max(1, math.ceil((1 - self.level) / _RATE)))

    def take(self, tokens: int) -> None:
        """Serve other clients."""
        self._refill()
        self.level = max(0, self.level - tokens)

    def _take(self) -> bool:
        self._refill()
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def _refill(self) -> None:
        now = asyncio.get_running_loop().time()
        self.level = min(_BURST, self.level + (now - self.at) * _RATE)
        self.at = now


async def _ask(bucket: _Bucket, pace: Pace, requests: int, at_once: int = 40) -> None:
    left = iter(range(requests))

    async def worker() -> None:
        for _ in left:
            await bucket.ask(pace)

    await asyncio.gather(*(worker() for _ in range(at_once)))


@pytest.mark.parametrize("latency", [0.005, 0.05, 0.3])
def test_pace_uses_the_whole_rate_limit_without_exceeding_it(latency: float) -> None:
    async def work() -> None:
        bucket, pace = _Bucket(latency=latency), Pace()
        await _ask(bucket, pace, 800)
        took = asyncio.get_running_loop().time()
        assert took <= 1.05 * (800 - _BURST) / _RATE
        assert bucket.refused <= 8
        assert bucket.most_in_flight <= IN_FLIGHT
        assert pace.rate == pytest.approx(_RATE, rel=0.2)

    _run(work())


def test_pace_without_headers_follows_refusals_only() -> None:
    async def work() -> None:
        bucket, pace = _Bucket(says=False), Pace()
        await _ask(bucket, pace, 300)
        assert bucket.served == 300
        assert pace.rate is None
        assert pace.seconds_for(10) is None
        assert asyncio.get_running_loop().time() <= 1.3 * (300 - _BURST) / _RATE

    _run(work())


def test_pace_leaves_a_part_of_the_limit_to_others() -> None:
    async def work() -> None:
        bucket, pace = _Bucket(), Pace()
        lowest: list[float] = []

        async def watch() -> None:
            while bucket.served < 600:
                await asyncio.sleep(1)
                lowest.append(bucket.level)

        await asyncio.gather(_ask(bucket, pace, 600), watch())
        assert min(lowest[:-1]) >= 1
        assert bucket.refused == 0

    _run(work())


def test_pace_slows_down_when_others_use_the_limit() -> None:
    async def work() -> None:
        bucket, pace = _Bucket(), Pace()

        async def others() -> None:
            while bucket.served < 400:
                await asyncio.sleep(0.5)
                bucket.take(5)  # two thirds of the rate

        await asyncio.gather(_ask(bucket, pace, 400), others())
        assert pace.rate is not None
        assert pace.rate < 0.6 * _RATE
        assert bucket.refused <= 40

    _run(work())


def test_estimate_is_the_time_that_the_limit_requires() -> None:
    async def work() -> None:
        bucket, pace = _Bucket(), Pace()
        await _ask(bucket, pace, 200)
        estimate = pace.seconds_for(300)
        assert estimate is not None
        began = asyncio.get_running_loop().time()
        await _ask(bucket, pace, 300)
        took = asyncio.get_running_loop().time() - began
        assert estimate == pytest.approx(took, rel=0.2)

    _run(work())


def test_refusal_holds_back_every_request() -> None:
    async def work() -> None:
        pace = Pace()
        pace.refused(30)
        estimate = pace.seconds_for(1)
        assert estimate is None  # no rate is known yet
        async with pace.turn():
            assert asyncio.get_running_loop().time() >= 30

    _run(work())


def test_hold_that_is_longer_than_a_request_may_wait_ends_it_at_once() -> None:
    async def work() -> None:
        pace = Pace()
        pace.refused(3_600)
        began = asyncio.get_running_loop().time()
        with pytest.raises(HeldError) as held:
            async with pace.turn(60):
                """Never reached."""
        assert held.value.seconds == pytest.approx(3_600, abs=1)
        assert asyncio.get_running_loop().time() - began < 1
        async with pace.turn(3_601):  # waits
            assert asyncio.get_running_loop().time() - began >= 3_600

    _run(work())


def test_surrender_ends_every_wait_but_no_later_one() -> None:
    async def work() -> None:
        pace = Pace(in_flight=2)
        pace.refused(45)

        async def one() -> None:
            async with pace.turn(60):
                """Never reached."""

        waiting = [asyncio.ensure_future(one()) for _ in range(5)]
        await asyncio.sleep(1)
        pace.surrender()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, HeldError) for error in ended)
        assert asyncio.get_running_loop().time() < 3
        async with pace.turn(60):
            assert asyncio.get_running_loop().time() >= 45

    _run(work())
