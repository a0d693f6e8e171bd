"""Text for people: escaping of untrusted text, counts and sizes, and suggestions of names."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from aspencli.errors import NotFoundError

# C0 and C1 controls, line separators, and bidirectional marks: any of them could move the
# cursor, color the screen, or make one identifier look like another.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]"
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# The apostrophe is added so that `unguard` can tell which ones `guard` added.
_GUARDED = (*FORMULA_STARTS, "'")
_WHITE = "\t\n\r"
_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_ascii = json.JSONEncoder().encode
# In JSON no line break is in a text, so this one separates the values of a list.
_encode_lines = json.JSONEncoder(ensure_ascii=False, separators=("\n", ": ")).encode
_encode_ascii_lines = json.JSONEncoder(separators=("\n", ": ")).encode
_SHOWN = 80  # characters


def visible(text: str) -> str:
    """Return the text with control characters escaped: ESC becomes four visible characters."""
    if text.isprintable():  # true of nearly all text, and fast to check
        return text
    return _UNSAFE.sub(lambda match: _escape(match[0]), text)


def local_time(seconds: float) -> str:
    """Return a Unix timestamp as local time, to the minute."""
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"


def quote(text: str) -> str:
    """Return a text quoted for use in messages."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    return json.dumps(shown, ensure_ascii=False)


def sql_name(name: str) -> str:
    """Return a name as an SQL identifier, quoted if necessary."""
    plain = re.fullmatch(r"[a-z_][a-z0-9_]*", name)
    return name if plain else '"' + name.replace('"', '""') + '"'


def csv_cell(text: str) -> str:
    """Return the text as one CSV cell (RFC 4180), without terminal control characters.

    Line breaks and tabs are kept, inside quotes; `csv.writer` leaves a bare carriage return
    unquoted, which no reader accepts.
    """
    if not text.isprintable():
        text = _UNSAFE.sub(lambda m: m[0] if m[0] in _WHITE else _escape(m[0]), text)
    if "," in text or '"' in text or "\n" in text or "\r" in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def json_text(value: Any, *, ascii_only: bool = False) -> str:
    """Return the value as JSON on one line, without terminal control characters.

    Escaped text reads back unchanged. The value must consist of JSON types.
    """
    text = _encode_ascii(value) if ascii_only else _encode(value)
    return (
        text if text.isprintable() else _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    )


def json_document(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return the value as JSON, perhaps indented, without terminal control characters."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    return _UNSAFE.sub(
        lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text
    )


def json_texts(values: Sequence[Any], *, ascii_only: bool = False) -> list[str]:
    """Return each of the values as `json_text` does, but many times as fast."""
    whole = (_encode_ascii_lines if ascii_only else _encode_lines)(values)[1:-1]
    texts = whole.split("\n")
    if len(texts) == len(values) and "".join(texts).isprintable():
        return texts
    # The values inside a list or an object are also separated by line breaks.
    return [json_text(value, ascii_only=ascii_only) for value in values]


def no_formula(text: str) -> str:
    """Return the text, with an apostrophe before a spreadsheet formula (OWASP)."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def guard(text: str) -> str:
    """Return the text, prefixed with an apostrophe if a spreadsheet would evaluate it."""
    return f"'{text}" if text.startswith(_GUARDED) else text


def unguard(text: str) -> str:
    """Return the text that was passed to `guard`."""
    return text[1:] if text.startswith("'") and text.startswith(_GUARDED, 1) else text


def counted(number: int, noun: str) -> str:
    """Return a count and its noun, in the plural where needed."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def size_text(size: int) -> str:
    """Return a number of bytes in a readable unit: ``7.4 MB`` (powers of 1,000)."""
    amount, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1_000:  # noqa: PLR2004 - the step from unit to unit
            break
        amount, unit = amount / 1_000, larger
    return f"{size} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration in readable units: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 02 min``."""
    if seconds < 10:  # noqa: PLR2004 - below it the tenths matter
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def not_found(noun: str, key: str, known: Iterable[str]) -> NotFoundError:
    """Return an error that suggests similar names and lists the existing ones."""
    names = sorted(known)
    near = nearest(key, names)
    lead = f"Did you mean {' or '.join(near)}? " if near else ""
    return NotFoundError(
        f"No such {noun}: {key!r}",
        hint=f"{lead}Choose from: {', '.join(names)}." if names else "There are none.",
    )


def nearest(key: str, names: Sequence[str]) -> list[str]:
    """Return the names that resemble the key, best first, then those that contain it."""
    folded = {name.lower(): name for name in names}
    near = get_close_matches(key.lower(), folded, n=3)
    near += [name for name in folded if key.lower() in name and name not in near][:3]
    return [folded[name] for name in near]


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
