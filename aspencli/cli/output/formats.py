"""The results of commands: what they declare, and their formats JSON, JSON Lines, CSV, and TSV.

Nothing heavy is imported here, because every command module declares its results.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import islice
from operator import attrgetter
from typing import Any, TextIO, TypedDict, TypeVar

from aspencli.text import FORMULA_STARTS, csv_cell, json_text, json_texts, no_formula, visible

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])


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
    # The type of its values in JSON, their list if they are few, or a function that returns either.
    # By default that in the class of the rows if it is declared, or else text that may be missing.
    of: Any = None


def titled(*keys: str, **style: Any) -> tuple[Column, ...]:
    """Return columns whose titles are their keys, as words."""
    return tuple(Column(key, key.replace("_", " ").capitalize(), **style) for key in keys)


Row = Mapping[str, Any]
NamedRow = tuple[Any, ...]
"""A row as a named tuple, of which a million take less time and memory than mappings."""
PLANNED = ("create", "update", "delete", "unchanged", "skip")
"""The outcomes of an item in the plan of a write."""
DONE = ("created", "updated", "deleted", "unchanged", "skipped", "failed")
"""The outcomes of an item in the result of a write."""
OUTCOME = Column("outcome", "Outcome", whole=True, of=tuple(dict.fromkeys((*PLANNED, *DONE))))
"""The column of every plan and result of a write; its values are in `PLANNED` or `DONE`."""
LINK_COLUMNS = (Column("url", "Link", whole=True, of=str),)
"""The column of every command that prints a link."""
_DECLARED = "results"  # the attribute of a command's function, which decorators copy
# The cells, each after a line break, that `no_formula` would change.
_FORMULAS = re.compile(f"\n[{re.escape(''.join(FORMULA_STARTS))}]")
_TSV = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_PLAIN = frozenset({str, int, float, bool, type(None)})


class _Dates(dict[dt.date, str]):
    """The texts of dates, of which a list has far fewer than rows."""

    def __missing__(self, date: dt.date) -> str:
        if len(self) == _KEPT_DATES:
            self.clear()
        text = self[date] = date.isoformat()
        return text


_KEPT_DATES = 50_000
# The types whose texts take no further thought; a column usually has values of one type.
_TEXTS: dict[type, Callable[[Any], str]] = {
    bool: {True: "true", False: "false"}.__getitem__,
    dt.date: _Dates().__getitem__,
    float: str,
    int: str,
    str: str,
    type(None): lambda _value: "",
}
# The types whose texts need no quotes and no escapes, and are no formulas, in any format.
_SAFE = frozenset({bool, dt.date, float, int, type(None)})
_ASCII = bytes(range(0x20, 0x7F))
_SINGLY, _PART = 100, 500  # rows written as they arrive; rows written at a time from then on
_Writer = Callable[[TextIO, Sequence[Column], Iterable[Row | NamedRow]], None]


def write_rows(
    stream: TextIO, form: str, columns: Sequence[Column], rows: Iterable[Row | NamedRow]
) -> None:
    """Write rows as ``json``, ``jsonl``, ``csv``, or ``tsv``, as they arrive."""
    _WRITERS[form](stream, columns, rows)


def _parts(rows: Iterable[T]) -> Iterator[list[T]]:
    """Yield the first rows one at a time, and then many at a time, which is faster.

    If an error ends the rows, those before it are yielded first.
    """
    rows = iter(rows)
    yield from ([row] for row in islice(rows, _SINGLY))
    part: list[T] | None = None
    while part is None or part:
        part = []
        try:
            part.extend(islice(rows, _PART))
        finally:
            if part:
                yield part


def by_column(columns: Sequence[Column], rows: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the values of each column; the rows are of one type."""
    if isinstance(rows[0], Mapping):
        return [[row[column.key] for row in rows] for column in columns]
    values = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True))
    return [values[column.key] for column in columns]


def as_mapping(row: Any) -> Row:
    """Return a row as a mapping."""
    return row if isinstance(row, Mapping) else row._asdict()


def lines_of(columns: Sequence[Iterable[T]], count: int) -> Iterable[tuple[T, ...]]:
    """Return the values of columns row by row; a result may have rows without columns."""
    return zip(*columns, strict=True) if columns else [()] * count


def plain(value: Any) -> Any:
    """Return the value as a JSON type; dates and times are in ISO 8601."""
    if value.__class__ in _PLAIN:
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


def _plain_values(values: Sequence[Any]) -> Sequence[Any]:
    return values if _PLAIN.issuperset(map(type, values)) else list(map(plain, values))


def cell(value: Any) -> str:
    """Return the value as the text of one cell; empty for None."""
    value = plain(value)
    if known := _TEXTS.get(value.__class__):
        return known(value)
    return json_text(value) if isinstance(value, (dict, list)) else str(value)


def cells(values: Sequence[Any]) -> list[str]:
    """Return the values of a column as texts; see `cell`."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return list(values)
    return list(map(_TEXTS.get(kinds.pop(), cell) if len(kinds) == 1 else cell, values))


def _json_rows(
    stream: TextIO, columns: Sequence[Column], rows: Iterable[Row | NamedRow]
) -> Iterator[list[str]]:
    ascii_only = (stream.encoding or "utf-8").lower() not in {"utf-8", "utf8"}
    fields = [json_text(column.key).replace("%", "%%") + ": %s" for column in columns]
    template = "{" + ", ".join(fields) + "}"
    for part in _parts(rows):
        values = map(_plain_values, by_column(columns, part))
        texts = [json_texts(some, ascii_only=ascii_only) for some in values]
        yield [template % row for row in lines_of(texts, len(part))]


def _json(stream: TextIO, columns: Sequence[Column], rows: Iterable[Row | NamedRow]) -> None:
    lead = "[\n  "
    for texts in _json_rows(stream, columns, rows):
        stream.write(lead + ",\n  ".join(texts))
        lead = ",\n  "
    stream.write("[]\n" if lead.startswith("[") else "\n]\n")


def _jsonl(stream: TextIO, columns: Sequence[Column], rows: Iterable[Row | NamedRow]) -> None:
    for texts in _json_rows(stream, columns, rows):
        stream.write("\n".join([*texts, ""]))


def _delimited(
    delimiter: str,
    escaped: Callable[[str], str],
    ordinary: bytes,
    stream: TextIO,
    columns: Sequence[Column],
    rows: Iterable[Row | NamedRow],
) -> None:
    stream.write(delimiter.join(column.key for column in columns) + "\n")
    for part in _parts(rows):
        values = by_column(columns, part)
        texts = [_delimited_cells(some, escaped, ordinary) for some in values]
        lines = map(delimiter.join, lines_of(texts, len(part)))
        stream.write("\n".join([*lines, ""]))


def _delimited_cells(
    values: Sequence[Any], escaped: Callable[[str], str], ordinary: bytes
) -> list[str]:
    """Return the values of a column as cells; nearly always, none of them needs a change."""
    texts = cells(values)
    if _SAFE.issuperset(map(type, values)):
        return texts
    lines = "\n".join(["", *texts])
    if lines.isascii():
        others = lines.encode().translate(None, ordinary)
        if others == b"\n" * len(texts) and not _FORMULAS.search(lines):
            return texts
    return [
        escaped(no_formula(text) if isinstance(value, str) else text)
        for text, value in zip(texts, values, strict=True)
    ]


def tsv_cell(text: str) -> str:
    """Return the text with tab, line feed, carriage return, and backslash escaped."""
    if text.isprintable() and "\\" not in text:
        return text
    return visible("".join(_TSV.get(char, char) for char in text))


_WRITERS: dict[str, _Writer] = {
    "json": _json,
    "jsonl": _jsonl,
    "csv": partial(_delimited, ",", csv_cell, _ASCII.translate(None, b',"')),
    "tsv": partial(_delimited, "\t", tsv_cell, _ASCII.translate(None, b"\\")),
}


def table_cells(values: Sequence[Any]) -> list[str]:
    """Return values for a table: one line each, without terminal control characters."""
    texts = cells(values)
    return texts if "".join(texts).isprintable() else list(map(visible, texts))


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


# What commands declare that they print, for ``--columns`` and ``aspencli schema``


@dataclass(frozen=True)
class Results:
    """The declared results of a command.

    Attributes:
        given: The columns of its rows; several if it prints one kind of rows or another. A name
            such as ``package.module:NAME`` is imported when it is needed.
        row: The class of the rows, or its name, for the types of columns that do not state theirs.
        document: The type of an object, or its name, that JSON has in place of the first kind of
            rows.
    """

    given: tuple[tuple[Column, ...] | str, ...]
    row: type | str | None = None
    document: Any = None

    def tables(self) -> Iterator[tuple[Column, ...]]:
        """Yield the columns of each kind of rows."""
        for table in self.given:
            yield load(table) if isinstance(table, str) else table

    def columns(self) -> Iterator[Column]:
        """Yield the columns of all kinds of rows, each name once."""
        found: dict[str, Column] = {}
        for column in (column for table in self.tables() for column in table):
            found.setdefault(column.key, column)
        yield from found.values()


def load(name: str) -> Any:
    """Return what has a name such as ``package.module:NAME``."""
    module, _, path = name.partition(":")
    return attrgetter(path)(import_module(module))


def shape(name: str, keys: Iterable[str], **types: Any) -> Any:
    """Return the type of objects with these keys: texts that may be missing, or as stated."""
    members = {**dict.fromkeys(keys, str | None), **types}
    return TypedDict(name, members)  # type: ignore[operator] # the keys are known at run time only


def prints(
    *tables: tuple[Column, ...] | str, row: type | str | None = None, document: Any = None
) -> Callable[[Function], Function]:
    """Return a decorator that declares what a command prints; see `Results`."""

    def declare(function: Function) -> Function:
        vars(function)[_DECLARED] = Results(tables, row, document)
        return function

    return declare


def results_of(command: Any) -> Results | None:
    """Return what a command prints, or None if it prints no rows and no document."""
    found = getattr(command.callback, _DECLARED, None)
    return found if isinstance(found, Results) else None
