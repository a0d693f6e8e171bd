"""Tables as files that are harmless to open: CSV, JSON and workbooks, written row by row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from openpyxl import Workbook

Cell = str | int | None
Row = Sequence[Cell]

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# What moves a cursor, colours a screen, or turns the direction of writing.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]"
)
# What XML does not allow, and what stands for such characters in a workbook.
_NO_XML = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_MOST_ROWS = 1_048_576  # of a sheet
LONGEST_CELL = 32_767  # characters, in a workbook
_WIDTH = 28  # characters of a column


def visible(text: str) -> str:
    """The text with every control character spelled out."""
    return text if text.isprintable() else _CONTROL.sub(_escape, text)


def write_csv(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write CSV in UTF-8, with an apostrophe before what a spreadsheet would compute (OWASP)."""
    with as_text(file, "utf-8") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(map(_guarded, rows))


def write_json(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a list of objects, one a line; what is escaped reads back as it was."""
    with as_text(file, "utf-8") as text:
        lead = "["
        for row in rows:
            line = json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False)
            text.write(f"{lead}\n  {_CONTROL.sub(_json_escape, line)}")
            lead = ","
        text.write("[]\n" if lead == "[" else "\n]\n")


def write_workbook(
    file: IO[bytes],
    columns: Sequence[str],
    rows: Iterable[Row],
    readable: Callable[[str], str] = visible,
) -> None:
    """Write a workbook whose texts are typed as texts, so that nothing is ever computed.

    Args:
        file: Where to.
        columns: The header; it stays in sight.
        rows: The rows; what is too much for one sheet goes to a further one.
        readable: What is done to each text before.
    """
    from openpyxl import Workbook

    book, left = Workbook(write_only=True), iter(rows)
    some = list(islice(left, 1))
    while some or not book.worksheets:
        _write_sheet(book, columns, chain(some, islice(left, _MOST_ROWS - 2)), readable)
        some = list(islice(left, 1))
    book.save(file)


def _write_sheet(
    book: Workbook, columns: Sequence[str], rows: Iterable[Row], readable: Callable[[str], str]
) -> None:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles.numbers import FORMAT_TEXT
    from openpyxl.utils import get_column_letter

    sheet: Any = book.create_sheet()  # its types leave out the widths of columns
    sheet.freeze_panes = "A2"
    for column in range(1, len(columns) + 1):
        sheet.column_dimensions[get_column_letter(column)].width = _WIDTH
    cells: list[Any] = []  # used for each row anew: making one takes its time
    for row in chain([columns], rows):
        while len(cells) < len(row):
            cells.append(WriteOnlyCell(sheet))
            cells[-1].number_format = FORMAT_TEXT
        for cell, value in zip(cells, row, strict=False):
            cell.value = _xml_text(readable(value)) if isinstance(value, str) else value
            if isinstance(value, str):
                cell.data_type = "s"
        sheet.append(cells[: len(row)])


@contextmanager
def as_text(file: IO[bytes], encoding: str, errors: str = "strict") -> Iterator[IO[str]]:
    """An open file as text; it stays open."""
    text = io.TextIOWrapper(cast("io.BufferedWriter", file), encoding, errors, newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


WRITERS = {".csv": write_csv, ".json": write_json, ".xlsx": write_workbook}
"""How a file is written, by its suffix."""


def _guarded(row: Row) -> list[Cell]:
    return [_harmless(cell) if isinstance(cell, str) else cell for cell in row]


def _harmless(cell: str) -> str:
    safe = visible(cell)
    return f"'{safe}" if safe.startswith(_FORMULA) else safe


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _xml_text(text: str) -> str:
    return _NO_XML.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
