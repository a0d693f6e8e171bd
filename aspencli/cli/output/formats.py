"""Formatting of results as JSON, JSON Lines, CSV, and TSV, and of table cells."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from aspencli.text import csv_cell, json_text, no_formula, visible


@dataclass(frozen=True)
class Column:
    """One column of a result."""

    key: str  # its name in every machine-readable format; a contract
    title: str  # its heading in a table
    right: bool = False  # tables right-align it, as for numbers
    secondary: bool = False  # tables shorten or drop it first on a narrow terminal
    whole: bool = False  # tables never cut or wrap it, as for identifiers
    sql: bool = False  # it holds statements, which tables shorten inside their lists
    tail: bool = False  # tables cut its beginning, as for places, whose county is at the end
    blank: Callable[[Row], str] | None = None  # what people read if missing, such as (cleared)
    retired: bool = False  # only for scripts: people read the same in another column


def titled(*keys: str, **style: Any) -> tuple[Column, ...]:
    """Return columns whose titles are their keys, as words."""
    return tuple(Column(key, key.replace("_", " ").capitalize(), **style) for key in keys)


Row = Mapping[str, Any]
PLANNED = ("create", "update", "delete", "unchanged", "skip")
"""The outcomes of an item in the plan of a write."""
DONE = ("created", "updated", "deleted", "unchanged", "skipped", "failed")
"""The outcomes of an item in the result of a write."""
OUTCOME = Column("outcome", "Outcome", whole=True)
"""The column of every plan and result of a write; its values are in `PLANNED` or `DONE`."""
_TSV = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_PLAIN = frozenset({str, int, float, bool})
_Writer = Callable[[TextIO, Sequence[Column], Iterable[Row]], None]


def write_rows(stream: TextIO, form: str, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    """Write rows as ``json``, ``jsonl``, ``csv``, or ``tsv``, one at a time as they arrive."""
    _WRITERS[form](stream, columns, rows)


def plain(value: Any) -> Any:
    """Return the value as a JSON type; dates and times are in ISO 8601."""
    if value is None or value.__class__ in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def cell(value: Any) -> str:
    """Return the value as the text of one cell; empty for None."""
    if value.__class__ is str:
        return str(value)
    value = plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return json_text(value)
    return str(value)


def _json_row(stream: TextIO, columns: Sequence[Column], row: Row) -> str:
    picked = {column.key: plain(row[column.key]) for column in columns}
    encoding = (stream.encoding or "utf-8").lower()
    return json_text(picked, ascii_only=encoding not in {"utf-8", "utf8"})


def _json(stream: TextIO, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    lead = "["
    for row in rows:
        stream.write(lead + "\n  " + _json_row(stream, columns, row))
        lead = ","
    stream.write("[]\n" if lead == "[" else "\n]\n")


def _jsonl(stream: TextIO, columns: Sequence[Column], rows: Iterable[Row]) -> None:
    for row in rows:
        stream.write(_json_row(stream, columns, row) + "\n")


def _delimited(
    delimiter: str,
    escaped: Callable[[str], str],
    stream: TextIO,
    columns: Sequence[Column],
    rows: Iterable[Row],
) -> None:
    keys = [column.key for column in columns]
    stream.write(delimiter.join(keys) + "\n")
    for row in rows:
        stream.write(delimiter.join([escaped(_guarded(row[key])) for key in keys]) + "\n")


def _guarded(value: Any) -> str:
    if value.__class__ is int:
        return str(value)
    text = cell(value)
    return no_formula(text) if isinstance(value, str) else text


def tsv_cell(text: str) -> str:
    """Return the text with tab, line feed, carriage return, and backslash escaped."""
    if text.isprintable() and "\\" not in text:
        return text
    return visible("".join(_TSV.get(char, char) for char in text))


_WRITERS: dict[str, _Writer] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": partial(_delimited, ",", csv_cell),
    "tsv": partial(_delimited, "\t", tsv_cell),
}


def table_cell(value: Any) -> str:
    """Return the value for a table: one line, without terminal control characters."""
    return visible(cell(value))


def record_field(value: Any) -> str:
    """Return the value for a record: one line per item of a list, and no JSON."""
    value = plain(value)
    items = value if isinstance(value, list) else [value]
    return "\n".join(visible(_phrase(item)) for item in items)


def _phrase(value: Any) -> str:
    if isinstance(value, dict):
        parts = ((key, _phrase(item)) for key, item in value.items())
        return ", ".join(f"{key}: {item}" for key, item in parts if item)
    if isinstance(value, list):
        return ", ".join(_phrase(item) for item in value)
    return cell(value)


def blank(column: Column, row: Row) -> str:
    """Return what people read in place of a missing value, or an empty string."""
    return column.blank(row) if column.blank and row[column.key] is None else ""


def with_blanks(columns: Sequence[Column], row: Row) -> Row:
    """Return the row with its missing values as people read them."""
    return {**row, **{c.key: words for c in columns if (words := blank(c, row))}}
