"""Summaries of recordings: totals, and the most expensive statements with their problems."""

from __future__ import annotations

import re
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from aspen.database.profiling.queries import (
    Example,
    Log,
    Moment,
    SqlRecording,
    StatementKey,
    Transactions,
)

LAZY_REPEATS = 3
"""The number of lazy loads of one relationship from one line that make an N+1."""
REPEATS = 10
"""The number of SELECTs with one fingerprint from one line that make an N+1."""
_UNUSED_ROWS = 100
# FROM and JOIN are also followed by functions and subqueries, which are not tables. The
# group is not possessive, because Python 3.11.2 matches such a group wrongly.
_TABLE = re.compile(
    r"""\b(?:FROM|JOIN)\s+(?:ONLY\s+)?(?:"[^"]*"|[\w$]++)(?:\.(?:"[^"]*"|[\w$]++))*"""
    r"""(?!\.(?:"[^"]*"|[\w$]))(?!\s*\()""",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Flag:
    """A problem with a statement, and a suggested fix, if any."""

    name: str  # n+1, unused-rows, failed, seq-scan, spilled, or misestimated
    text: str
    cure: str = ""


@dataclass
class Statement:
    """A statement: one fingerprint from one line. All times are in milliseconds."""

    key: StatementKey
    example: Example
    number: int = 0
    calls: int = 0
    failed: int = 0
    total_ms: float = 0.0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    max_ms: float = 0.0
    fetch_ms: float = 0.0
    rows: int = 0
    fetched: int = 0
    share: float = 0.0
    flags: list[Flag] = field(default_factory=list)
    plan: dict[str, Any] | None = None

    @property
    def place(self) -> str:
        """Return the calling line, as ``file:line``."""
        return f"{self.key.file}:{self.key.line}" if self.key.file else ""


@dataclass(frozen=True)
class Totals:
    """The totals of a recording. Times are in milliseconds; those of threads are added up."""

    queries: int
    distinct: int
    failed: int
    rows: int
    transactions: int
    commits: int
    rollbacks: int
    wall_ms: float
    execute_ms: float
    fetch_ms: float
    ending_ms: float
    waiting_ms: float

    @property
    def python_ms(self) -> float:
        """Return the time spent outside the database; may be 0 if threads ran concurrently."""
        database = self.execute_ms + self.fetch_ms + self.ending_ms + self.waiting_ms
        return max(self.wall_ms - database, 0.0)


@dataclass(frozen=True)
class Profile:
    """The summary of a recording, with the statements that cost most first."""

    totals: Totals
    statements: list[Statement]
    log: Log  # the group of an execution is the number of its statement
    transactions: Transactions
    began: float  # on the same clock as the executions

    @property
    def n_plus_one(self) -> list[Statement]:
        """Return the statements that are an N+1."""
        return [one for one in self.statements if any(f.name == "n+1" for f in one.flags)]


@dataclass
class _Group:
    """The sums over the executions of a statement, plus eight bytes per execution for its time."""

    times: array[float] = field(default_factory=lambda: array("d"))
    fetching: float = 0.0
    rows: int = 0
    fetched: int = 0
    failed: int = 0

    def add(self, moment: Moment) -> None:
        self.times.append(moment.seconds)
        self.fetching += moment.fetching
        self.rows += max(moment.rows, 0)
        self.fetched += moment.fetched
        self.failed += moment.failed


def summarize(recording: SqlRecording) -> Profile:
    """Return a summary of what was recorded so far."""
    log = recording.log
    log.fold()
    groups: defaultdict[int, _Group] = defaultdict(_Group)
    for moment in log.moments():
        groups[moment.group].add(moment)
    totals = _totals(recording, list(groups.values()))
    keys = log.keys
    statements = [
        _statement(number, keys[number], log.examples[number], group, totals)
        for number, group in groups.items()
    ]
    statements.sort(key=lambda one: one.total_ms + one.fetch_ms, reverse=True)
    return Profile(totals, statements, log, recording.transactions, recording.began)


def _totals(recording: SqlRecording, groups: list[_Group]) -> Totals:
    return Totals(
        queries=sum(len(group.times) for group in groups),
        distinct=len({key.fingerprint for key in recording.log.keys}),
        failed=sum(group.failed for group in groups),
        rows=sum(group.rows for group in groups),
        transactions=recording.transactions.begun,
        commits=len(recording.commits),
        rollbacks=len(recording.rollbacks),
        wall_ms=recording.seconds * 1e3,
        execute_ms=sum(sum(group.times) for group in groups) * 1e3,
        fetch_ms=sum(group.fetching for group in groups) * 1e3,
        ending_ms=(recording.commits.total + recording.rollbacks.total) * 1e3,
        waiting_ms=recording.waits.total * 1e3,
    )


def _statement(
    number: int, key: StatementKey, example: Example, group: _Group, totals: Totals
) -> Statement:
    times = sorted(seconds * 1e3 for seconds in group.times)
    total, spent = sum(times), totals.execute_ms + totals.fetch_ms
    statement = Statement(
        key,
        example,
        number=number,
        calls=len(times),
        failed=group.failed,
        total_ms=total,
        mean_ms=total / len(times),
        p50_ms=percentile(times, 50),
        p95_ms=percentile(times, 95),
        max_ms=times[-1],
        fetch_ms=group.fetching * 1e3,
        rows=group.rows,
        fetched=group.fetched,
        share=(total + group.fetching * 1e3) / spent if spent else 0.0,
    )
    statement.flags.extend(_flags(statement))
    return statement


def percentile(ordered: list[float], percent: int) -> float:
    """Return a percentile of sorted values, by the nearest-rank method."""
    return ordered[max(ceil(len(ordered) * percent / 100) - 1, 0)]


def _flags(statement: Statement) -> list[Flag]:
    found = []
    if repeated := _repeated(statement):
        found.append(repeated)
    reading = is_select(statement.key.fingerprint)
    unused = statement.rows - statement.fetched
    if reading and unused >= _UNUSED_ROWS and unused * 2 > statement.rows:
        text = f"{unused:,} of {statement.rows:,} rows were never fetched"
        found.append(Flag("unused-rows", text, "Add a LIMIT, or fetch only what is needed."))
    if statement.failed:
        names = ", ".join(sorted(statement.example.errors))
        found.append(Flag("failed", f"{statement.failed} of {statement.calls} failed: {names}"))
    return found


def _repeated(statement: Statement) -> Flag | None:
    lazy = statement.key.lazy
    if lazy is not None and statement.calls >= LAZY_REPEATS:
        what = "expired objects of " if lazy.expired else ""
        text = f"{what}{lazy.name} loaded one by one, {statement.calls} times"
        return Flag("n+1", text, lazy.cure)
    fingerprint = statement.key.fingerprint
    if (
        lazy is None
        and statement.calls >= REPEATS
        and is_select(fingerprint)
        and reads(fingerprint)
    ):
        text = f"same SELECT from one line, {statement.calls} times"
        return Flag("n+1", text, "Use a single query: ... WHERE id = ANY(...), or a join.")
    return None


def reads(fingerprint: str) -> bool:
    """Return True if a statement names a table; one that only calls functions cannot be joined."""
    return _TABLE.search(fingerprint) is not None


def is_select(fingerprint: str) -> bool:
    """Return True if a statement is a plain SELECT, judging by its first word."""
    return fingerprint[:6].upper() == "SELECT"
