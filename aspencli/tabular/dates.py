"""Dates in files and options.

In files and options, a date is YYYY-MM-DD, or words such as ``2 days ago``
(`aspencli.tabular.day_words`); in files also the format that the operator gives. For other
spellings in files, a likely meaning is suggested. Options also take unambiguous ones, such as ``17
May 2023``, and other words that the old tool understood.

Today is the date in this machine's time zone, or in UTC for what is compared with times in UTC.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.tabular.day_words import EXAMPLES, day_in_words
from aspencli.tabular.table import DamageCount
from aspencli.text import quote

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:T00:00:00)?", re.ASCII)
_PARTS = re.compile(r"[^\W_]+")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CODES = {"yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "m": "%m"}
_CODES |= {"dd": "%d", "d": "%d"}
_TOKEN = re.compile("y{4}|y{2}|m{1,4}|d{1,2}", re.IGNORECASE)
_PART_OF = {"Y": "y", "y": "y", "B": "m", "b": "m", "m": "m", "d": "d"}
_MOST_WORDS = 5  # of a column, to explain
HINT = f"Use YYYY-MM-DD, such as 2023-05-17, or {EXAMPLES}."
"""The next step after an error in a date."""
_EPOCH = dt.date(1899, 12, 30)  # day 0 in spreadsheets
_SERIALS = range(18_000, 80_000)  # 1949 to 2119


@dataclass(frozen=True)
class TypedDay:
    """A date, along with the text it was parsed from."""

    said: str
    day: dt.date

    @property
    def is_exact(self) -> bool:
        """Return True if the text is unambiguous."""
        return self.said == self.day.isoformat()


class DayFormat:
    """A date format such as ``DD.MM.YYYY`` or ``%d.%m.%Y``; ISO 8601 is also accepted.

    Args:
        said: The format, written with the letters Y, M, and D or with strptime codes.

    Raises:
        BadInputError: The format does not name year, month, and day once each.
    """

    def __init__(self, said: str):
        self._said = said
        self._code = (
            said if "%" in said else _TOKEN.sub(lambda found: _CODES[found[0].lower()], said)
        )
        parts = [code for code in re.findall("%(.)", self._code) if code != "%"]
        if sorted(_PART_OF.get(code, code) for code in parts) != ["d", "m", "y"]:
            raise BadInputError(
                f"Invalid value for --date-format: {said!r}",
                hint="Use year, month, and day once each: DD.MM.YYYY, M/D/YY, or DD-MMM-YYYY.",
            )

    def understand(self, text: str) -> tuple[str | None, str | None]:
        """Return the date as ``2023-05-17``, or the reason the text is invalid."""
        found = read_day_or_words(text)
        if found:
            return found, None
        try:
            day = dt.datetime.strptime(text, self._code).date()  # noqa: DTZ007 - a date has no zone
        except ValueError:
            return None, f"{quote(text)} is not a date in the format {self._said}"
        return day.isoformat(), None


class DayNotes(DamageCount):
    """Notes about the dates in a column: how many are in the future, and what words mean."""

    def __init__(self, column: str):
        super().__init__()
        self._column = column
        self._words: dict[str, str] = {}
        self._today = _now().date().isoformat()

    def look_at(self, line: int, day: object, cell: object) -> None:
        """Note a date, written as ``2023-05-17``, and the cell that it was parsed from."""
        if not isinstance(day, str):
            return
        if day > self._today:
            self.add(f"{day} on line {line:,}")
        if cell != day and isinstance(cell, str) and len(self._words) < _MOST_WORDS:
            words = cell.strip()
            if day_in_words(words, _now().date()) is not None:
                self._words[words] = day

    def notes(self) -> list[str]:
        """Return what to know about the dates."""
        found = [f"{self._column}: {quote(cell)} is {day}" for cell, day in self._words.items()]
        if self.number:
            dates = "1 date is" if self.number == 1 else f"{self.number:,} dates are"
            found.append(f"{self._column}: {dates} in the future (the first is {self.first})")
        return found


def read_day(text: str) -> str | None:
    """Return an ISO date, without the midnight that workbooks add; None for anything else."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    try:
        return dt.date.fromisoformat(found[1]).isoformat()
    except ValueError:
        return None


def read_day_or_words(text: str) -> str | None:
    """Return an ISO date for one, or for words relative to today; None for anything else."""
    found = read_day(text)
    if found is not None:
        return found
    day = day_in_words(text, _now().date())
    return None if day is None else day.isoformat()


def _now() -> dt.datetime:
    return dt.datetime.now().astimezone()


def day_flaw(text: str) -> str:
    """Return why a text is not a date, and what it might mean."""
    shown = quote(text)
    meant = meanings(text)
    if not meant:
        return f"{shown} is not a valid date; use YYYY-MM-DD (2023-05-17), {EXAMPLES}"
    days = " or ".join(day.isoformat() for day in meant)
    return f"{shown} is not in the format YYYY-MM-DD; did you mean {days}?"


def meanings(text: str) -> list[dt.date]:
    """Return the dates a text could mean, with year, month, and day in some order."""
    parts = [part.lower() for part in _PARTS.findall(text.partition("T")[0])]
    is_one = len(parts) == 1 and parts[0].isdecimal()
    found = set()
    if is_one and len(parts[0]) < len("20230517") and int(parts[0]) in _SERIALS:
        found.add(_EPOCH + dt.timedelta(days=int(parts[0])))
    if is_one and len(parts[0]) == len("20230517"):
        parts = [parts[0][:4], parts[0][4:6], parts[0][6:]]
    for year, month, day in _orders(parts):
        try:
            found.add(dt.date(_century(_number(year)), _month(month), _number(day)))
        except ValueError:
            continue
    return sorted(found)


def _orders(parts: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yield what could be year, month, and day."""
    if len(parts) != 3:  # noqa: PLR2004 - year, month, and day
        return
    one, two, three = parts
    named = next((part for part in parts if part.isalpha() and _month(part)), None)
    if named:
        parts.remove(named)
        yield parts[0], named, parts[1]
        yield parts[1], named, parts[0]
    elif len(one) == len("2023"):
        yield one, two, three
    else:
        yield three, one, two
        yield three, two, one


def _month(part: str) -> int:
    named = (number for number, name in enumerate(_MONTHS, 1) if part.startswith(name))
    return next(named, 0) if part.isalpha() else _number(part)


def _number(part: str) -> int:
    return int(part) if part.isdecimal() and len(part) <= len("2023") else 0


def _century(year: int) -> int:
    return year + 2000 if year < 100 else year  # noqa: PLR2004 - two digits


def understand_day(said: str, now: dt.datetime | None = None) -> TypedDay:
    """Parse a date such as ``2023-05-17``, ``17 May 2023``, or ``2 days ago``.

    Raises:
        BadInputError: The text is not a date, or is ambiguous.
    """
    text = said.strip()
    exact = read_day(text)
    if exact is not None:
        return TypedDay(text, dt.date.fromisoformat(exact))
    now = now or _now()
    found = day_in_words(text, now.date())
    if found is None:
        meant = meanings(text)
        found = meant[0] if len(meant) == 1 else None
        if not meant and any(char.isalpha() for char in text):
            found = _by_words(text, now)
    if found is None:
        raise BadInputError(day_flaw(text), hint=HINT)
    return TypedDay(text, found)


def _by_words(text: str, now: dt.datetime) -> dt.date | None:
    import dateparser  # takes a seventh of a second to import

    found = dateparser.parse(
        text,
        languages=["en"],
        settings={
            "STRICT_PARSING": True,  # Reject incomplete dates such as May 2023.
            "PREFER_DATES_FROM": "past",
            "RELATIVE_BASE": now.replace(tzinfo=None),
            "PARSERS": ["relative-time", "absolute-time"],
        },
    )
    return found.date() if found else None
