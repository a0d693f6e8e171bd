"""Workbooks (.xlsx, .xlsm): one sheet is read as a table, row by row and in constant memory.

SpreadsheetML, ECMA-376 part 1: 18.3 and 18.4 (worksheet), 18.8.30 and 18.8.31 (number formats). A
cell's text is what the spreadsheet shows. Locale-dependent parts are written in one way only: dates
in ISO 8601, decimals with a point, and thousands without separators. Fractions, exponents,
conditions, and scaling are not supported: such numbers are read plainly, which the notes say.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache
from typing import IO, Self

from aspencli.errors import BadInputError
from aspencli.tabular.damage import Unusable, shown
from aspencli.tabular.source import Opened
from aspencli.tabular.table import DamageCount, Fault, Record, Table
from aspencli.tabular.xlsx_package import (
    KINDS,
    LARGEST_SHEET,
    TRUE,
    Attributes,
    Book,
    Package,
    Reader,
    Strings,
)

_MOST_ROWS, _MOST_COLUMNS = 1_048_576, 16_384
_DIGITS = "0123456789"
_TOKEN = re.compile(
    r"""
      "(?P<quoted>[^"]*)"   | \\(?P<escaped>.)      # text
    | _(?P<space>.)         | \*(?P<fill>.)         # white space
    | \[(?P<bracket>[^\]]*)\]                       # a color, a currency, a condition
    | (?P<general>General|@)
    | (?P<power>E[+-])
    | (?P<place>[0#?])                              # the place of a digit
    | (?P<sign>[.,%/;])
    | (?P<other>.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_COLOUR = re.compile(r"black|blue|cyan|green|magenta|red|white|yellow|color ?\d+", re.IGNORECASE)
_CURRENCY = re.compile(r"\$(?P<symbol>[^-]*)(-.*)?")
_MOST_PLACES = 30  # A format may ask for more decimals, but Excel allows 30.
_EXACT = 10**15  # A spreadsheet keeps 15 digits of a number, and sets the rest to zero.
_DAY = 86_400  # seconds

_Token = tuple[str, str]
"""The kind of a token (``place``, ``general``, ``text``, or the sign itself), and its text."""
_UNKNOWN = Unusable(
    "",
    "contains a formula without a stored value",
    "Open the workbook in a spreadsheet program and save it, which stores the values.",
)


@dataclass
class SheetRow:
    """One row of a sheet, counted from 1, up to the last stored cell, with the numbers' formats."""

    number: int
    is_hidden: bool
    cells: list[str] = field(default_factory=list)
    formats: dict[int, CellFormat] = field(default_factory=dict)


@contextmanager
def open_workbook(
    opened: Opened, file: IO[bytes], wanted: str | None = None, skip_lines: int = 0
) -> Iterator[Sheet]:
    """Open one sheet of a workbook in a seekable file.

    It is given by name or number; by default, it is the one shown first when the workbook is
    opened. Rows before its header may be skipped.

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
        texts = book.strings()
        if texts:
            stack.callback(texts.close)
        rows = Rows(package, tab.path, texts, list(book.formats()), book.epoch)
        yield Sheet(opened.name, notes, iter(rows), skip_lines)


class Sheet(Table):
    """A sheet that is being read; its line numbers are row numbers."""

    def __init__(self, name: str, notes: list[str], rows: Iterator[SheetRow], skip_lines: int):
        super().__init__(name, notes, ", ")
        self._remedy: str | None = None
        self._rows = rows
        self._hidden = 0
        self._dates = DamageCount()
        self._plain = DamageCount()
        self._beyond = DamageCount()
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
    def remedy(self) -> str | None:
        """Return what to do about the unusable cells so far; None if there are none."""
        return self._remedy

    def records(self, _fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the rows that are not blank; code that uses a cell checks if it is usable."""
        return self.watched(self._records())

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

    def _look_at(self, row: SheetRow) -> None:
        self._hidden += row.is_hidden
        for column in self.columns:
            if column >= len(row.cells):
                continue  # a column that the template joins from several
            cell, form = row.cells[column], row.formats.get(column)
            if isinstance(cell, Unusable):
                self._remedy = self._remedy or cell.remedy
            elif form and form.is_date:
                if column in self.days:
                    continue  # A date is expected here.
                self._dates.add(f"{name_of(column + 1)}{row.number}")
            elif form and not form.is_followed:
                self._plain.add(f"{name_of(column + 1)}{row.number}")

    def _look_beyond(self, row: SheetRow, width: int) -> None:
        for column, cell in enumerate(row.cells[width:], start=width):
            if cell.strip():
                self._beyond.add(f"{name_of(column + 1)}{row.number}")

    def _add_notes(self) -> None:
        """Add notes about unexpected kinds of cells and hidden rows."""
        kinds = (
            (self._dates, "dates are read in ISO 8601 format"),
            (self._plain, "numbers are read without their cell format"),
            (self._beyond, "cells without a column header are ignored"),
        )
        self.notes += [f"{what}: {count}" for count, what in kinds if count.number]
        if self._hidden:
            self.notes.append(f"hidden rows are also read: {self._hidden:,}")


def _is_blank(row: SheetRow) -> bool:
    return not any(shown(cell).strip() for cell in row.cells)


class Rows(Reader):
    """The rows stored in a sheet; empty ones may be missing.

    The codes are those of the number format of each cell style; dates count from the epoch.
    """

    def __init__(
        self,
        package: Package,
        path: str,
        texts: Strings | None,
        codes: Sequence[str],
        epoch: dt.datetime,
    ):
        super().__init__(package, path)
        self._texts = texts
        self._codes = codes
        self._format = lru_cache(lambda code: CellFormat(code, epoch))
        self._columns: dict[str, int] = {}
        self._done: list[SheetRow] = []
        self._row = SheetRow(0, is_hidden=False)
        self._column = 0
        self._cell: Attributes = {}
        self._value: str | None = None
        self._has_formula = False

    def __iter__(self) -> Iterator[SheetRow]:
        for _piece in self._package.parse(self._path, self._parser, LARGEST_SHEET):
            yield from self._done
            self._done.clear()

    def _start(self, name: str, attributes: Attributes) -> None:
        kind = KINDS.get(name)
        if kind == "c":
            self._begin_cell(attributes)
        elif kind == "f":
            self._has_formula = True
        elif kind == "row":
            self._begin_row(attributes)
        else:
            super()._start(name, attributes)

    def _end(self, name: str) -> None:
        super()._end(name)
        kind = KINDS.get(name)
        if kind in {"v", "is"}:
            self._value = self._text()
        elif kind == "c":
            self._end_cell()
        elif kind == "row":
            self._done.append(self._row)

    def _begin_row(self, attributes: Attributes) -> None:
        given = attributes.get("r", "")
        number = int(given) if given.isascii() and given.isdecimal() else self._row.number + 1
        if not self._row.number < number <= _MOST_ROWS:
            raise self._package.damaged(f"row {number:,} comes after row {self._row.number:,}")
        self._row = SheetRow(number, is_hidden=attributes.get("hidden") in TRUE)
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
            text = self._shared(int(value) if value.isascii() and value.isdecimal() else -1)
        elif kind == "n":
            text = self._number(value)
        elif kind == "b":
            text = "TRUE" if value in TRUE else "FALSE"
        elif kind == "e":
            text = self._unusable(Unusable(value, f"contains the error {value}"))
        else:  # a text, or a date in ISO 8601
            text = value
        self._row.cells.append(text)

    def _shared(self, index: int) -> str:
        if self._texts is None:
            raise self._package.damaged("it contains no shared texts, but a cell refers to one")
        return self._texts[index]

    def _number(self, value: str) -> str:
        style = self._cell.get("s", "0")
        number = int(style) if style.isascii() and style.isdecimal() else 0
        form = self._format(self._codes[number] if number < len(self._codes) else "General")
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


class _NotFollowedError(Exception):
    """The format is not supported."""


class CellFormat:
    """The number format of a cell, from a code such as ``00000`` or ``dd/mm/yyyy``."""

    def __init__(self, code: str, epoch: dt.datetime):
        from openpyxl.styles.numbers import STRIP_RE, is_date_format, is_timedelta_format

        self._epoch = epoch
        self._sections = _sections(code)
        self.is_date = bool(is_date_format(code))
        self._is_duration = bool(is_timedelta_format(code))
        bare = STRIP_RE.sub("", code.split(";", 1)[0]).lower()
        self._has_time = "h" in bare or "s" in bare
        self._has_date = "d" in bare or "y" in bare or not self._has_time

    @property
    def is_followed(self) -> bool:
        """Return True if numbers are read as shown; otherwise they are read plainly."""
        return self.is_date or bool(self._sections)

    def text(self, raw: str) -> str:
        """Return a number, given as it is stored, as it is shown, or an `Unusable`."""
        try:
            number = float(raw)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return Unusable(raw, "contains an invalid number")
        if self.is_date:
            return self._moment(number) or Unusable(raw, "contains an invalid date")
        value = Decimal(f"{number:.15g}")
        if abs(value) >= _EXACT:
            return Unusable(
                _general(value),
                "contains a number of more than 15 digits; spreadsheets keep only 15",
                "Format these cells as text, then enter them again.",
            )
        return self._number(value)

    def _number(self, value: Decimal) -> str:
        sections = self._sections
        if not sections:
            return _general(value)
        if value < 0 and len(sections) > 1:
            return sections[1].text(-value)
        if value == 0 and len(sections) > 2:  # noqa: PLR2004 - the third one is for zero
            return sections[2].text(value)
        shown = sections[0].text(abs(value))
        return f"-{shown}" if value < 0 and re.search("[1-9]", shown) else shown

    def _moment(self, days: float) -> str | None:
        """Return a date in ISO 8601; None if there is none, or the format shows more of it."""
        from openpyxl.utils.datetime import from_excel

        seconds = round(days * _DAY)
        if seconds < 0:
            return None
        if self._is_duration:
            return f"{seconds // 3_600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        try:
            moment: dt.datetime | dt.time = from_excel(seconds / _DAY, self._epoch)
        except (OverflowError, ValueError):
            return None
        if isinstance(moment, dt.time):  # before the first day
            return moment.isoformat() if self._has_time else None
        if self._has_date and self._has_time:
            return moment.isoformat()
        return moment.date().isoformat() if self._has_date else moment.time().isoformat()


def _sections(code: str) -> tuple[_Section, ...]:
    """Return the layouts of positive, negative, and zero values, as far as they differ.

    None are returned if the format is not supported.
    """
    try:
        return tuple(map(_Section.of, _split(code)[:3]))
    except _NotFollowedError:
        return ()


def _general(value: Decimal) -> str:
    """Return a number without a format: all of its digits, and no exponent."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class _Section:
    """The layout of numbers in one section of a format: its tokens before and after the point.

    The number is multiplied by a hundred as often as it has a percent sign.
    """

    whole: tuple[_Token, ...]
    decimals: tuple[_Token, ...] | None
    percent: int

    @classmethod
    def of(cls, tokens: Sequence[_Token]) -> Self:
        kinds = [kind for kind, _text in tokens]
        places = [index for index, kind in enumerate(kinds) if kind in {"place", "general"}]
        if not tokens or kinds.count(".") > 1 or kinds.count("general") > 1 or "/" in kinds:
            raise _NotFollowedError
        if any(kind == "," and index > places[-1] for index, kind in enumerate(kinds) if places):
            raise _NotFollowedError  # It shows thousands or millions.
        shown = [token for token in tokens if token[0] != ","]
        point = shown.index((".", ".")) if "." in kinds else None
        decimals = None if point is None else tuple(shown[point + 1 :])
        if decimals and sum(kind == "place" for kind, _text in decimals) > _MOST_PLACES:
            raise _NotFollowedError
        return cls(tuple(shown[:point]), decimals, kinds.count("%"))

    def text(self, value: Decimal) -> str:
        """Format a nonnegative number."""
        places = sum(kind == "place" for kind, _text in self.decimals or ())
        with localcontext(prec=100):
            value *= 100**self.percent
            if any(kind == "general" for kind, _text in self.whole):
                return "".join(_general(value) if k == "general" else t for k, t in self.whole)
            rounded = value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
        whole, _point, decimals = f"{rounded:f}".partition(".")
        shown = _whole(self.whole, "" if whole == "0" else whole)
        if self.decimals is not None:
            shown += "." + _decimals(self.decimals, decimals)
        return shown.strip()


def _split(code: str) -> list[list[_Token]]:
    """Return the tokens of each section."""
    sections: list[list[_Token]] = [[]]
    for match in _TOKEN.finditer(code):
        kind, text = match.lastgroup or "other", match[match.lastgroup or 0]
        if kind == "power":
            raise _NotFollowedError
        if kind == "sign" and text == ";":
            sections.append([])
        elif kind == "sign":
            sections[-1].append((text, text))
        elif kind in {"place", "general"}:
            sections[-1].append((kind, text))
        elif kind == "bracket":
            sections[-1].append(("text", _bracket(text)))
        else:
            sections[-1].append(("text", "" if kind in {"space", "fill"} else text))
    return sections


def _bracket(text: str) -> str:
    currency = _CURRENCY.fullmatch(text)
    if currency:
        return currency["symbol"]
    if _COLOUR.fullmatch(text):
        return ""
    raise _NotFollowedError


def _whole(tokens: Sequence[_Token], digits: str) -> str:
    """Format the digits before the point, right-aligned in the format's places."""
    shown: list[str] = []
    places = sum(kind == "place" for kind, _text in tokens)
    for kind, text in reversed(tokens):
        if kind != "place":
            shown.append(text)
            continue
        places -= 1
        taken = digits if places == 0 else digits[-1:]
        digits = digits[: len(digits) - len(taken)]
        shown.append(taken or _filler(text))
    return "".join(reversed(shown))


def _decimals(tokens: Sequence[_Token], digits: str) -> str:
    """Format the digits after the point; ``#`` omits trailing zeros."""
    places = "".join(text for kind, text in tokens if kind == "place")
    kept = max(len(digits.rstrip("0")), places.rfind("0") + 1)
    left = iter([*digits[:kept], *map(_filler, places[kept:])])
    return "".join(next(left) if kind == "place" else text for kind, text in tokens)


def _filler(place: str) -> str:
    return {"0": "0", "?": " "}.get(place, "")
