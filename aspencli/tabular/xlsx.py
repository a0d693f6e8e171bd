"""Workbooks (.xlsx, .xlsm): one sheet is read as a table, row by row and in constant memory.

SpreadsheetML, ECMA-376 part 1: 18.2 (workbook), 18.3 and 18.4 (worksheet), 18.8 (styles). The notes
name what is not read, such as other sheets.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import IO

from aspencli.errors import BadInputError
from aspencli.tabular.delimited import Fault
from aspencli.tabular.reading import Reading, Record
from aspencli.tabular.source import Opened
from aspencli.tabular.xlsx_cells import CellFormat, Unusable, shown
from aspencli.tabular.xlsx_package import KINDS, Attributes, Package, Reader, Strings

LARGEST_SHEET = 1 << 32  # bytes of XML
_MOST_ROWS, _MOST_COLUMNS = 1_048_576, 16_384
_DIGITS = "0123456789"
_GLANCE = 1 << 18  # bytes of a sheet to search for its first value
_VALUE = re.compile(rb"<(\w+:)?(v|is)[ />]")
_TRUE = frozenset({"1", "true"})
_SHOWN = frozenset({None, "visible"})
_DAY_ONE = {False: dt.datetime(1899, 12, 30), True: dt.datetime(1904, 1, 1)}  # noqa: DTZ001 - no zone
_OTHERS = (
    ("xl/workbook.bin", "is a binary workbook (.xlsb)"),
    ("content.xml", "is an OpenDocument file (.ods)"),
    ("index/document.iwa", "is a Numbers document"),
)
_UNKNOWN = Unusable(
    "",
    "contains a formula without a stored value",
    "Open the workbook in a spreadsheet program and save it, which stores the values.",
)


@dataclass
class Row:
    """One row of a sheet.

    Attributes:
        number: Its number, from 1.
        cells: The texts of its cells, up to the last stored one.
        is_hidden: True if the spreadsheet hides it.
        formats: The formats of its numbers, by position.
    """

    number: int
    is_hidden: bool
    cells: list[str] = field(default_factory=list)
    formats: dict[int, CellFormat] = field(default_factory=dict)


@dataclass(frozen=True)
class Tab:
    """One sheet of a workbook.

    Attributes:
        title: Its name.
        place: Its position, from 1.
        path: The package part that contains it.
        is_visible: True if the spreadsheet shows it.
    """

    title: str
    place: int
    path: str
    is_visible: bool


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
            raise BadInputError(f"{name} is empty.", hint="Give a sheet with a header and rows.")
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
        self._add_notes()

    def is_reported(self, value: str) -> bool:  # noqa: ARG002 - other tables have such values
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

    def _add_notes(self) -> None:
        """Add notes about unexpected kinds of cells and hidden rows."""
        kinds = (
            (self._dates, "dates are read in ISO 8601 format"),
            (self._plain, "numbers are read without their cell format"),
            (self._beyond, "cells without a column header are ignored"),
        )
        self._notes += [f"{what}: {count}" for count, what in kinds if count.number]
        if self._hidden:
            self.notes.append(f"hidden rows are also read: {self._hidden:,}")


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


class Book:
    """The structure of a workbook.

    Args:
        package: Its parts.

    Raises:
        BadInputError: It is not a workbook.
    """

    def __init__(self, package: Package):
        self._package = package
        parts = {found["kind"]: found["path"] for found in package.relations("")}
        path = parts.get("officeDocument", "xl/workbook.xml")
        if path not in package or path.endswith(".bin"):
            raise self._foreign()
        self._parts = package.relations(path)
        self._epoch = _DAY_ONE[False]
        self._active = 0
        found: list[Attributes] = []
        for element in package.elements(path):
            if element.name == "sheet":
                found.append(element.attributes)
            elif element.name == "workbookPr":
                self._epoch = _DAY_ONE[element.attributes.get("date1904") in _TRUE]
            elif element.name == "workbookView":
                self._active = _number(element.attributes.get("activeTab", ""))
        self.tabs = self._tabs_of(found)

    def choose(self, wanted: str | None) -> Tab:
        """Return the sheet with this name or number; by default the active or first visible one."""
        if wanted is not None:
            return self._named(wanted)
        visible = [tab for tab in self.tabs if tab.is_visible]
        if not visible:
            raise BadInputError(
                f"{self._package.name} has no visible sheet.",
                hint=f"Choose one with --sheet: {self._titles(self.tabs)}."
                if self.tabs
                else "Give a workbook with a sheet.",
            )
        active = [tab for tab in visible if tab.place == self._active + 1]
        return (active or visible)[0]

    def refuse_empty(self, tab: Tab) -> None:
        """Reject a sheet without values if other sheets have some.

        Raises:
            BadInputError: The sheet is empty; the error lists the others.
        """
        if self._has_values(tab):
            return
        others = [other for other in self.tabs if other != tab and self._has_values(other)]
        if others:
            raise BadInputError(
                f"The sheet '{tab.title}' of {self._package.name} is empty; there is data on "
                f"{self._titles(others)}.",
                hint="Choose a sheet: "
                + " or ".join(f"--sheet {shlex.quote(other.title)}" for other in others[:3]),
            )

    def describe(self, tab: Tab) -> str:
        """Describe which sheet it is, and which other sheets there are."""
        hidden = [other for other in self.tabs if other != tab and not other.is_visible]
        unread = [other for other in self.tabs if other != tab and other.is_visible]
        unread = [other for other in unread if self._has_values(other)]
        parts = [f"the {_ordinal(tab.place)} of {len(self.tabs)}"] if len(self.tabs) > 1 else []
        parts += [] if tab.is_visible else ["hidden"]
        parts += [f"not read: {self._titles(unread)}"] if unread else []
        parts += [f"hidden sheets: {self._titles(hidden)}"] if hidden else []
        return f"sheet '{tab.title}'" + (f" ({'; '.join(parts)})" if parts else "")

    def rows(self, tab: Tab, stack: ExitStack) -> Rows:
        """Return the rows of a sheet."""
        strings = self._part("sharedStrings")
        texts = Strings(self._package, strings) if strings else None
        if texts:
            stack.callback(texts.close)
        styles = list(self._styles())
        plain = CellFormat("General", self._epoch)

        def text_at(index: int) -> str:
            if texts is None:
                raise self._package.damaged("it contains no shared texts, but a cell refers to one")
            return texts[index]

        def format_of(style: int) -> CellFormat:
            return styles[style] if style < len(styles) else plain

        return Rows(self._package, tab.path, text_at, format_of)

    def _styles(self) -> Iterator[CellFormat]:
        path = self._part("styles")
        codes: dict[int, str] = {}
        make = lru_cache(lambda number: CellFormat.of(number, codes, self._epoch))
        for element in self._package.elements(path) if path else ():
            about = element.attributes
            if element.name == "numFmt" and element.parent == "numFmts":
                codes[_number(about.get("numFmtId", ""))] = about.get("formatCode", "General")
            elif element.name == "xf" and element.parent == "cellXfs":
                yield make(_number(about.get("numFmtId", "")))

    def _part(self, kind: str) -> str | None:
        paths = [part["path"] for part in self._parts if part["kind"] == kind]
        return paths[0] if paths and paths[0] in self._package else None

    def _tabs_of(self, found: list[Attributes]) -> list[Tab]:
        paths = {part["id"]: part["path"] for part in self._parts if part["kind"] == "worksheet"}
        return [
            Tab(about.get("name", ""), place, paths[about["id"]], about.get("state") in _SHOWN)
            for place, about in enumerate(found, start=1)
            if about.get("id") in paths  # Chart sheets are not worksheets.
        ]

    def _named(self, wanted: str) -> Tab:
        for matches in (
            lambda tab: tab.title == wanted,
            lambda tab: tab.title.casefold() == wanted.strip().casefold(),
            lambda tab: str(tab.place) == wanted.strip(),
        ):
            tabs = [tab for tab in self.tabs if matches(tab)]
            if tabs:
                return tabs[0]
        raise BadInputError(
            f"{self._package.name} has no sheet {wanted!r}",
            hint=f"Sheets: {self._titles(self.tabs)}.",
        )

    def _titles(self, tabs: Sequence[Tab]) -> str:
        return ", ".join(f"'{tab.title}'" for tab in tabs)

    def _has_values(self, tab: Tab) -> bool:
        seen = b""
        if tab.path in self._package:
            for piece in self._package.pieces(tab.path, LARGEST_SHEET):
                seen += piece
                if _VALUE.search(seen) or len(seen) > _GLANCE:
                    return True
        return False

    def _foreign(self) -> BadInputError:
        what = next((words for path, words in _OTHERS if path in self._package), None)
        return BadInputError(
            f"{self._package.name} {what or 'is a zip archive without a workbook'}.",
            hint="Save the sheet as an Excel workbook (.xlsx) or as CSV UTF-8."
            if what
            else "Extract it, then give the file in it.",
        )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _ordinal(number: int) -> str:
    teens = number % 100 in {11, 12, 13}
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


class Rows(Reader):
    """The rows stored in a sheet; empty ones may be missing.

    Args:
        package: The workbook.
        path: The sheet's part.
        text_at: Returns the shared string with a given index.
        format_of: Returns the cell format with a given style index.
    """

    def __init__(
        self,
        package: Package,
        path: str,
        text_at: Callable[[int], str],
        format_of: Callable[[int], CellFormat],
    ):
        super().__init__(package, path)
        self._text_at = text_at
        self._format_of = format_of
        self._columns: dict[str, int] = {}
        self._done: list[Row] = []
        self._row = Row(0, is_hidden=False)
        self._column = 0
        self._cell: Attributes = {}
        self._value: str | None = None
        self._has_formula = False

    def __iter__(self) -> Iterator[Row]:
        for _piece in self._package.parse(self._path, self._parser, LARGEST_SHEET):
            yield from self._done
            self._done.clear()

    def _start(self, name: str, attributes: Attributes) -> None:
        kind = KINDS.get(name)
        if kind == "c":
            self._begin_cell(attributes)
        elif kind == "v" or (kind == "t" and not self._phonetic):
            self._gather()
        elif kind == "f":
            self._has_formula = True
        elif kind == "row":
            self._begin_row(attributes)
        elif kind == "rPh":
            self._phonetic = True

    def _end(self, name: str) -> None:
        kind = KINDS.get(name)
        if kind in {"v", "t"}:
            self._parser.CharacterDataHandler = None
        if kind in {"v", "is"}:
            self._value = self._text()
        elif kind == "c":
            self._end_cell()
        elif kind == "row":
            self._done.append(self._row)
        elif kind == "rPh":
            self._phonetic = False

    def _begin_row(self, attributes: Attributes) -> None:
        given = attributes.get("r", "")
        number = int(given) if given.isascii() and given.isdecimal() else self._row.number + 1
        if not self._row.number < number <= _MOST_ROWS:
            raise self._package.damaged(f"row {number:,} comes after row {self._row.number:,}")
        self._row = Row(number, is_hidden=attributes.get("hidden") in _TRUE)
        self._column = 0

    def _begin_cell(self, attributes: Attributes) -> None:
        letters = attributes.get("r", "").rstrip(_DIGITS)
        column = self._columns.get(letters) or self._column_of(letters)
        cells = self._row.cells
        if not len(cells) < column <= _MOST_COLUMNS:
            raise self._package.damaged(f"the cells of row {self._row.number:,} are out of order")
        if len(cells) < column - 1:
            cells.extend([""] * (column - 1 - len(cells)))
        self._column = column
        self._cell = attributes
        self._value = None
        self._has_formula = False

    def _column_of(self, letters: str) -> int:
        if not letters:
            return self._column + 1
        column = 0
        for letter in letters.upper():
            column = min(column * 26 + ord(letter) - ord("A") + 1, _MOST_COLUMNS + 1)
        self._columns[letters] = column
        return column

    def _end_cell(self) -> None:
        value, kind = self._value, self._cell.get("t", "n")
        if not value:
            text = "" if kind == "str" or not self._has_formula else self._unusable(_UNKNOWN)
        elif kind == "s":
            text = self._text_at(int(value) if value.isascii() and value.isdecimal() else -1)
        elif kind == "n":
            text = self._number(value)
        elif kind == "b":
            text = "TRUE" if value in _TRUE else "FALSE"
        elif kind == "e":
            text = self._unusable(Unusable(value, f"contains the error {value}"))
        else:  # a text, or a date in ISO 8601
            text = value
        self._row.cells.append(text)

    def _number(self, value: str) -> str:
        style = self._cell.get("s", "0")
        form = self._format_of(int(style) if style.isascii() and style.isdecimal() else 0)
        self._row.formats[self._column - 1] = form
        text = form.text(value)
        return self._unusable(text) if isinstance(text, Unusable) else text

    def _unusable(self, cell: Unusable) -> Unusable:
        return cell.at(f"{name_of(self._column)}{self._row.number}")


def name_of(column: int) -> str:
    """Return the letters of a column, given its number from 1."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
