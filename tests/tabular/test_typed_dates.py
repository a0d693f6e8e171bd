"""Dates as people type them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pytest

from aspencli.changes import cells
from aspencli.errors import BadInputError
from aspencli.tabular.dates import DayFormat, DayNotes, understand_day
from aspencli.tabular.day_words import day_in_words

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
    ("words", "day"),
    [
        ("today", "2026-11-25"),  # a Wednesday
        ("Yesterday", "2026-11-24"),
        ("tomorrow", "2026-11-26"),
        ("7 days ago", "2026-11-18"),
        ("1  Day  ago", "2026-11-24"),
        ("two weeks ago", "2026-11-11"),
        ("a month ago", "2026-10-25"),
        ("9 months ago", "2026-02-25"),
        ("ten years ago", "2016-11-25"),
        ("7d", "2026-11-18"),
        ("2 w", "2026-11-11"),
        ("3mo", "2026-08-25"),
        ("1y ago", "2025-11-25"),
        ("0d", "2026-11-25"),
        ("last monday", "2026-11-23"),
        ("Last Wed", "2026-11-18"),
        ("tuesday", "2026-11-24"),
        ("wednesday", "2026-11-18"),
        ("thu", "2026-11-19"),
        ("last week", "2026-11-18"),
        ("last month", "2026-10-25"),
        ("last year", "2025-11-25"),
    ],
)
def test_same_words_are_understood_in_options_and_cells(
    words: str, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(day_in_words(words, NOW.date())) == day
    assert understand_day(words, NOW).day.isoformat() == day
    monkeypatch.setattr("aspencli.tabular.dates._now", lambda: NOW)
    assert cells.day(words) == (day, None)
    assert DayFormat("DD.MM.YYYY").understand(words) == (day, None)


@pytest.mark.parametrize(
    ("today", "words", "day"),
    [
        ("2026-03-31", "1 month ago", "2026-02-28"),
        ("2024-03-31", "1mo", "2024-02-29"),
        ("2024-02-29", "1 year ago", "2023-02-28"),
        ("2026-01-15", "1 month ago", "2025-12-15"),
        ("2026-01-01", "yesterday", "2025-12-31"),
    ],
)
def test_months_and_years_of_different_length(today: str, words: str, day: str) -> None:
    assert str(day_in_words(words, dt.date.fromisoformat(today))) == day


@pytest.mark.parametrize(
    "words",
    ["", "now", "5m", "last", "many days ago", "99999 years ago", "1d2", "day", "mo", "-1d"],
)
def test_other_words_are_not_in_grammar(words: str) -> None:
    assert day_in_words(words, NOW.date()) is None
    value, reason = cells.day(words)
    assert value is None
    assert reason is not None
    assert "YYYY-MM-DD (2023-05-17), today, yesterday, 7 days ago (or 7d)" in reason


def test_words_in_column_are_explained() -> None:
    notes = DayNotes("collection_date")
    day = cells.day("yesterday")[0]
    for line, cell in enumerate(("yesterday", " yesterday ", "2023-05-17"), start=2):
        notes.look_at(line, cells.day(cell.strip())[0], cell)
    assert notes.notes() == [f'collection_date: "yesterday" is {day}']


def test_typed_words_need_no_parser_of_natural_language() -> None:
    script = (
        "import sys; from aspencli.tabular.dates import understand_day\n"
        "understand_day('last monday'); assert 'dateparser' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


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
