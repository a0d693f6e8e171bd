"""The pace of requests to the Management API: as fast as its rate limit allows, and no faster."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

IN_FLIGHT = 8
"""The maximum number of requests that wait for a response at the same time."""
_WINDOW_S, _SHORTEST_S = 5.0, 0.5  # the time over which the rate is measured
_SLOWEST = 0.5  # requests per second, also if other clients use up the limit
_MOST_LEFT = 10  # the maximum number of tokens that are left for others
_LEAST_S = 0.001  # a pause that ends only if the clock moves on
_PAUSE_S = 0.1  # the maximum pause before the estimate is looked at again


class HeldError(Exception):
    """A hold by the provider that lasts longer than a request may wait, in seconds."""

    def __init__(self, seconds: float):
        super().__init__(f"held for {seconds:.0f} s")
        self.seconds = seconds


class Pace:
    """The pace of one client's requests.

    Auth0 counts requests with a token bucket: a request takes a token, and tokens come back at a
    steady rate up to a limit. Each response says how many are left, but not the rate, so that is
    measured. A few tokens are left for the service, which shares the limit: that costs no time,
    because tokens come back as fast when only a few are left.

    Args:
        in_flight: The maximum number of requests that wait for a response at the same time.

    Attributes:
        sent: The number of requests so far.
        refusals: The number of them that exceeded the limit.
    """

    def __init__(self, in_flight: int = IN_FLIGHT):
        self.sent = self.refusals = 0
        self._places = asyncio.Semaphore(in_flight)
        self._order = asyncio.Lock()
        self._flying = self._served = self._surrenders = 0
        # (time, tokens left, number of requests served), oldest first
        self._seen: deque[tuple[float, int, int]] = deque()
        self._limit, self._level, self._at = 0, float("inf"), 0.0
        self._rate: float | None = None
        self._is_measured = False
        self._held_until = 0.0

    @property
    def rate(self) -> float | None:
        """Return the requests per second that the limit allows; None until it is known."""
        return self._rate

    def seconds_for(self, requests: int) -> float | None:
        """Return the time that the limit requires for a number of requests; None if not known."""
        if self._rate is None:
            return None
        short = requests - max(0.0, self._left() - self._reserve)
        held = max(0.0, self._held_until - _now())
        return max(held, short / self._rate)

    @asynccontextmanager
    async def turn(self, longest: float = math.inf) -> AsyncIterator[None]:
        """Wait for the turn to send a request, and hold it until the response has arrived.

        Waiting for others takes as long as it takes; `longest` applies to a hold by the provider.

        Raises:
            HeldError: The provider lets no request through for longer than `longest` seconds, or
                `surrender` was called in the meantime.
        """
        surrenders = self._surrenders
        async with self._places:
            async with self._order:  # in the order of arrival
                while (pause := self._pause()) > 0:
                    if (held := self._held_until - _now()) > longest:
                        raise HeldError(held)
                    if surrenders != self._surrenders:
                        raise HeldError(math.inf)
                    await asyncio.sleep(min(pause, _PAUSE_S))
                self._level, self._at = self._left() - 1, _now()
                self._flying += 1
                self.sent += 1
            try:
                yield
            finally:
                self._flying -= 1

    def served(self, headers: Mapping[str, str]) -> None:
        """Note a response, whose headers say how many requests are left."""
        self._served += 1
        left, limit = _number(headers, "remaining"), _number(headers, "limit")
        if left is None or limit is None:
            return
        now = _now()
        self._limit = limit
        # The other requests in flight may not be counted yet.
        self._level, self._at = float(left - self._flying + 1), now
        if left >= limit - 1:
            self._seen.clear()  # No tokens come back to a full bucket, so there is no measure.
        self._seen.append((now, left, self._served))
        self._measure(now, headers)

    def refused(self, pause: float) -> None:
        """Note that the limit was exceeded; no request is sent for this many seconds."""
        self.refusals += 1
        now = _now()
        self._held_until = max(self._held_until, now + pause)
        # Then one may go, whose response says how many are left; all of them if none ever says so.
        self._level = float(self._reserve + 1) if self._limit else float("inf")
        self._at = self._held_until
        self._seen.clear()

    def surrender(self) -> None:
        """Let every request that is waiting now fail; otherwise each would wait its full time."""
        self._surrenders += 1

    @property
    def _reserve(self) -> int:
        return min(self._limit // 10, _MOST_LEFT)

    def _pause(self) -> float:
        now = _now()
        if now < self._held_until:
            return self._held_until - now
        short = self._reserve + 1 - self._left()
        if short <= 0:
            return 0.0
        if self._rate is None:
            return _PAUSE_S if self._flying else 0.0  # The next response says more.
        return max(_LEAST_S, short / self._rate)

    def _left(self) -> float:
        """Return the number of tokens that are probably left."""
        if self._rate is None:
            return self._level
        since = max(0.0, _now() - self._at)
        return min(float(self._limit), self._level + since * self._rate)

    def _measure(self, now: float, headers: Mapping[str, str]) -> None:
        # Two are kept in any case, for a rate so slow that the window has only one.
        while len(self._seen) > 2 and self._seen[1][0] < now - _WINDOW_S:  # noqa: PLR2004 - see above
            self._seen.popleft()
        (began, first, before), (_, left, served) = self._seen[0], self._seen[-1]
        if now - began >= _SHORTEST_S:
            self._rate = max(_SLOWEST, (left - first + served - before) / (now - began))
            self._is_measured = True
        elif not self._is_measured and (full_at := _number(headers, "reset")) is not None:
            # The bucket is full at that second, which is rounded up: a guess on the slow side.
            seconds = max(1.0, full_at - time.time())
            self._rate = max(_SLOWEST, (self._limit - left) / seconds)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(f"x-ratelimit-{name}", "")
    return int(text) if text.isascii() and text.isdecimal() else None


def _now() -> float:
    return asyncio.get_running_loop().time()
