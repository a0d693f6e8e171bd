"""A profile as one page that needs no network: a timeline, a table to sort, and plans as trees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from db.profiling.summary import Profile

_DRAWN = 50_000
"""So many queries are drawn, the longest; more would be many megabytes, and no pixel more."""


def as_page(profile: Profile, document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        profile: What is drawn.
        document: The same, as `db.profiling.documents.as_document` makes it.
    """
    longest = sorted(profile.moments, key=lambda one: one.seconds + one.fetching, reverse=True)
    drawn = [
        [
            round((one.started - profile.began) * 1e3, 3),
            round(one.seconds * 1e3, 3),
            round(one.fetching * 1e3, 3),
        ]
        for one in longest[:_DRAWN]
    ]
    left_out = len(longest) - len(drawn)
    data = json.dumps({**document, "timeline": drawn, "left_out": left_out}, ensure_ascii=False)
    # Nothing of a statement can end the element that the data stand in.
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    page = files("db.profiling").joinpath("page.html").read_text(encoding="utf-8")
    return page.replace("{{DATA}}", safe, 1)
