"""Transactions and savepoints: when each began and ended, and its outcome."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from time import perf_counter
from typing import NamedTuple


class Outcome(IntEnum):
    """The outcome of a transaction or a savepoint."""

    OPEN = 0
    """Still open when the recording ended."""
    COMMITTED = 1
    """Committed, or released."""
    ROLLED_BACK = 2
    FAILED = 3
    """The commit or rollback itself failed."""
    CLOSED = 4
    """The connection was closed before it ended."""


class Span(NamedTuple):
    """A transaction, or a savepoint in one."""

    transaction: int
    depth: int
    started: float
    seconds: float
    outcome: Outcome


class Times:
    """The count and total duration of an event; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count, self.failed, self.total = 0, 0, 0.0

    def add(self, started: float, *, failed: bool = False) -> None:
        """Add one event, which ended now."""
        seconds = perf_counter() - started
        with self._lock:
            self.count += 1
            self.total += seconds
            self.failed += failed

    def __len__(self) -> int:
        return self.count


@dataclass
class _Opened:
    number: int
    began: list[float]
    names: list[str] = field(default_factory=list)


class Transactions:
    """The transactions of all connections, identified by connection ID; thread-safe.

    Ended ones are stored in columns, at about 27 bytes each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Opened] = {}
        self.begun = 0
        self._number, self._depth, self._outcome = array("L"), array("H"), array("B")
        self._started, self._seconds = array("d"), array("d")

    def begin(self, connection: int) -> None:
        """Record the beginning of a transaction."""
        with self._lock:
            self._end(connection, Outcome.CLOSED)  # if the ID of a closed one is reused
            self._open[connection] = _Opened(self.begun, [perf_counter()])
            self.begun += 1

    def is_open(self, connection: int) -> bool:
        """Return True if the connection has a recorded transaction open."""
        return connection in self._open

    def end(self, connection: int, outcome: Outcome) -> None:
        """Record the end of a transaction and its savepoints; do nothing if there is none."""
        with self._lock:
            self._end(connection, outcome)

    def save(self, connection: int, name: str) -> None:
        """Record a new savepoint."""
        with self._lock:
            if opened := self._open.get(connection):
                opened.began.append(perf_counter())
                opened.names.append(name)

    def leave(self, connection: int, name: str, outcome: Outcome) -> None:
        """Record the release of, or rollback to, a savepoint, which also ends later ones."""
        with self._lock:
            opened = self._open.get(connection)
            if opened is None or name not in opened.names:
                return
            now, left = perf_counter(), ""
            while left != name:
                self._keep(opened, now, outcome)
                left = opened.names.pop()

    def stop(self) -> None:
        """Stop recording, and mark what is open as `Outcome.OPEN`."""
        with self._lock:
            for connection in list(self._open):
                self._end(connection, Outcome.OPEN)

    def __len__(self) -> int:
        return len(self._number)

    def spans(self) -> Iterator[Span]:
        """Yield what has ended, savepoints before their transactions; recording may continue."""
        columns = (self._number, self._depth, self._started, self._seconds, self._outcome)
        count = len(self._outcome)  # filled last, so the others have at least as many
        for number, depth, started, seconds, outcome in islice(zip(*columns, strict=False), count):
            yield Span(number, depth, started, seconds, Outcome(outcome))

    def _end(self, connection: int, outcome: Outcome) -> None:
        opened, now = self._open.pop(connection, None), perf_counter()
        while opened is not None and opened.began:
            self._keep(opened, now, outcome)

    def _keep(self, opened: _Opened, now: float, outcome: Outcome) -> None:
        """Store the innermost open span, which has ended."""
        started = opened.began.pop()
        self._number.append(opened.number)
        self._depth.append(len(opened.began))
        self._started.append(started)
        self._seconds.append(now - started)
        self._outcome.append(outcome)
