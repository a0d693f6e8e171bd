"""Read one sheet of a workbook (.xlsx, .xlsm) as a table, with notes on what is not read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from aspencli.errors import BadInputError
from aspencli.services.decoding import Fault
from aspencli.services.opening import Opened
from aspencli.services.reading import Reading, Record
from aspencli.services.unusable import Unusable, shown
from aspencli.services.xlsx.book import Book
from aspencli.services.xlsx.package import Package
from aspencli.services.xlsx.rows import Row, name_of


class Sheet(Reading):
    """A sheet that is being read; its line numbers are row numbers.

    Args:
        name: The workbook's name in messages.
        notes: Notes for the operator on how it is read.
        rows: Its rows.
        skip_lines: The number of rows to skip before the header.

    Attributes:
        remedy: What to do about the unusable cells so far; None if there are none.
        delimiter: The delimiter between column names in messages.
    """

    delimiter = ", "

    def __init__(self, name: str, notes: list[str], rows: Iterator[Row], skip_lines: int = 0):
        super().__init__()
        self.name = name
        self._notes = notes
        self.remedy: str | None = None
        self._rows = rows
        self._hidden = 0
        self._dates = _Count()
        self._plain = _Count()
        self._beyond = _Count()
        header = next((row for row in rows if row.number > skip_lines and not _is_blank(row)), None)
        if header is None:
            raise BadInputError(f"{name} is empty", hint="Give a sheet with a header and rows.")
        if skip_lines:
            notes.append(f"rows skipped before the header: {skip_lines:,}")
        self.name_columns([shown(cell) for cell in header.cells])
        while not self.header[-1]:
            self.header.pop()
        self.header_line = header.number

    @property
    def notes(self) -> list[str]:
        """Return notes for the operator on how it was read; complete once all of it is read."""
        return self._notes

    def records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Yield each row that is not blank, as wide as the header, with its number."""
        del fault  # Code that uses a cell checks if it is usable.
        return self.watched(self._records())

    def line_of(self, names: Collection[str]) -> int | None:
        """Return None, because rows cannot be read twice."""
        del names
        return None

    def _records(self) -> Iterator[Record]:
        width, last = len(self.header) - bool(self._joined), self.header_line
        for row in self._rows:
            cells = row.cells
            if len(cells) > width:
                self._look_beyond(row, width)
                del cells[width:]
            if _is_blank(row):
                continue
            if len(cells) < width:
                cells.extend([""] * (width - len(cells)))
            self.blank_lines += row.number - last - 1
            last = row.number
            self._look_at(row)
            yield last, cells
        self._tell()

    def is_told(self, value: str) -> bool:  # noqa: ARG002 - other tables have such values
        """Return False; this kind of table never reports values as faults."""
        return False

    def _look_at(self, row: Row) -> None:
        self._hidden += row.is_hidden
        for column in self.columns:
            if column >= len(row.cells):
                continue  # a column that the template joins from several
            cell, form = row.cells[column], row.formats.get(column)
            if isinstance(cell, Unusable):
                self.remedy = self.remedy or cell.remedy
            elif form and form.is_date:
                if column in self.days:
                    continue  # A date is expected here.
                self._dates.add(row.number, column)
            elif form and not form.is_followed:
                self._plain.add(row.number, column)

    def _look_beyond(self, row: Row, width: int) -> None:
        for column, cell in enumerate(row.cells[width:], start=width):
            if cell.strip():
                self._beyond.add(row.number, column)

    def _tell(self) -> None:
        """Add notes about unexpected kinds of cells and hidden rows."""
        told = (
            (self._dates, "dates are read in ISO 8601"),
            (self._plain, "numbers are read plainly, not as they are formatted"),
            (self._beyond, "cells without a column header are ignored"),
        )
        self._notes += [f"{what}: {count}" for count, what in told if count.number]
        if self._hidden:
            self.notes.append(f"hidden rows are read, too: {self._hidden:,}")


def _is_blank(row: Row) -> bool:
    return not any(shown(cell).strip() for cell in row.cells)


class _Count:
    """A count of cells of one kind, with the position of the first."""

    def __init__(self) -> None:
        self.number = 0
        self._first = ""

    def add(self, row: int, column: int) -> None:
        """Count a cell."""
        self.number += 1
        self._first = self._first or f"{name_of(column + 1)}{row}"

    def __str__(self) -> str:
        return f"{self.number:,} (the first is {self._first})"


@contextmanager
def open_workbook(
    opened: Opened, file: IO[bytes], wanted: str | None = None, skip_lines: int = 0
) -> Iterator[Sheet]:
    """Open one sheet of a workbook.

    Args:
        opened: The file.
        file: Its bytes; must be seekable.
        wanted: The name or number of the sheet; None for the one shown first when the workbook
            is opened.
        skip_lines: The number of rows before the header.

    Raises:
        BadInputError: It is not a workbook, or has no such sheet.
    """
    with ExitStack() as stack:
        package = Package(opened.name, file)
        stack.callback(package.close)
        book = Book(package)
        tab = book.choose(wanted)
        notes = [*opened.notes, f"read as a workbook: {book.describe(tab)}"]
        if wanted is None:
            book.refuse_empty(tab)
        yield Sheet(opened.name, notes, iter(book.rows(tab, stack)), skip_lines)
