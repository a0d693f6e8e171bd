"""What several engines are asked, counted together, and once more from a mark on."""

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
    """What was recorded, of whichever engines; `db.profiling.summary.summarise` takes it.

    Attributes:
        log: The executions.
        waits: For connections.
        commits: How often, and how long they took.
        rollbacks: The same of these.
        transactions: Each of them.
        seconds: How long it was worked meanwhile.
        began: When it began.
    """

    log: Log = field(default_factory=Log)
    waits: Times = field(default_factory=Times)
    commits: Times = field(default_factory=Times)
    rollbacks: Times = field(default_factory=Times)
    transactions: Transactions = field(default_factory=Transactions)
    seconds: float = 0.0
    began: float = field(default_factory=perf_counter)


class Everything:
    """Records every engine of the process, from the next connection that is taken of it.

    One listener, on the class of engines, finds them; each gets a recorder of its own, and all of
    them report to one tally. Where somebody else records an engine already, that one is left out.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self._recorders: dict[int, Recorder] = {}  # by the ids of their dialects
        self._lock = threading.Lock()
        self._on = False
        self.mark()

    def start(self) -> None:
        """Begin, or go on."""
        if not self._on:
            with standstill():
                event.listen(Engine, "engine_connect", self.watch)
            self._on = True
            self.mark()

    def stop(self) -> None:
        """Record no more; no listener and no recorder is left on any engine."""
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
        """Record a connection, and what else its engine does."""
        dialect = id(connection.dialect)
        with self._lock:  # threads may meet an engine at once
            if not self._on:
                return
            recorder = self._recorders.get(dialect) or self._recorder(connection.engine)
            if recorder is None:
                return
            self._recorders[dialect] = recorder
        recorder.watch(connection)

    def mark(self) -> None:
        """Count anew what `since` tells."""
        tally = self.tally
        self._fresh = Log()
        self._marked = perf_counter()
        self._before = [(len(times), times.total) for times in _times(tally)]
        self._begun = tally.transactions.begun

    def since(self) -> Tally:
        """What was asked since the mark; the tally is that much older afterwards."""
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
        except RuntimeError:  # somebody records it already, and gets the figures
            return None

    def _add(self, query: Query) -> None:
        # The pool asks a connection whether it lives; that is waiting for one, and no query.
        if sys._getframe(2).f_code.co_name == "do_ping":  # noqa: SLF001 - documented
            return
        # The same object twice: what is fetched later is told to it.
        self.tally.log.add(query)
        self._fresh.add(query)


def _times(tally: Tally) -> tuple[Times, Times, Times]:
    return tally.waits, tally.commits, tally.rollbacks
