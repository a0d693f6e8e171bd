"""Budgets for database work, such as ``queries<=12,total<=200ms,n+1=0``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db.profiling.connections import Recordable
from db.profiling.recorder import Recorder
from db.profiling.summary import Profile, Statement, summarise

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
        return f"{self.metric} is {measured:{digits}}{unit}, not {self.sign} {self.value:g}{unit}"


def parse_budget(text: str) -> list[Limit]:
    """Return the limits of a budget.

    Raises:
        ValueError: The budget is invalid; the message says what is valid.
    """
    return [_parse(part) for part in text.split(",")]


def _parse(part: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise ValueError(f"{part.strip()!r} is no limit; write one as queries<=12 or total<=200ms")
    metric, sign, number, unit = found.groups()
    if metric not in _COUNTS and metric not in _TIMES:
        raise ValueError(f"{metric!r} is not measured; known: {', '.join((*_COUNTS, *_TIMES))}")
    if unit and metric in _COUNTS:
        raise ValueError(f"{metric!r} is a count, and has no unit")
    return Limit(metric, sign, float(number) * _MS[unit])


def broken(budget: list[Limit], profile: Profile) -> list[str]:
    """Return the limits that a profile violates, in words."""
    return [text for limit in budget if (text := limit.broken_by(profile))]


class BudgetBrokenError(AssertionError):
    """Work that violated its budget."""


@contextmanager
def held_to(engine: Recordable, budget: str) -> Iterator[Recorder]:
    """Record an engine during a ``with`` block, and enforce a budget.

    Args:
        engine: The engine that the block uses.
        budget: The limits, such as ``queries<=12,total<=200ms,n+1=0``.

    Raises:
        BudgetBrokenError: The budget was violated; the message lists the statements and callers.
        ValueError: The budget is invalid.
    """
    limits = parse_budget(budget)
    with Recorder(engine) as recorder:
        yield recorder
    profile = summarise(recorder)
    if problems := broken(limits, profile):
        raise BudgetBrokenError("\n".join([*problems, *map(_told, profile.statements)]))


def _told(one: Statement) -> str:
    flags = "".join(f" [{flag.name}: {flag.text}]" for flag in one.flags)
    return f"  {one.calls} x {one.total_ms:.1f} ms {one.place}{flags}: {one.key.fingerprint[:200]}"
