"""A profile as one self-contained HTML page: a timeline, a sortable table, and plan trees."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from aspen.database.profiling.summary import Profile
from aspen.database.profiling.timeline import as_timeline


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


def _part(name: str) -> str:
    return files("aspen.database.profiling").joinpath(name).read_text(encoding="utf-8")
