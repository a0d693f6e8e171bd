"""The rate limit of the Management API: a burst of requests, then a steady rate."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from threading import Lock

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from local.identity.audit import audit
from local.identity.management.errors import ManagementError

PREFIX = "/api/v2/"


@dataclass(frozen=True)
class Allowance:
    """The rate limit's decision on one request.

    Attributes:
        allowed: True if the request may proceed.
        limit: The number of requests allowed at once.
        remaining: The number of further requests allowed now.
        reset_at: When the full burst is available again, in seconds since 1970.
        retry_after: The number of seconds until the next request is allowed.
    """

    allowed: bool
    limit: int
    remaining: int
    reset_at: int
    retry_after: int

    def headers(self) -> dict[str, str]:
        """Return the rate limit headers."""
        told = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset_at),
        }
        return told if self.allowed else {**told, "Retry-After": str(self.retry_after)}


class Bucket:
    """A token bucket: each request takes a token, and tokens are added at a fixed rate.

    Args:
        burst: The capacity.
        rate: The number of tokens added per second.
    """

    def __init__(self, burst: int, rate: float):
        self._burst, self._rate = burst, rate
        self._level, self._at = float(burst), time.monotonic()
        self._lock = Lock()

    def take(self) -> Allowance:
        """Take a token, if there is one."""
        with self._lock:
            now = time.monotonic()
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
            allowed = self._level >= 1
            if allowed:
                self._level -= 1
            level = self._level
        full_in = (self._burst - level) / self._rate
        return Allowance(
            allowed=allowed,
            limit=self._burst,
            remaining=int(level),
            reset_at=math.ceil(time.time() + full_in),
            retry_after=max(1, math.ceil((1 - level) / self._rate)),
        )


async def limit(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Apply the rate limit to Management API requests, and audit those that change something."""
    if not request.url.path.startswith(PREFIX):
        return await proceed(request)
    bucket: Bucket = request.app.state.bucket
    allowance = bucket.take()
    if allowance.allowed:
        response = await proceed(request)
    else:
        error = ManagementError(429, "Global limit has been reached", "too_many_requests")
        response = JSONResponse(error.body, error.status)
    response.headers.update(allowance.headers())
    if request.method != "GET":
        audit(
            "management.called",
            client=getattr(request.state, "client_id", None),
            method=request.method,
            path=request.url.path,
            status=response.status_code,
        )
    return response
