"""Match executions with rows of the database, without asking for each of them.

The list of executions has no input, so an execution is matched by the group in its name and the
time of its start, which follows that of the row. Whatever changes anything, or explains a failure,
compares the execution's input as well (`aspencli.jobs.cloud`).
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence

from aspen.workflows.engine.executions import Execution, clean, name_parts
from aspencli.jobs.models import RunRow

SKEW = dt.timedelta(seconds=10)
"""The difference between two clocks."""
_LATEST = dt.timedelta(hours=1)  # the schedule writes all rows before it starts the first job


def match(rows: Sequence[RunRow], executions: Iterable[Execution]) -> dict[int, Execution]:
    """Return the execution of each row that has one, by the row's ID.

    From the latest to the earliest, each execution belongs to the latest row of its group that
    began before it and has none yet. A repeated attempt belongs to the row of the first.
    """
    free: dict[str, list[RunRow]] = defaultdict(list)
    for row in sorted(rows, key=_start):
        if row.kind == "tree" and row.prefix is not None and row.started is not None:
            free[clean(row.prefix)].append(row)
    attempts: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in executions:
        parts = name_parts(execution.name)
        if parts is not None and parts.kind == "tree" and execution.started is not None:
            attempts[parts.prefix, parts.at].append(execution)
    found: dict[int, Execution] = {}
    ordered = sorted(attempts.items(), key=lambda one: _first(one[1]), reverse=True)
    for (prefix, _at), some in ordered:
        began = _first(some)
        rest = free[prefix]
        while rest and _start(rest[-1]) > began + SKEW:
            rest.pop()
        if rest and began - _start(rest[-1]) <= _LATEST:
            found[rest.pop().id] = max(some, key=lambda one: one.started or _EARLIEST)
    return found


def match_imports(rows: Iterable[RunRow], executions: Iterable[Execution]) -> dict[int, str]:
    """Return the ARN of the import that wrote each row, by the row's ID.

    An import writes its rows at the end of its steps, so they lie within its execution.
    """
    imports = [one for one in executions if one.kind == "import-repository" and one.started]
    found = {}
    for row in rows:
        if row.kind == "tree" or row.ended is None:
            continue
        for one in imports:
            began = one.started or _EARLIEST
            over = one.ended or _LAST
            if began - SKEW <= row.ended <= over + SKEW:
                found[row.id] = one.arn
                break
    return found


def candidates(row: RunRow, executions: Iterable[Execution]) -> list[Execution]:
    """Return the executions that may be the row's first attempt, the most likely first."""
    if row.started is None or row.prefix is None:
        return []
    prefix, began = clean(row.prefix), row.started
    found = [
        one
        for one in executions
        if one.started is not None
        and -SKEW <= one.started - began <= _LATEST
        and (parts := name_parts(one.name)) is not None
        and parts.kind == "tree"
        and (parts.prefix == prefix or prefix.startswith(parts.prefix) or not parts.prefix)
    ]
    return sorted(found, key=lambda one: (one.started or _EARLIEST) - began)


_EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC)
_LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


def _start(row: RunRow) -> dt.datetime:
    return row.started or _EARLIEST


def _first(executions: Iterable[Execution]) -> dt.datetime:
    return min(one.started or _EARLIEST for one in executions)
