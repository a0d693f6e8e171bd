"""Apostrophes that keep spreadsheets from evaluating text as a formula."""

from __future__ import annotations

# OWASP's list, plus the apostrophe itself so that `unguard` can tell which ones were added.
_GUARDED = ("=", "+", "-", "@", "\t", "\r", "'")


def guard(text: str) -> str:
    """Return the text, prefixed with an apostrophe if a spreadsheet would evaluate it."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unguard(text: str) -> str:
    """Return the text that was passed to `guard`."""
    return text[1:] if text.startswith("'") and text.startswith(_GUARDED, 1) else text
