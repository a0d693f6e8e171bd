"""Convert workbook cells to text: numbers and dates as they appear in the spreadsheet.

The number formats are those of ECMA-376, part 1, 18.8.30 and 18.8.31. Locale-dependent parts are
written in one way only: dates in ISO 8601, decimals with a point, and thousands without separators.

Cells without a usable text, such as those with a spreadsheet error value.
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Self

from aspencli.tabular.xlsx.number_formats import NumberFormat, general


class Unusable(str):
    """A cell without a usable text; it compares as blank unless checked for.

    Args:
        shown: The text that the spreadsheet shows.
        reason: What is wrong with it, as the end of a sentence.
        remedy: What to do about it, if more than fixing the cell.
    """

    __slots__ = ("reason", "remedy", "shown")
    reason: str
    remedy: str | None
    shown: str

    def __new__(cls, shown: str, reason: str, remedy: str | None = None) -> Self:
        """Create a cell whose string value is empty."""
        cell = super().__new__(cls)
        cell.shown, cell.reason, cell.remedy = shown, reason, remedy
        return cell

    def at(self, place: str) -> Self:
        """Return a copy whose reason names the cell."""
        return type(self)(self.shown, f"{self.reason} (cell {place})", self.remedy)


def shown(cell: str) -> str:
    """Return the text that the spreadsheet shows in a cell."""
    return cell.shown if isinstance(cell, Unusable) else cell


EXACT = 10**15  # A spreadsheet keeps 15 digits of a number, and sets the rest to zero.
_DAY = 86_400  # seconds
# IDs that the standard assigns to East Asian formats, and that openpyxl's list omits.
_ASIAN_DATES = frozenset({27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 55, 56, 57, 58})
_ASIAN_TIMES = frozenset({32, 33, 34, 35})


@dataclass(frozen=True)
class CellFormat:
    """The number format of a cell.

    Attributes:
        code: The format code, such as ``00000`` or ``dd/mm/yyyy``.
        epoch: The date that dates count from.
    """

    code: str
    epoch: dt.datetime

    @classmethod
    def of(cls, number: int, codes: dict[int, str], epoch: dt.datetime) -> Self:
        """Return the format with this ID, from the workbook's own formats or the standard's."""
        from openpyxl.styles.numbers import BUILTIN_FORMATS

        if number in codes:
            return cls(codes[number], epoch)
        if number in _ASIAN_DATES:
            return cls("yyyy-mm-dd", epoch)
        if number in _ASIAN_TIMES:
            return cls("h:mm:ss", epoch)
        return cls(BUILTIN_FORMATS.get(number, "General"), epoch)

    @cached_property
    def is_date(self) -> bool:
        """Return True if it shows dates, times, or durations."""
        from openpyxl.styles.numbers import is_date_format

        return bool(is_date_format(self.code))

    @cached_property
    def is_followed(self) -> bool:
        """Return True if numbers are read as shown; otherwise they are read plainly."""
        return self.is_date or self._numbers.is_followed

    def text(self, raw: str) -> str:
        """Return a number as it is shown, or an `Unusable`.

        Args:
            raw: The number as stored in the file.
        """
        try:
            number = float(raw)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            return Unusable(raw, "contains an invalid number")
        if self.is_date:
            return self._moment(number) or Unusable(raw, "contains an invalid date")
        value = Decimal(f"{number:.15g}")
        if abs(value) >= EXACT:
            return Unusable(
                general(value),
                "contains a number of more than 15 digits; spreadsheets keep only 15",
                "Format these cells as text, then enter them again.",
            )
        return self._numbers.text(value)

    @cached_property
    def _numbers(self) -> NumberFormat:
        return NumberFormat.of(self.code)

    @cached_property
    def _moments(self) -> _Moments:
        return _Moments.of(self.code)

    def _moment(self, days: float) -> str | None:
        from openpyxl.utils.datetime import from_excel

        seconds = round(days * _DAY)
        if seconds < 0:
            return None
        if self._moments.elapsed:
            return f"{seconds // 3_600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        try:
            moment = from_excel(seconds / _DAY, self.epoch)
        except (OverflowError, ValueError):
            return None
        return self._moments.text(moment)


@dataclass(frozen=True)
class _Moments:
    """The parts of a date and time that a format shows."""

    date: bool
    time: bool
    elapsed: bool = field(default=False)

    @classmethod
    def of(cls, code: str) -> Self:
        from openpyxl.styles.numbers import STRIP_RE, is_timedelta_format

        bare = STRIP_RE.sub("", code.split(";", 1)[0]).lower()
        time = "h" in bare or "s" in bare
        return cls("d" in bare or "y" in bare or not time, time, bool(is_timedelta_format(code)))

    def text(self, moment: dt.datetime | dt.time) -> str | None:
        """Format in ISO 8601; return None if the format shows a date and the value has none."""
        if isinstance(moment, dt.time):  # before the first day
            return moment.isoformat() if self.time else None
        if self.date and self.time:
            return moment.isoformat()
        return moment.date().isoformat() if self.date else moment.time().isoformat()
