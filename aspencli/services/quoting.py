"""Values within messages: in quotes, on one line, and not longer than anybody reads."""

from __future__ import annotations

import json

_SHOWN = 80  # characters


def quote(text: str) -> str:
    """A text as messages quote it."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return json.dumps(shown, ensure_ascii=False)
