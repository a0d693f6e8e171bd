"""Dates in files and options.

In files only YYYY-MM-DD is read, or the format that the operator gives; for other spellings, a
likely meaning is suggested. In options, dates may also be natural text such as ``2 days ago``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.tabular.damage import DamageCount
from aspencli.text import quote

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:T00:00:00)?", re.ASCII)
_PARTS = re.compile(r"[^\W_]+")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CODES = {"yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "m": "%m"}
_CODES |= {"dd": "%d", "d": "%d"}
_TOKEN = re.compile("y{4}|y{2}|m{1,4}|d{1,2}", re.IGNORECASE)
_PART_OF = {"Y": "y", "y": "y", "B": "m", "b": "m", "m": "m", "d": "d"}
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
        found = read_day(text)
        if found:
            return found, None
        try:
            day = dt.datetime.strptime(text, self._code).date()  # noqa: DTZ007 - a date has no zone
        except ValueError:
            return None, f"{quote(text)} is not a date in the format {self._said}"
        return day.isoformat(), None


class FutureDays(DamageCount):
    """A count of the future dates in a column."""

    def __init__(self, column: str):
        super().__init__()
        self._column = column
        self._today = dt.datetime.now().astimezone().date().isoformat()

    def look_at(self, line: int, day: object) -> None:
        """Count a date, written as ``2023-05-17``, if it is in the future."""
        if isinstance(day, str) and day > self._today:
            self.add(f"{day} on line {line:,}")

    def notes(self) -> list[str]:
        """Return a note about the future dates, if there are any."""
        dates = "1 date is" if self.number == 1 else f"{self.number:,} dates are"
        found = f"{self._column}: {dates} in the future (the first is {self.first})"
        return [found] if self.number else []


def read_day(text: str) -> str | None:
    """Return an ISO date, without the midnight that workbooks add; None for anything else."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    try:
        return dt.date.fromisoformat(found[1]).isoformat()
    except ValueError:
        return None


def day_flaw(text: str) -> str:
    """Return why a text is not a date, and what it might mean."""
    shown = quote(text)
    meant = meanings(text)
    if not meant:
        return f"{shown} is not a valid date; use the format YYYY-MM-DD: 2023-05-17"
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
    meant = meanings(text)
    found = meant[0] if len(meant) == 1 else None
    if not meant and any(char.isalpha() for char in text):
        found = _by_words(text, now or dt.datetime.now().astimezone())
    if found is None:
        raise BadInputError(day_flaw(text), hint="Use the format YYYY-MM-DD: 2023-05-17.")
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
