"""A profile as one page that needs no network: a timeline, a table to sort, and plans as trees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from db.profiling.summary import Profile
from db.profiling.timeline import as_timeline


def as_page(profile: Profile, document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        profile: What is drawn.
        document: The same, as `db.profiling.documents.as_document` makes it.
    """
    content = {**document, "timeline": as_timeline(profile)}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # Nothing of a statement can end the element that the data stand in.
    safe = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    head, _, tail = _part("page.html").partition("{{DATA}}")
    head = head.replace("{{STYLE}}", _part("page.css"))
    tail = tail.replace("{{SCRIPT}}", _part("page.js") + _part("timeline.js"))
    return head + safe + tail


def _part(name: str) -> str:
    return files("db.profiling").joinpath(name).read_text(encoding="utf-8")
