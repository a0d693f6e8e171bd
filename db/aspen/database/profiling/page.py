"""A profile as one self-contained HTML page: a timeline, a sortable table, and plan trees."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush, nlargest
from importlib.resources import files
from typing import Any

from aspen.database.profiling.queries import Moment
from aspen.database.profiling.summary import Profile
from aspen.database.profiling.transactions import Span

DRAWN = 50_000
"""The maximum number of queries, and of transactions, to draw; more would add only megabytes."""


def as_page(profile: Profile, document: Mapping[str, Any]) -> str:
    """Return the HTML page.

    Args:
        profile: The profile to draw.
        document: The same profile, as returned by `aspen.database.profiling.compare.as_document`.
    """
    content = {**document, "timeline": as_timeline(profile)}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Escaped so that no statement can close the element that contains the data.
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    head, _, tail = _part("page.html").partition("{{DATA}}")
    head = head.replace("{{STYLE}}", _part("page.css"))
    tail = tail.replace("{{SCRIPT}}", _part("page.js") + _part("timeline.js"))
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
        [
            _ms(one.started - profile.began),
            _ms(one.seconds),
            _ms(one.fetching),
            places[one.group],
            int(one.failed),
        ]
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
