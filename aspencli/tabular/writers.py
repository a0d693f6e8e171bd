"""Write tables to files that are safe to open: CSV, JSON, and workbooks, row by row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, cast

from aspencli.text import json_text, no_formula, visible

if TYPE_CHECKING:
    from xlsxwriter import Workbook

Cell = str | int | None
Row = Sequence[Cell]

_SURROGATE = re.compile("[\ud800-\udfff]")  # not encodable in any file
_HEAP = 100  # rows to write at once
_MOST_ROWS = 1_048_576  # per sheet
LONGEST_CELL = 32_767  # characters per workbook cell
_WIDTH = 28  # column width in characters


def write_csv(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write UTF-8 CSV, with an apostrophe before anything a spreadsheet would evaluate (OWASP)."""
    left = chain([columns], map(_guarded, rows))
    while heap := list(islice(left, _HEAP)):  # Writing a text file row by row is slow in Python.
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(heap)
        file.write(text.getvalue().encode())


def write_json(file: IO[bytes], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a list of objects, one per line; control characters are escaped as JSON."""
    lead = "["
    for row in rows:
        line = json_text(dict(zip(columns, row, strict=True)))
        file.write(f"{lead}\n  {line}".encode())
        lead = ","
    file.write(b"[]\n" if lead == "[" else b"\n]\n")


def write_workbook(
    file: IO[bytes],
    columns: Sequence[str],
    rows: Iterable[Row],
    readable: Callable[[str], str] = visible,
) -> None:
    """Write a workbook with every text typed as text, so that nothing is evaluated.

    The header stays visible when scrolling. Rows continue on another sheet when one is full. Each
    text is first passed through ``readable``.
    """
    from xlsxwriter import Workbook
    from xlsxwriter.exceptions import FileCreateError

    left = iter(rows)
    with TemporaryDirectory() as folder:  # holds the sheets while they grow
        path = Path(folder, "book.xlsx")
        book = Workbook(path, {"constant_memory": True, "tmpdir": folder})
        book.use_zip64()
        some = list(islice(left, 1))
        while some or not book.worksheets():
            _write_sheet(book, columns, chain(some, islice(left, _MOST_ROWS - 2)), readable)
            some = list(islice(left, 1))
        try:
            book.close()
        except FileCreateError as error:
            raise OSError(*error.args[0].args) from error
        with path.open("rb") as whole:
            copyfileobj(whole, file)


def _write_sheet(
    book: Workbook, columns: Sequence[str], rows: Iterable[Row], readable: Callable[[str], str]
) -> None:
    sheet, text = book.add_worksheet(), book.add_format({"num_format": "@"})
    sheet.freeze_panes(1, 0)
    sheet.set_column(0, len(columns) - 1, _WIDTH)
    for number, row in enumerate(chain([columns], rows)):
        for place, value in enumerate(row):
            if isinstance(value, str):
                safe = _SURROGATE.sub("\ufffd", readable(value))
                sheet.write_string(number, place, safe, text)
            elif value is not None:
                sheet.write_number(number, place, value)


@contextmanager
def as_text(file: IO[bytes], encoding: str, errors: str = "strict") -> Iterator[IO[str]]:
    """Open a binary file as text, and leave it open afterward."""
    text = io.TextIOWrapper(cast("io.BufferedWriter", file), encoding, errors, newline="")
    try:
        yield text
        text.flush()
    finally:
        text.detach()


WRITERS = {".csv": write_csv, ".json": write_json, ".xlsx": write_workbook}
"""The function that writes each file format, by suffix."""


def _guarded(row: Row) -> list[Cell]:
    return [no_formula(visible(cell)) if isinstance(cell, str) else cell for cell in row]
