from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspencli.tabular.dates import read_day, why_no_day


@given(day=st.dates())
def test_days_are_read_as_iso_has_them(day: dt.date) -> None:
    assert read_day(day.isoformat()) == day.isoformat()
    assert read_day(f"{day.isoformat()}T00:00:00") == day.isoformat()


@given(text=st.text(max_size=20))
def test_whatever_is_no_day_is_told(text: str) -> None:
    if read_day(text) is None:
        assert "\n" not in why_no_day(text)
        assert "YYYY-MM-DD" in why_no_day(text)


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
def test_other_spellings_are_told_as_they_are_understood(text: str, meant: str) -> None:
    assert read_day(text) is None
    assert why_no_day(text).endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    "text", ["2023-02-29", "2023-13-01", "yesterday", "12", "31/31/2024", "Mar 2024", "0", "1e5"]
)
def test_what_could_be_no_day_is_told_so(text: str) -> None:
    assert read_day(text) is None
    assert "is not a valid date" in why_no_day(text)


def test_long_texts_are_cut() -> None:
    assert len(why_no_day("x" * 10_000)) < 200
