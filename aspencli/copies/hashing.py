"""The masks of `aspencli.copies.masking` for values that are not in the database: those of files.

They give a text the same hash as the server does, so that names in trees equal those in columns.
"""

from __future__ import annotations

import calendar
import datetime as dt
import hashlib
from typing import TYPE_CHECKING

from aspencli.copies.masking import HASH, PLACE, is_day
from aspencli.copies.rules import FAKE

if TYPE_CHECKING:
    from aspencli.copies.rules import Rules

_EARLIEST, _LATEST = 2, 9_000  # years, within which every date exists after it moved


class Hashes:
    """The key of a copy, and the number of days that its dates move.

    Args:
        rules: The masking rules.
        key: The key, in hexadecimal.
        days: The number of days.
    """

    def __init__(self, rules: Rules, key: str, days: int):
        self._fakes = rules.fakes
        self._prefixes = rules.prefixes
        self._key = hashlib.sha256(key.encode())
        self._days = days

    def __repr__(self) -> str:
        return "Hashes()"

    def masked(self, text: str, rule: str) -> str:
        """Return the hash of a text by a rule: ``hash``, or a kind of fake value."""
        if rule.startswith(FAKE):
            return self._hashed(text, self._fakes[rule.removeprefix(FAKE)])
        if not text:
            return ""
        prefix = self.prefix(text)
        return prefix + self._hashed(text[len(prefix) :], HASH)

    def prefix(self, text: str) -> str:
        """Return the beginning of an identifier that stays, as it is written there."""
        for prefix in self._prefixes:
            if text[: len(prefix)].lower() == prefix.lower():
                return text[: len(prefix)]
        return ""

    def _hashed(self, text: str, form: str) -> str:
        digest = self._key.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return PLACE.sub(lambda found: digest.hexdigest()[: int(found[1])], form)

    def moved(self, text: str) -> str | None:
        """Return the day that a text begins with, moved; None if there is none."""
        if not is_day(text):
            return None
        first = dt.date(int(text[:4]), int(text[5:7]), 1)
        days = dt.timedelta(days=int(text[8:10]) - 1 + self._days)
        return (first + days).isoformat()

    def moved_year(self, value: float) -> float | None:
        """Return a date as a number of years, such as 2021.25, moved; None if it is none."""
        if not _EARLIEST < value < _LATEST:
            return None
        year = int(value)
        day = dt.date(year, 1, 1).toordinal() + (value - year) * _length(year) + self._days
        moved = dt.date.fromordinal(int(day)).year
        begins = dt.date(moved, 1, 1).toordinal()
        return round(moved + (day - begins) / _length(moved), 4)


def _length(year: int) -> int:
    return 366 if calendar.isleap(year) else 365
