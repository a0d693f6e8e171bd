r"""Tables with one line per row, and records with one line per field.

Identifiers and numbers are never cut or wrapped. Other text is shortened, and secondary columns are
shortened, then left out, before anything else. Where even that does not fit, the rows are shown as
records, as psql does with ``\x auto``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.cells import cell_len, set_cell_size

from aspencli.cli.output.formats import (
    Column,
    NamedRow,
    Row,
    as_mapping,
    blank,
    by_column,
    lines_of,
    record_field,
    table_cells,
)
from aspencli.cli.output.sql_summary import shorten_sql

_GAP = 2  # between two columns
_LEAST = 8  # the minimum width of a column that is shortened
_LEAST_SQL = 16
_SQL_LINES = 4  # of a statement in a record
_READABLE = 14  # the width of secondary columns, below which they are left out
_READABLE_TAIL = 21  # enough for "…San Francisco County"
_COMFORTABLE = 24  # the width that other columns get before secondary ones are shown
_COMFORTABLE_SQL = 40

Bold = Callable[[str], str]


class TableLayout:
    """A table that fits the width without cutting an identifier or a number.

    Rows may be added in parts; the first part determines which columns are shown, or that records
    are shown instead of a table. The width is in characters.
    """

    def __init__(self, columns: Sequence[Column], width: int, bold: Bold, ellipsis: str):
        self.left_out: list[Column] = []
        self._all = tuple(columns)
        self._columns = list(columns)
        self.width = width
        self._bold = bold
        self._ellipsis = ellipsis
        self._natural = {column.key: cell_len(column.title) for column in columns}
        self._is_begun = False
        self._as_records = False

    def part(self, rows: Sequence[Row | NamedRow]) -> Iterator[str]:
        """Yield the lines of the next rows, no narrower than earlier ones, after any heading."""
        values = by_column(self._columns, rows)
        texts = {c.key: _texts(c, v, rows) for c, v in zip(self._columns, values, strict=True)}
        for key, some in texts.items():
            self._natural[key] = max(self._natural[key], *map(_measure(some), some))
        is_first = not self._is_begun
        if is_first:
            self._choose_columns()
            self._is_begun = True
        if self._as_records:
            return self._records(rows, is_first=is_first)
        return self._lines(texts, len(rows), is_first=is_first)

    def _choose_columns(self) -> None:
        while True:
            room = self.width - _GAP * (len(self._columns) - 1)
            if sum(_wanted(c, self._natural[c.key]) for c in self._columns) <= room:
                return
            secondary = [column for column in self._columns if column.secondary]
            if not secondary:
                break
            self._columns.remove(secondary[-1])
            self.left_out.insert(0, secondary[-1])
        least = sum(_least(c, self._natural[c.key]) for c in self._columns)
        if least > room and len(self._columns) > 1:
            self._as_records = True
            # A record has room for everything.
            self._columns, self.left_out = list(self._all), []

    def _lines(
        self, texts: Mapping[str, Sequence[str]], count: int, *, is_first: bool
    ) -> Iterator[str]:
        widths = _widths(self._columns, self._natural, self.width)
        if is_first:
            titles = {column.key: [column.title] for column in self._columns}
            plain = [replace(column, tail=False) for column in self._columns]
            yield from map(self._bold, self._rows(plain, titles, widths, 1))
        yield from self._rows(self._columns, texts, widths, count)

    def _rows(
        self,
        columns: Sequence[Column],
        texts: Mapping[str, Sequence[str]],
        widths: Mapping[str, int],
        count: int,
    ) -> Iterator[str]:
        cells = [_fitted(texts[c.key], c, widths[c.key], self._ellipsis) for c in columns]
        return (line.rstrip() for line in map((" " * _GAP).join, lines_of(cells, count)))

    def _records(self, rows: Sequence[Row | NamedRow], *, is_first: bool) -> Iterator[str]:
        if not is_first:
            yield ""
        yield from record_lines(self._columns, rows, self.width, self._bold)


def natural_width(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Return the width of a table in which no value is cut."""
    values = by_column(columns, rows)
    widths = (
        max(map(cell_len, [column.title, *_texts(column, some, rows)]))
        for column, some in zip(columns, values, strict=True)
    )
    return sum(widths) + _GAP * (len(columns) - 1)


def record_lines(
    columns: Sequence[Column], rows: Iterable[Row | NamedRow], width: int, bold: Bold
) -> Iterator[str]:
    """Yield the lines of items, one field per line. Text wraps; identifiers do not.

    There is an empty line between two items.
    """
    margin = max((cell_len(column.title) for column in columns), default=0) + _GAP
    leads = [bold(c.title) + " " * (margin - cell_len(c.title)) for c in columns]
    for number, row in enumerate(map(as_mapping, rows)):
        if number:
            yield ""
        for column, lead in zip(columns, leads, strict=True):
            for place, line in enumerate(_field_lines(column, row, width - margin)):
                yield ((" " * margin if place else lead) + line).rstrip()


def _field_lines(column: Column, row: Row, width: int) -> list[str]:
    text = blank(column, row) or record_field(row[column.key])
    if column.sql:
        text = shorten_sql(text, _SQL_LINES * max(width, _LEAST_SQL))
    lines = text.split("\n")
    if column.whole:
        return lines
    nested = isinstance(row[column.key], (dict, list, tuple))
    return [part for line in lines for part in _wrapped(line, width, at_commas=nested)]


def _wrapped(text: str, width: int, *, at_commas: bool = False) -> list[str]:
    """Return the lines of a text, broken between words, or where possible only after commas.

    A word that is longer than a line is not broken.
    """
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for part in re.split(r"(?<=,) " if at_commas else " ", text):
        if lines and cell_len(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines += _wrapped(part, width) if at_commas else [part]
    return lines


def _texts(column: Column, values: Sequence[Any], rows: Sequence[Row | NamedRow]) -> list[str]:
    texts = table_cells(values)
    if column.blank:
        mappings = map(as_mapping, rows)
        return [blank(column, row) or text for row, text in zip(mappings, texts, strict=True)]
    return texts


def _measure(texts: Iterable[str]) -> Callable[[str], int]:
    """Return the function that measures these texts; few contain characters of another width."""
    return len if "".join(texts).isascii() else cell_len


def _is_rigid(column: Column) -> bool:
    return column.whole or column.right  # a number that is cut is a wrong number


def _wanted(column: Column, natural: int) -> int:
    """Return the width that a column needs so that secondary ones may be shown beside it."""
    if _is_rigid(column):
        return natural
    comfortable = _COMFORTABLE_SQL if column.sql else _COMFORTABLE
    readable = _READABLE_TAIL if column.tail else _READABLE
    return min(natural, readable if column.secondary else comfortable)


def _least(column: Column, natural: int) -> int:
    least = _LEAST_SQL if column.sql else _LEAST
    return natural if _is_rigid(column) else min(natural, least)


def _widths(columns: Sequence[Column], natural: Mapping[str, int], width: int) -> dict[str, int]:
    """Return the width of each column.

    Primary columns get the room before secondary ones, and statements, which can be shortened in
    their middle, after other columns.
    """
    found = {column.key: _least(column, natural[column.key]) for column in columns}
    room = width - _GAP * (len(columns) - 1) - sum(found.values())
    for wanted in (
        {c.key: _wanted(c, natural[c.key]) for c in columns if not (c.secondary or c.sql)},
        {c.key: _wanted(c, natural[c.key]) for c in columns if c.sql},
        {c.key: _wanted(c, natural[c.key]) for c in columns if c.secondary},
        {c.key: natural[c.key] for c in columns if not c.secondary},
        {c.key: natural[c.key] for c in columns if c.secondary},
    ):
        room -= _widen(found, wanted, room)
    return found


def _widen(widths: dict[str, int], wanted: Mapping[str, int], room: int) -> int:
    """Widen columns to their preferred widths, narrowest first; return the space used."""
    left = max(room, 0)
    keys = sorted(wanted, key=lambda key: wanted[key] - widths[key])
    for number, key in enumerate(keys):
        share = min(wanted[key] - widths[key], left // (len(keys) - number))
        if share > 0:
            widths[key] += share
            left -= share
    return max(room, 0) - left


def _fitted(texts: Sequence[str], column: Column, width: int, ellipsis: str) -> list[str]:
    """Return the texts of a column, each as wide as the column, or wider if it is never cut."""
    measure = _measure(texts)
    if not _is_rigid(column):
        long = {text for text in texts if measure(text) > width}
        short = {text: _shortened(text, column, width, ellipsis) for text in long}
        texts = [short.get(text, text) for text in texts] if long else texts
    if measure is len:
        return [text.rjust(width) if column.right else text.ljust(width) for text in texts]
    spaces = [" " * (width - cell_len(text)) for text in texts]
    pairs = zip(spaces, texts, strict=True) if column.right else zip(texts, spaces, strict=True)
    return list(map("".join, pairs))


def _shortened(text: str, column: Column, width: int, ellipsis: str) -> str:
    if column.sql:
        text = shorten_sql(text, width)
        if cell_len(text) <= width:
            return text
    room = max(width - len(ellipsis), 0)
    if column.tail:
        end = _last_cells(text, room)
        return ellipsis + (end.partition(" / ")[2] or end).lstrip(" /")
    return set_cell_size(text, room).rstrip() + ellipsis


def _last_cells(text: str, room: int) -> str:
    """Return as much of the end of a text as fits."""
    start = max(len(text) - room, 0)  # a character takes at least one cell, but for combining ones
    while cell_len(text[start:]) > room:
        start += 1
    return text[start:]
