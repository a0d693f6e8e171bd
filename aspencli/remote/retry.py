"""Requests that are repeated: how long, how often, and when that is not safe."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from aspencli.errors import AspenError, ServiceAnswer, UncertainError, UnreachableError

if TYPE_CHECKING:
    from aspencli.remote.http import Answer, Http, Request

T = TypeVar("T")
_BUSY = frozenset({429, 502, 503, 504})  # the statuses that mean "not now"
_NOT_BEGUN = 429  # the only one of them that guarantees that nothing was done
_SAFE = frozenset({"GET", "HEAD"})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 20.0  # the pause doubles with each further try
_REPORTED_FROM_S = 1.0  # shorter waits are not reported


@dataclass(frozen=True)
class Patience:
    """The timeouts and retry limits of a call, in seconds."""

    # For the next piece of a response. The live service takes up to two minutes to start one, which
    # is its own limit.
    read: float = 150.0
    total: float = 600.0  # for the whole call, including retries
    # How often to try a server that has never responded; one that has may take ``total``.
    strangers: int = 3


class Deadline:
    """A time after which all waiting ends."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Return the number of seconds left; zero or less after the deadline."""
        return self._end - time.monotonic()


class SetbackError(Exception):
    """A failed attempt that may succeed if it is tried again.

    Args:
        reason: The reason, in words that can follow "because".
        perhaps_done: True if the server may have done what it was asked to do.
        wait: The number of seconds that the server asks to wait, or None.
        hopeless: True if another try is bound to fail in the same way.
        status: The HTTP status, if there was one.
    """

    def __init__(
        self,
        reason: str,
        *,
        perhaps_done: bool,
        wait: float | None = None,
        hopeless: bool = False,
        status: int | None = None,
    ):
        super().__init__(reason)
        self.reason = reason
        self.perhaps_done = perhaps_done
        self.wait = wait
        self.hopeless = hopeless
        self.status = status
        self.tries = 1


class UnsettledError(Exception):
    """A change without a response, which may have been made or not; see ``__cause__``."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the number of seconds that the server asks to wait (RFC 9110, 10.2.3), or None.

    Args:
        headers: The response headers, with lower-case names. A date is compared with the server's
            own clock if the headers give it, so that a wrong clock here does not matter.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        until = http_date(text)
        now = http_date(headers.get("date", "")) or datetime.now(UTC)
        return None if until is None else max(0.0, (until - now).total_seconds())
    return max(0.0, seconds) if math.isfinite(seconds) else None


def http_date(text: str) -> datetime | None:
    """Return the time in a header, or None if it contains none."""
    from email.utils import parsedate_to_datetime

    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass
class Persistence:
    """A retry loop that runs until an attempt succeeds or a limit is reached."""

    # Called with a message for each noticeable wait.
    tell: Callable[[str], None] = lambda _words: None
    sleep: Callable[[float], None] = time.sleep
    known: bool = False  # True if the server has ever responded

    def run(
        self,
        attempt: Callable[[Deadline], T],
        patience: Patience,
        *,
        safe: bool,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Return the result of the first attempt that succeeds.

        Args:
            attempt: Tries once, and raises a `SetbackError` if it may be tried again.
            patience: The timeouts and retry limits.
            safe: True if the attempt may be made twice.
            settle: Called if that is unsafe and no response came: checks whether it was done, and
                returns the result of the attempt, or None if it was not done.

        Raises:
            SetbackError: The last attempt failed; nothing was done.
            UnsettledError: The request may or may not have been carried out.
        """
        deadline, number, in_doubt = Deadline(patience.total), 0, False
        while True:
            number += 1
            try:
                found = attempt(deadline)
            except SetbackError as setback:
                lost = setback.perhaps_done and not safe
                in_doubt = in_doubt or lost  # the check, too, may have come too early
                pause = self._pause(number, setback, patience, deadline)
                if lost and settle is None:
                    raise UnsettledError(setback.reason) from setback
                if pause is not None:
                    self._wait(pause, setback.reason)
                done = _looked(settle, setback.reason) if lost and settle is not None else None
                if done is not None:
                    return done
                if pause is None:
                    setback.tries = number
                    if in_doubt:
                        raise UnsettledError(setback.reason) from setback
                    raise
            except AspenError as error:
                if not in_doubt or settle is None:
                    raise
                # An earlier attempt may have been carried out after the check; this rejection (the
                # item is gone, the name is taken) may be its consequence.
                done = _looked(settle, error.message)
                if done is not None:
                    return done
                reason = f"a repeated attempt was rejected: {error.message}"
                raise UnsettledError(reason) from error
            else:
                self.known = True
                return found

    def _pause(
        self, number: int, setback: SetbackError, patience: Patience, deadline: Deadline
    ) -> float | None:
        """Return the pause before the next try, or None if there is none."""
        self.known = self.known or setback.status is not None
        if setback.hopeless or (number >= patience.strangers and not self.known):
            return None
        pause = min(_FIRST_PAUSE_S * 2 ** min(number - 1, 30), _LONGEST_PAUSE_S)
        # Jitter keeps clients that failed together from retrying together.
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - not used for security
        if setback.wait is not None:
            pause = max(pause, setback.wait)
        return pause if pause < deadline.left else None

    def _wait(self, pause: float, reason: str) -> None:
        if pause >= _REPORTED_FROM_S:
            self.tell(f"{reason}; retrying in {pause:.0f} s ...")
        self.sleep(pause)


def _looked(settle: Callable[[], T | None], reason: str) -> T | None:
    """Check whether a change was made, and return its result.

    Raises:
        UnsettledError: The check failed as well.
    """
    try:
        return settle()
    except AspenError as error:
        raise UnsettledError(
            f"{reason}; checking the outcome failed too: {error.message}"
        ) from error


class Caller:
    """A client of one server that retries requests if possible.

    Args:
        http: The connection.
        name: The display name of the server.
        hint: What to do if it does not respond.
        tell: Called with a message for each noticeable wait.
        persistence: The retry loop.
    """

    def __init__(
        self,
        http: Http,
        name: str,
        *,
        hint: str,
        tell: Callable[[str], None] = lambda _words: None,
        persistence: Persistence | None = None,
    ):
        self.http = http
        self.name = name
        self._hint = hint
        self._persistence = persistence or Persistence()
        self._persistence.tell = lambda words: tell(f"Waiting for {name}: {words}")

    def call(
        self,
        asking: Callable[[], Request],
        read: Callable[[Answer], T],
        patience: Patience,
        *,
        safe: bool | None = None,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """Send a request, and return what ``read`` makes of the response.

        Args:
            asking: Builds the request; called for each try.
            read: Converts a response, unless it means "try again later", into a result; called
                again if the first response breaks off.
            patience: The timeouts.
            safe: True if the request may be sent twice. Default: only if it just reads.
            settle: See `Persistence.run`.

        Raises:
            UncertainError: A change was sent, and it is not known whether it was made.
            UnreachableError: The server does not respond, or asks to come back later.
        """
        first = asking()
        may_repeat = first.method in _SAFE if safe is None else safe

        def attempt(deadline: Deadline) -> T:
            with self.http.open(asking(), deadline, patience) as answer:
                if answer.status not in _BUSY:
                    return read(answer)
                answer.read()  # so that the connection can be reused, and for the log
                raise SetbackError(
                    f"HTTP {answer.status}",
                    perhaps_done=answer.status != _NOT_BEGUN,
                    wait=retry_after(answer.headers),
                    status=answer.status,
                )

        try:
            return self._persistence.run(attempt, patience, safe=may_repeat, settle=settle)
        except UnsettledError as error:
            raise self._uncertain(first, error) from error
        except SetbackError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: SetbackError) -> UnreachableError:
        if error.status is not None:
            when = f"{error.wait:,.0f} s" if (error.wait or 0) >= 1 else "a few minutes"
            return UnreachableError(
                f"Temporarily unavailable: {self.name} ({error.reason}).",
                hint=f"Try again in {when}.",
                answer=ServiceAnswer(error.status),
            )
        hint = self._hint
        if "certificate" in error.reason:
            hint = (
                "If your network uses its own certificates, set SSL_CERT_FILE to their file. Also "
                "check this machine's clock."
            )
        tried = f" (tried {error.tries} times)" if error.tries > 1 else ""
        return UnreachableError(
            f"Request to {self.name} at {self.http.origin} failed: {error.reason}{tried}",
            hint=hint,
            details=[f"Sent through the proxy {self.http.proxy}"] if self.http.proxy else (),
        )

    def _uncertain(self, request: Request, error: UnsettledError) -> UncertainError:
        return UncertainError(
            f"The response to a change sent to {self.name} was lost ({error}). The change may or "
            "may not have been made.",
            hint="Check whether it was made before you try again.",
            details=[f"{request.method} {request.path}"],
        )
