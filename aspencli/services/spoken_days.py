"""Days as people type them: exact where they are written as year-month-day, else understood."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.services.dates import meanings, read_day, why_no_day


@dataclass(frozen=True)
class SpokenDay:
    """A day, and what was typed for it.

    Attributes:
        said: What was typed.
        day: What it means.
    """

    said: str
    day: dt.date

    @property
    def is_exact(self) -> bool:
        """Whether there is nothing in it to misunderstand."""
        return self.said == self.day.isoformat()


def understand_day(said: str, now: dt.datetime | None = None) -> SpokenDay:
    """The day that is meant by ``2023-05-17``, ``17 May 2023`` or ``2 days ago``.

    Args:
        said: What was typed.
        now: When it was; None for now, as the clock of this machine shows it.

    Raises:
        BadInputError: No day is meant, or it might be several.
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
    import dateparser  # a seventh of a second

    found = dateparser.parse(
        text,
        languages=["en"],
        settings={
            "STRICT_PARSING": True,  # what names no day is none: May 2023
            "PREFER_DATES_FROM": "past",
            "RELATIVE_BASE": now.replace(tzinfo=None),
            "PARSERS": ["relative-time", "absolute-time"],
        },
    )
    return found.date() if found else None
