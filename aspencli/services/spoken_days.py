"""Parse dates as people type them: exactly if written as year-month-day, else as natural text."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.services.dates import meanings, read_day, why_no_day


@dataclass(frozen=True)
class SpokenDay:
    """A date, along with the text it was parsed from.

    Attributes:
        said: The text.
        day: The date that it means.
    """

    said: str
    day: dt.date

    @property
    def is_exact(self) -> bool:
        """Return True if the text is unambiguous."""
        return self.said == self.day.isoformat()


def understand_day(said: str, now: dt.datetime | None = None) -> SpokenDay:
    """Parse a date such as ``2023-05-17``, ``17 May 2023``, or ``2 days ago``.

    Args:
        said: The text.
        now: The current time; None for this machine's clock.

    Raises:
        BadInputError: The text is not a date, or is ambiguous.
    """
    text = said.strip()
    exact = read_day(text)
    if exact is not None:
        return SpokenDay(text, dt.date.fromisoformat(exact))
    meant = meanings(text)
    found = meant[0] if len(meant) == 1 else None
    if not meant and any(char.isalpha() for char in text):
        found = _by_words(text, now or dt.datetime.now().astimezone())
    if found is None:
        raise BadInputError(why_no_day(text), hint="Write it as year-month-day: 2023-05-17.")
    return SpokenDay(text, found)


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
