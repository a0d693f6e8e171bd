"""Transactions and savepoints: from when to when, and how each ended."""

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
    """How a transaction or a savepoint ended."""

    OPEN = 0
    """It had not when the recording did."""
    COMMITTED = 1
    """Or released."""
    ROLLED_BACK = 2
    FAILED = 3
    """Its commit, or its rollback, was refused."""
    CLOSED = 4
    """Its connection was closed in the middle of it."""


class Span(NamedTuple):
    """A transaction, or a savepoint in it."""

    transaction: int
    depth: int
    started: float
    seconds: float
    outcome: Outcome


class Times:
    """How often something happened, and how long it took; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count, self.failed, self.total = 0, 0, 0.0

    def add(self, started: float, *, failed: bool = False) -> None:
        """One more, which ended now."""
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
    """Those of all connections, which are known by their ids; from any thread.

    What has ended is kept in columns, some 27 bytes each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, _Opened] = {}
        self.begun = 0
        self._number, self._depth, self._outcome = array("L"), array("H"), array("B")
        self._started, self._seconds = array("d"), array("d")

    def begin(self, connection: int) -> None:
        """A transaction begins."""
        with self._lock:
            self._end(connection, Outcome.CLOSED)  # where the id of one that is no more came again
            self._open[connection] = _Opened(self.begun, [perf_counter()])
            self.begun += 1

    def is_open(self, connection: int) -> bool:
        """Whether the connection has a transaction that is recorded."""
        return connection in self._open

    def end(self, connection: int, outcome: Outcome) -> None:
        """A transaction ends, and with it its savepoints; nothing happens where there is none."""
        with self._lock:
            self._end(connection, outcome)

    def save(self, connection: int, name: str) -> None:
        """A savepoint is set."""
        with self._lock:
            if opened := self._open.get(connection):
                opened.began.append(perf_counter())
                opened.names.append(name)

    def leave(self, connection: int, name: str, outcome: Outcome) -> None:
        """A savepoint is released or rolled back to, and with it those that were set after it."""
        with self._lock:
            opened = self._open.get(connection)
            if opened is None or name not in opened.names:
                return
            now, left = perf_counter(), ""
            while left != name:
                self._keep(opened, now, outcome)
                left = opened.names.pop()

    def stop(self) -> None:
        """Nothing more is recorded; what is open stays so."""
        with self._lock:
            for connection in list(self._open):
                self._end(connection, Outcome.OPEN)

    def __len__(self) -> int:
        return len(self._number)

    def spans(self) -> Iterator[Span]:
        """Those that ended, savepoints before their transactions; others may go on meanwhile."""
        columns = (self._number, self._depth, self._started, self._seconds, self._outcome)
        count = len(self._outcome)  # filled last, so the others have as many
        for number, depth, started, seconds, outcome in islice(zip(*columns, strict=False), count):
            yield Span(number, depth, started, seconds, Outcome(outcome))

    def _end(self, connection: int, outcome: Outcome) -> None:
        opened, now = self._open.pop(connection, None), perf_counter()
        while opened is not None and opened.began:
            self._keep(opened, now, outcome)

    def _keep(self, opened: _Opened, now: float, outcome: Outcome) -> None:
        """The innermost that is open has ended."""
        started = opened.began.pop()
        self._number.append(opened.number)
        self._depth.append(len(opened.began))
        self._started.append(started)
        self._seconds.append(now - started)
        self._outcome.append(outcome)
