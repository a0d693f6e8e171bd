"""Quote values for messages: on one line, and truncated to a readable length."""

from __future__ import annotations

import json

_SHOWN = 80  # characters


def quote(text: str) -> str:
    """Return a text quoted for use in messages."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return json.dumps(shown, ensure_ascii=False)
