"""Texts that a spreadsheet would compute: an apostrophe before them, and away again."""

from __future__ import annotations

# As OWASP names them; and the apostrophe itself, so that what was put before can be told.
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")


def guard(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would compute."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unguard(text: str) -> str:
    """What `guard` was given."""
    return text[1:] if text.startswith("'") and text.startswith(_GUARDED, 1) else text
