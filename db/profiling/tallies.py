"""Recordings of several engines together, in total and since a mark."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from time import perf_counter

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from db.profiling.queries import Log, Query
from db.profiling.recorder import Recorder
from db.profiling.standstill import standstill
from db.profiling.transactions import Times, Transactions


@dataclass
class Tally:
    """A recording of several engines, which `db.profiling.summary.summarise` accepts.

    Attributes:
        log: The executions.
        waits: The waits for connections.
        commits: The commits.
        rollbacks: The rollbacks.
        transactions: The individual transactions.
        seconds: The elapsed time that was recorded.
        began: The start time (``time.perf_counter``).
    """

    log: Log = field(default_factory=Log)
    waits: Times = field(default_factory=Times)
    commits: Times = field(default_factory=Times)
    rollbacks: Times = field(default_factory=Times)
    transactions: Transactions = field(default_factory=Transactions)
    seconds: float = 0.0
    began: float = field(default_factory=perf_counter)


class Everything:
    """A recorder of every engine in the process, from each engine's next connection on.

    One listener on the `Engine` class finds the engines; each gets its own recorder, and all of
    these report to one tally. Engines that already have another recorder are left out.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self._recorders: dict[int, Recorder] = {}  # by the ids of their dialects
        self._lock = threading.Lock()
        self._on = False
        self.mark()

    def start(self) -> None:
        """Start, or resume."""
        if not self._on:
            with standstill():
                event.listen(Engine, "engine_connect", self.watch)
            self._on = True
            self.mark()

    def stop(self) -> None:
        """Stop recording, and remove every listener and recorder."""
        if not self._on:
            return
        with standstill():
            event.remove(Engine, "engine_connect", self.watch)
        with self._lock:
            self._on = False
            for recorder in self._recorders.values():
                recorder.stop()
            self._recorders.clear()

    def watch(self, connection: Connection) -> None:
        """Record a connection, and everything else that its engine does."""
        dialect = id(connection.dialect)
        with self._lock:  # several threads may find an engine at once
            if not self._on:
                return
            recorder = self._recorders.get(dialect) or self._recorder(connection.engine)
            if recorder is None:
                return
            self._recorders[dialect] = recorder
        recorder.watch(connection)

    def mark(self) -> None:
        """Restart the counts that `since` returns."""
        tally = self.tally
        self._fresh = Log()
        self._marked = perf_counter()
        self._before = [(len(times), times.total) for times in _times(tally)]
        self._begun = tally.transactions.begun

    def since(self) -> Tally:
        """Return what was recorded since the mark, and set a new mark."""
        tally = Tally(self._fresh, began=self._marked, seconds=perf_counter() - self._marked)
        for times, whole, (count, total) in zip(
            _times(tally), _times(self.tally), self._before, strict=True
        ):
            times.count, times.total = len(whole) - count, whole.total - total
        tally.transactions.begun = self.tally.transactions.begun - self._begun
        tally.log.fold(everything=True)
        self.tally.seconds += tally.seconds
        self.mark()
        return tally

    def _recorder(self, engine: Engine) -> Recorder | None:
        recorder = Recorder(engine)
        recorder.add = self._add
        tally = self.tally
        recorder.waits, recorder.commits, recorder.rollbacks = _times(tally)
        recorder.transactions = tally.transactions
        try:
            return recorder.__enter__()
        except RuntimeError:  # another recorder has it, and gets the figures
            return None

    def _add(self, query: Query) -> None:
        # The pool's liveness check is part of waiting for a connection, not a query.
        if sys._getframe(2).f_code.co_name == "do_ping":  # noqa: SLF001 - documented
            return
        # Both logs get the same object, which counts the rows that are fetched later.
        self.tally.log.add(query)
        self._fresh.add(query)


def _times(tally: Tally) -> tuple[Times, Times, Times]:
    return tally.waits, tally.commits, tally.rollbacks
