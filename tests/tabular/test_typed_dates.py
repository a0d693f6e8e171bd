"""Dates as people type them."""

from __future__ import annotations

import datetime as dt

import pytest

from aspencli.errors import BadInputError
from aspencli.tabular.dates import understand_day

NOW = dt.datetime(2026, 11, 25, 0, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("2023-05-17", "2023-05-17"),
        (" 2023-05-17 ", "2023-05-17"),
        ("2 days ago", "2026-11-23"),
        ("yesterday", "2026-11-24"),
        ("today", "2026-11-25"),
        ("5 minutes ago", "2026-11-24"),
        ("a week ago", "2026-11-18"),
        ("17 May 2023", "2023-05-17"),
        ("May 17, 2023", "2023-05-17"),
        ("17.5.2023", "2023-05-17"),
        ("20230517", "2023-05-17"),
    ],
)
def test_typed_dates_are_understood(said: str, day: str) -> None:
    found = understand_day(said, NOW)
    assert found.day.isoformat() == day
    assert found.is_exact == (said.strip() == day)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("01/02/2026", "did you mean 2026-01-02 or 2026-02-01?"),
        ("May 2023", "is not a valid date"),
        ("2023", "is not a valid date"),
        ("2023-02-30", "is not a valid date"),
        ("soon", "is not a valid date"),
        ("", "is not a valid date"),
        ("12", "is not a valid date"),
    ],
)
def test_invalid_or_ambiguous_typed_dates_are_refused(said: str, words: str) -> None:
    with pytest.raises(BadInputError) as caught:
        understand_day(said, NOW)
    assert words in caught.value.message
