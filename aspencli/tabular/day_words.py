"""Dates in words, relative to today: the grammar for every option and every cell with a date.

======================================  ==================================================
``today``, ``yesterday``, ``tomorrow``
``7 days ago``, ``2 weeks ago``         also months and years; ``a`` and ``one`` to ``ten``
``7d``, ``2w``, ``3mo``, ``1y``         the same, short
``monday``, ``last monday``             the last one before today; also ``mon``
``last week``, ``last month``           a week or a month ago; also years
======================================  ==================================================

Letter case and extra spaces do not matter. A month before March 31 is the last day of February.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re

EXAMPLES = "today, yesterday, 7 days ago (or 7d), or last monday"
"""Examples for help and messages."""
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNTS = {"a": 1, "an": 1} | {word: number for number, word in enumerate(_NUMBERS, 1)}
_UNITS = {"d": "day", "w": "week", "mo": "month", "y": "year"}
_SIMPLE = {"today": 0, "yesterday": -1, "tomorrow": 1}
_WEEKDAYS = [name.lower() for name in ("Mon", "Tues", "Wednes", "Thurs", "Fri", "Satur", "Sun")]
_AGO = re.compile(r"(\d{1,5}|[a-z]+) (day|week|month|year)s? ago", re.ASCII)
_SHORT = re.compile(r"(\d{1,5}) ?(d|w|mo|y)(?: ago)?", re.ASCII)
_LAST = re.compile(r"last (week|month|year)")
_WEEKDAY = re.compile(r"(?:last )?([a-z]{3,9})")
_WEEK = 7
_YEAR = 12  # months


def day_in_words(text: str, today: dt.date) -> dt.date | None:
    """Return the date that words mean on a day; None if they are not in the grammar."""
    words = " ".join(text.lower().split())
    if words in _SIMPLE:
        return _back("day", -_SIMPLE[words], today)
    if found := _AGO.fullmatch(words):
        number = int(found[1]) if found[1].isdigit() else _COUNTS.get(found[1])
        return None if number is None else _back(found[2], number, today)
    if found := _SHORT.fullmatch(words):
        return _back(_UNITS[found[2]], int(found[1]), today)
    if found := _LAST.fullmatch(words):
        return _back(found[1], 1, today)
    if found := _WEEKDAY.fullmatch(words):
        weekday = _weekday(found[1])
        if weekday is not None:
            return _back("day", (today.weekday() - weekday - 1) % _WEEK + 1, today)
    return None


def _weekday(name: str) -> int | None:
    """Return the number of a weekday, from its name or the first three letters."""
    names = (number for number, stem in enumerate(_WEEKDAYS) if name in {f"{stem}day", stem[:3]})
    return next(names, None)


def _back(unit: str, number: int, today: dt.date) -> dt.date | None:
    try:
        if unit in {"day", "week"}:
            return today - dt.timedelta(days=number * (_WEEK if unit == "week" else 1))
        months = today.year * _YEAR + today.month - 1 - number * (_YEAR if unit == "year" else 1)
        year, month = divmod(months, _YEAR)
        last = calendar.monthrange(year, month + 1)[1]
        return dt.date(year, month + 1, min(today.day, last))
    except (OverflowError, ValueError):  # before the year 1
        return None
