"""Profiles as JSON (described in `docs/guides/profiling.md`), compared, and as an HTML page.

The page is self-contained: a timeline, a sortable table, and plan trees.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from heapq import heappop, heappush, nlargest
from importlib.resources import files
from typing import Any, NotRequired, TypedDict

from aspen.database.profiling.plans import hide_secrets
from aspen.database.profiling.queries import Moment, Span
from aspen.database.profiling.summary import Flag, Profile, Statement

FORMAT, VERSION = "aspencli-profile", 1
_NOTICEABLE_MS, _NOTICEABLE = 1.0, 0.2
DRAWN = 50_000
"""The maximum number of queries, and of transactions, to draw; more would add only megabytes."""


class StatementDocument(TypedDict):
    """A statement of a profile; its parameters are there on request."""

    fingerprint: str
    file: str
    line: int
    function: str
    lazily_loaded: str | None
    calls: int
    failed: int
    total_ms: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float
    fetch_ms: float
    rows: int
    fetched: int
    share: float
    flags: list[Flag]
    plan: dict[str, Any] | None
    parameters: NotRequired[Any]


class ProfileDocument(TypedDict):
    """A profile as JSON."""

    format: str
    version: int
    what: str
    totals: dict[str, float]
    statements: list[StatementDocument]
    interrupted: bool


def as_document(profile: Profile, what: str, *, parameters: bool = False) -> dict[str, Any]:
    """Return the profile as plain values, with the parameters of slowest executions on request."""
    totals = {**asdict(profile.totals), "python_ms": profile.totals.python_ms}
    return {
        "format": FORMAT,
        "version": VERSION,
        "what": what,
        "totals": {name: _short(value) for name, value in totals.items()},
        "statements": [_statement(one, parameters=parameters) for one in profile.statements],
    }


def _statement(one: Statement, *, parameters: bool) -> dict[str, Any]:
    lazy = one.key.lazy
    numbers = {name: getattr(one, name) for name in _NUMBERS}
    found: dict[str, Any] = {
        "fingerprint": one.key.fingerprint,
        "file": one.key.file,
        "line": one.key.line,
        "function": one.key.function,
        "lazily_loaded": lazy.name if lazy else None,
        **{name: _short(value) for name, value in numbers.items()},
        "flags": [asdict(flag) for flag in one.flags],
        "plan": one.plan,
    }
    if parameters:
        found["parameters"] = hide_secrets(one.example.parameters)
    return found


_NUMBERS = (
    *("calls", "failed", "total_ms", "mean_ms", "p50_ms", "p95_ms", "max_ms", "fetch_ms"),
    *("rows", "fetched", "share"),
)


def _short(value: float) -> float:
    return round(value, 4)


@dataclass(frozen=True)
class Difference:
    """One fingerprint before and after."""

    fingerprint: str
    verdict: str  # gone, new, better, worse, or same
    calls: tuple[int, int]
    total_ms: tuple[float, float]
    cured: bool  # it was an N+1 before and no longer is


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return the change of each statement, the largest difference first.

    Raises:
        ValueError: The first is not a profile document, or is of another version.
    """
    if before.get("format") != FORMAT or before.get("version") != VERSION:
        raise ValueError(f"not a version {VERSION} profile")
    old, new = _by_fingerprint(before), _by_fingerprint(after)
    changes = [_change(text, old.get(text), new.get(text)) for text in {**old, **new}]
    return sorted(changes, key=lambda one: -abs(one.total_ms[1] - one.total_ms[0]))


def _by_fingerprint(document: Mapping[str, Any]) -> dict[str, tuple[int, float, bool]]:
    found: defaultdict[str, tuple[int, float, bool]] = defaultdict(lambda: (0, 0.0, False))
    for one in document["statements"]:
        calls, total, repeated = found[one["fingerprint"]]
        flagged = any(flag["name"] == "n+1" for flag in one["flags"])
        total += one["total_ms"] + one["fetch_ms"]
        found[one["fingerprint"]] = (calls + one["calls"], total, repeated or flagged)
    return dict(found)


def _change(
    text: str, old: tuple[int, float, bool] | None, new: tuple[int, float, bool] | None
) -> Difference:
    before, after = old or (0, 0.0, False), new or (0, 0.0, False)
    saved = before[1] - after[1]
    if new is None:
        verdict = "gone"
    elif old is None:
        verdict = "new"
    elif abs(saved) < max(_NOTICEABLE_MS, before[1] * _NOTICEABLE) and before[0] == after[0]:
        verdict = "same"
    else:
        verdict = "better" if saved > 0 else "worse"
    calls, total = (before[0], after[0]), (before[1], after[1])
    return Difference(text, verdict, calls, total, cured=before[2] and not after[2])


def as_page(profile: Profile, document: Mapping[str, Any]) -> str:
    """Return the HTML page of a profile that was also turned into a document."""
    content = {**document, "timeline": as_timeline(profile)}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Escaped so that no statement can close the element that contains the data.
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    head, _, tail = _part("page.html").partition("{{DATA}}")
    head = head.replace("{{STYLE}}", _part("page.css"))
    tail = tail.replace("{{SCRIPT}}", _part("page.js") + _part("plan.js") + _part("timeline.js"))
    return head + safe + tail


def as_timeline(profile: Profile) -> dict[str, Any]:
    """Return the numbers to draw, in milliseconds since the recording began.

    Returns:
        ``queries`` as [start, execution, fetching, statement, failed], where the statement is its
        index in the profile's list; ``transactions`` as [lane, depth, start, duration, outcome],
        with concurrent ones in different lanes and each savepoint in its transaction's lane;
        ``left_out``, the number of queries omitted, which are the shortest; ``lanes``.
    """
    places = {one.number: place for place, one in enumerate(profile.statements)}
    queries = [
        _drawn(one, profile.began, places[one.group])
        for one in nlargest(DRAWN, profile.log.moments(), key=_weight)
        if one.group in places  # otherwise it came after the summary
    ]
    bands = list(_bands(profile))
    return {
        "queries": queries,
        "left_out": max(profile.totals.queries - len(queries), 0),
        "transactions": bands,
        "lanes": max((band[0] for band in bands), default=-1) + 1,
    }


def _drawn(moment: Moment, began: float, place: int) -> list[float]:
    return [
        _ms(moment.started - began),
        _ms(moment.seconds),
        _ms(moment.fetching),
        place,
        int(moment.failed),
    ]


def _weight(moment: Moment) -> tuple[bool, float]:
    return moment.failed, moment.seconds + moment.fetching


def _bands(profile: Profile) -> Iterator[list[float]]:
    longest = nlargest(DRAWN, profile.transactions.spans(), key=lambda one: one.seconds)
    lanes = _lanes([one for one in longest if one.depth == 0])
    for one in longest:
        if (lane := lanes.get(one.transaction)) is not None:
            start, length = _ms(one.started - profile.began), _ms(one.seconds)
            yield [lane, one.depth, start, length, int(one.outcome)]


def _lanes(transactions: list[Span]) -> dict[int, int]:
    """Return each transaction's lane, by number: the first one that is free when it begins."""
    found: dict[int, int] = {}
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for one in sorted(transactions, key=lambda one: one.started):
        while busy and busy[0][0] <= one.started:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        found[one.transaction] = lane
        heappush(busy, (one.started + one.seconds, lane))
    return found


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _part(name: str) -> str:
    return files("aspen.database.profiling").joinpath(name).read_text(encoding="utf-8")
