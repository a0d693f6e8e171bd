"""Read the rows of a worksheet one by one, in constant memory.

SpreadsheetML, ECMA-376 part 1, 18.3 and 18.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from aspencli.services.unusable import Unusable
from aspencli.services.xlsx.cells import CellFormat
from aspencli.services.xlsx.package import Attributes, Package
from aspencli.services.xlsx.texts import KINDS, Reader

LARGEST_SHEET = 1 << 32  # bytes of XML
_MOST_ROWS, _MOST_COLUMNS = 1_048_576, 16_384
_DIGITS = "0123456789"
_TRUE = frozenset({"1", "true"})


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
            raise self._package.damaged(f"row {number:,} stands after row {self._row.number:,}")
        self._row = Row(number, is_hidden=attributes.get("hidden") in _TRUE)
        self._column = 0

    def _begin_cell(self, attributes: Attributes) -> None:
        letters = attributes.get("r", "").rstrip(_DIGITS)
        column = self._columns.get(letters) or self._column_of(letters)
        cells = self._row.cells
        if not len(cells) < column <= _MOST_COLUMNS:
            raise self._package.damaged(f"row {self._row.number:,} has no order in its cells")
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
            text = self._unusable(Unusable(value, f"holds the error {value}"))
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


_UNKNOWN = Unusable(
    "",
    "holds a formula whose value is not stored",
    "Open the workbook in the spreadsheet program, and save it: then the values are stored, too.",
)


def name_of(column: int) -> str:
    """Return the letters of a column, given its number from 1."""
    letters = ""
    while column:
        column, rest = divmod(column - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
