from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspencli.tabular.dates import day_flaw, read_day


@given(day=st.dates())
def test_iso_dates_are_read(day: dt.date) -> None:
    assert read_day(day.isoformat()) == day.isoformat()
    assert read_day(f"{day.isoformat()}T00:00:00") == day.isoformat()


@given(text=st.text(max_size=20))
def test_unreadable_date_error_names_expected_format(text: str) -> None:
    if read_day(text) is None:
        assert "\n" not in day_flaw(text)
        assert "YYYY-MM-DD" in day_flaw(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("05/03/2024", "2024-03-05 or 2024-05-03"),
        ("13/03/2024", "2024-03-13"),
        ("03.13.24", "2024-03-13"),
        ("2024/3/5", "2024-03-05"),
        ("20240305", "2024-03-05"),
        ("5 March 2024", "2024-03-05"),
        ("Mar 5, 2024", "2024-03-05"),
        ("5-sep-24", "2005-09-24 or 2024-09-05"),
        ("45356", "2024-03-05"),
        ("2024-03-05T23:59:00", "2024-03-05"),
    ],
)
def test_date_in_other_format_gets_did_you_mean_suggestion(text: str, meant: str) -> None:
    assert read_day(text) is None
    assert day_flaw(text).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    "text", ["2023-02-29", "2023-13-01", "yesterday", "12", "31/31/2024", "Mar 2024", "0", "1e5"]
)
def test_invalid_date_is_reported_as_invalid(text: str) -> None:
    assert read_day(text) is None
    assert "is not a valid date" in day_flaw(text)


def test_date_error_truncates_long_text() -> None:
    assert len(day_flaw("x" * 10_000)) < 200
