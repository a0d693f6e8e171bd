"""Trying again: how long, how often, and when it must not be done blindly."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from aspencli.errors import AspenError

T = TypeVar("T")
BUSY = frozenset({429, 502, 503, 504})
"""The statuses that say: not now."""
_NOT_BEGUN = 429  # the only one of them that says for certain that nothing was done
_TOLD_FROM = 1.0  # seconds; a shorter wait is not worth a line


@dataclass(frozen=True)
class Patience:
    """How long to wait for what, in seconds.

    Attributes:
        connect: For a connection.
        read: For the next piece of an answer. The live service takes up to two minutes before the
            first, and its own limit lies there.
        total: For a call as a whole, with everything that is tried again.
        strangers: How often a server is tried that never answered; one that did before may take
            ``total``.
        first_pause: Before the second try; it doubles from one to the next.
        longest_pause: Where that ends.
    """

    connect: float = 10.0
    read: float = 150.0
    total: float = 600.0
    strangers: int = 3
    first_pause: float = 0.5
    longest_pause: float = 20.0


class Deadline:
    """A moment after which nothing is waited for."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """How many seconds are left; zero or less when it is over."""
        return self._end - time.monotonic()


class SetbackError(Exception):
    """A try that failed in a way that another one may not.

    Args:
        reason: Why, in words that follow "because".
        perhaps_done: Whether the server may have done what it was asked to.
        wait: How many seconds the server asked to wait, else None.
        hopeless: Whether another try is bound to end the same way.
        status: The HTTP status, where there was one.
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
    """A change got no answer, and may or may not have been made; ``__cause__`` tells why."""


def busy(status: int, headers: Mapping[str, str]) -> SetbackError:
    """The setback that a status of `BUSY` means."""
    return SetbackError(
        f"it answered {status}",
        perhaps_done=status != _NOT_BEGUN,
        wait=retry_after(headers),
        status=status,
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds the server asks to wait (RFC 9110, 10.2.3); None where it does not say.

    Args:
        headers: Those of the answer, with lower-case names. A date is compared with the server's
            own clock where it tells it, so that a wrong clock here does not matter.
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
    """The moment that a header tells; None where it tells none."""
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass
class Persistence:
    """Tries a thing until it is done, or until patience is at its end.

    Attributes:
        tell: Told each wait that an operator would notice, in words.
        sleep: Waits.
        known: Whether the server ever answered.
    """

    tell: Callable[[str], None] = lambda _words: None
    sleep: Callable[[float], None] = time.sleep
    known: bool = False

    def run(
        self,
        attempt: Callable[[Deadline], T],
        patience: Patience,
        *,
        safe: bool,
        settle: Callable[[], T | None] | None = None,
    ) -> T:
        """What an attempt gives, once one succeeds.

        Args:
            attempt: Tries once, and raises a `SetbackError` where it may be tried again.
            patience: How long.
            safe: Whether doing it twice is as good as doing it once.
            settle: What to do when it is not safe and no answer came: look whether it was done,
                and return what the attempt would have given, or None where it was not done.

        Raises:
            SetbackError: The last one; nothing was done.
            UnsettledError: It is not known whether it was done.
        """
        deadline, number, in_doubt = Deadline(patience.total), 0, False
        while True:
            number += 1
            try:
                found = attempt(deadline)
            except SetbackError as setback:
                lost = setback.perhaps_done and not safe
                in_doubt = in_doubt or lost  # a look, too, may have come too early
                pause = self._pause(number, setback, patience, deadline)
                if lost and settle is None:
                    raise UnsettledError(setback.reason) from setback
                if pause is not None:
                    self._wait(pause, setback.reason)
                done = _looked(settle, setback) if lost and settle is not None else None
                if done is not None:
                    return done
                if pause is None:
                    setback.tries = number
                    if in_doubt:
                        raise UnsettledError(setback.reason) from setback
                    raise
            else:
                self.known = True
                return found

    def _pause(
        self, number: int, setback: SetbackError, patience: Patience, deadline: Deadline
    ) -> float | None:
        """How long to wait before the next try; None where there is to be none."""
        self.known = self.known or setback.status is not None
        if setback.hopeless or (number >= patience.strangers and not self.known):
            return None
        pause = _spread(
            min(patience.first_pause * 2 ** min(number - 1, 30), patience.longest_pause)
        )
        if setback.wait is not None:
            pause = max(pause, setback.wait)
        return pause if pause < deadline.left else None

    def _wait(self, pause: float, reason: str) -> None:
        if pause >= _TOLD_FROM:
            self.tell(f"{reason}; trying again in {pause:.0f} s ...")
        self.sleep(pause)


def _looked(settle: Callable[[], T | None], setback: SetbackError) -> T | None:
    """What a look shows.

    Raises:
        UnsettledError: Looking failed as well.
    """
    try:
        return settle()
    except AspenError as error:
        raise UnsettledError(f"{setback.reason}; and looking failed: {error.message}") from error


def _spread(pause: float) -> float:
    # Clients that failed together must not come back together.
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - it keeps no secret
