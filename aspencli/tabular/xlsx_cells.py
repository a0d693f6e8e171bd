"""Text of workbook cells: numbers and dates as they appear in the spreadsheet.

The number formats are those of ECMA-376, part 1, 18.8.30 and 18.8.31. Locale-dependent parts are
written in one way only: dates in ISO 8601, decimals with a point, and thousands without separators.
Fractions, exponents, conditions, and scaling are not supported: such numbers are read plainly.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cached_property
from typing import Self

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
EXACT = 10**15  # A spreadsheet keeps 15 digits of a number, and sets the rest to zero.
_DAY = 86_400  # seconds
# IDs that the standard assigns to East Asian formats, and that openpyxl's list omits.
_ASIAN_DATES = frozenset({27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 55, 56, 57, 58})
_ASIAN_TIMES = frozenset({32, 33, 34, 35})

_Token = tuple[str, str]
"""The kind of a token (``place``, ``general``, ``text``, or the sign itself), and its text."""


class _NotFollowedError(Exception):
    """The format is not supported."""


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
        if self._moments.is_duration:
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
    is_duration: bool = field(default=False)

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


@dataclass(frozen=True)
class NumberFormat:
    """A number format.

    Attributes:
        sections: The layouts of positive, negative, and zero values, as far as they differ; empty
            if the format is not supported.
    """

    sections: tuple[_Section, ...]

    @classmethod
    def of(cls, code: str) -> Self:
        """Parse a format code, such as ``00000`` or ``"LAB-"000``."""
        try:
            return cls(tuple(map(_Section.of, _split(code)[:3])))
        except _NotFollowedError:
            return cls(())

    @property
    def is_followed(self) -> bool:
        """Return True if the format is supported."""
        return bool(self.sections)

    def text(self, value: Decimal) -> str:
        """Return the number as it is shown."""
        if not self.sections:
            return general(value)
        if value < 0 and len(self.sections) > 1:
            return self.sections[1].text(-value)
        if value == 0 and len(self.sections) > 2:  # noqa: PLR2004 - the third one is for zero
            return self.sections[2].text(value)
        shown = self.sections[0].text(abs(value))
        return f"-{shown}" if value < 0 and re.search("[1-9]", shown) else shown


def general(value: Decimal) -> str:
    """Return a number without a format: all of its digits, and no exponent."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True)
class _Section:
    """The layout of numbers in one section of a format.

    Attributes:
        whole: The tokens before the decimal point.
        decimals: The tokens after it, or None if there is no point.
        percent: How many times the number is multiplied by a hundred.
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
                return "".join(general(value) if k == "general" else t for k, t in self.whole)
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
