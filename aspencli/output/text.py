"""Text from data, made harmless for where it is shown."""

from __future__ import annotations

import re

# C0 and C1 controls, line separators, and the marks that turn the direction of writing:
# any of them could move the cursor, colour the screen, or show an identifier as another.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]"
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_TSV = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    """The text with every control character spelled out: ESC becomes four visible characters."""
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def no_formula(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would compute (OWASP)."""
    return "'" + text if text.startswith(_FORMULA) else text


def tsv_cell(text: str) -> str:
    """The text with tab, line feed, carriage return and backslash written as escapes."""
    return visible("".join(_TSV.get(char, char) for char in text))


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
