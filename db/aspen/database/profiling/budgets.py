"""Budgets for database work, such as ``queries<=12,total<=200ms,n+1=0``.

A budget applies to one engine, or to all engines of a process, in total and since a mark.
"""

from __future__ import annotations

import operator
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

from sqlalchemy.engine import Connection, Engine

from aspen.database.profiling.queries import Log, Query, SqlRecording, Times
from aspen.database.profiling.recorder import Recordable, Recorder, listen
from aspen.database.profiling.summary import Profile, Statement, summarize

_LIMIT = re.compile(r"\s*([a-z+1-]+)\s*(<=|>=|<|>|=)\s*(\d+(?:\.\d+)?)\s*(us|ms|s|)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
}
_COUNTS: dict[str, Callable[[Profile], float]] = {
    "queries": lambda profile: profile.totals.queries,
    "distinct": lambda profile: profile.totals.distinct,
    "failed": lambda profile: profile.totals.failed,
    "rows": lambda profile: profile.totals.rows,
    "transactions": lambda profile: profile.totals.transactions,
    "n+1": lambda profile: len(profile.n_plus_one),
}
_TIMES: dict[str, Callable[[Profile], float]] = {
    "total": lambda profile: profile.totals.execute_ms + profile.totals.fetch_ms,
    "fetch": lambda profile: profile.totals.fetch_ms,
    "waiting": lambda profile: profile.totals.waiting_ms,
    "wall": lambda profile: profile.totals.wall_ms,
    "slowest": lambda profile: max((one.max_ms for one in profile.statements), default=0.0),
}
_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "": 1.0}


@dataclass(frozen=True)
class Limit:
    """One part of a budget; times are in milliseconds."""

    metric: str
    sign: str
    value: float

    def broken_by(self, profile: Profile) -> str:
        """Return how a profile violates the limit, in words; "" if it does not."""
        measured = {**_COUNTS, **_TIMES}[self.metric](profile)
        if _COMPARE[self.sign](measured, self.value):
            return ""
        unit = " ms" if self.metric in _TIMES else ""
        digits = ".1f" if unit else ".0f"
        return f"{self.metric}: {measured:{digits}}{unit} (limit {self.sign} {self.value:g}{unit})"


def parse_budget(text: str) -> list[Limit]:
    """Return the limits of a budget.

    Raises:
        ValueError: The budget is invalid; the message says what is valid.
    """
    return [_parse(part) for part in text.split(",")]


def _parse(part: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise ValueError(
            f"invalid limit {part.strip()!r}; use the form queries<=12 or total<=200ms"
        )
    metric, sign, number, unit = found.groups()
    if metric not in _COUNTS and metric not in _TIMES:
        raise ValueError(f"unknown metric {metric!r} (choose {', '.join((*_COUNTS, *_TIMES))})")
    if unit and metric in _COUNTS:
        raise ValueError(f"{metric!r} is a count and takes no unit")
    return Limit(metric, sign, float(number) * _MS[unit])


def broken(budget: list[Limit], profile: Profile) -> list[str]:
    """Return the limits that a profile violates, in words."""
    return [text for limit in budget if (text := limit.broken_by(profile))]


class BudgetBrokenError(AssertionError):
    """Work that violated its budget."""


@contextmanager
def held_to(engine: Recordable, budget: str) -> Iterator[Recorder]:
    """Record an engine during a ``with`` block, and enforce a budget.

    Raises:
        BudgetBrokenError: The budget was violated; the message lists the statements and callers.
        ValueError: The budget is invalid.
    """
    limits = parse_budget(budget)
    with Recorder(engine) as recorder:
        yield recorder
    profile = summarize(recorder)
    if problems := broken(limits, profile):
        raise BudgetBrokenError("\n".join([*problems, *map(_told, profile.statements)]))


def _told(one: Statement) -> str:
    flags = "".join(f" [{flag.name}: {flag.text}]" for flag in one.flags)
    return f"  {one.calls} x {one.total_ms:.1f} ms {one.place}{flags}: {one.key.fingerprint[:200]}"


class Everything:
    """A recorder of every engine in the process, from each engine's next connection on.

    One listener on the `Engine` class finds the engines; each gets its own recorder, and all of
    these report to one tally. Engines that already have another recorder are left out.
    """

    def __init__(self) -> None:
        self.tally = SqlRecording()
        self.tally.ended = self.tally.began  # it grows by what `since` returns
        self.heard: Callable[[Query], None] = lambda _query: None  # called with each query
        self._recorders: dict[int, Recorder] = {}  # by the ids of their dialects
        self._lock = threading.Lock()
        self._on = False
        self.mark()

    def start(self) -> None:
        """Start, or resume."""
        if not self._on:
            listen(Engine, {"engine_connect": self.watch}, on=True)
            self._on = True
            self.mark()

    def stop(self) -> None:
        """Stop recording, and remove every listener and recorder."""
        if not self._on:
            return
        listen(Engine, {"engine_connect": self.watch}, on=False)
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

    def since(self) -> SqlRecording:
        """Return what was recorded since the mark, and set a new mark."""
        tally = SqlRecording(self._fresh, began=self._marked, ended=perf_counter())
        for times, whole, (count, total) in zip(
            _times(tally), _times(self.tally), self._before, strict=True
        ):
            times.count, times.total = len(whole) - count, whole.total - total
        tally.transactions.begun = self.tally.transactions.begun - self._begun
        tally.log.fold(everything=True)
        self.tally.ended += tally.seconds
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
        self.heard(query)
        # Both logs get the same object, which counts the rows that are fetched later.
        self.tally.log.add(query)
        self._fresh.add(query)


def _times(tally: SqlRecording) -> tuple[Times, Times, Times]:
    return tally.waits, tally.commits, tally.rollbacks
