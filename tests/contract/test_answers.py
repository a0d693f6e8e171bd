"""The service's answers, compared with those recorded from the live one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api
from tests.contract.answers import (
    RECORDED,
    Answer,
    Difference,
    Verdict,
    matches,
    prepare,
    read_differences,
    read_reasons,
    read_requests,
    replay,
)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded answers are not here")
def test_responses_match_recorded_ones_or_documented_differences(whole: Api) -> None:
    prepare(whole, RECORDED / "rows.sql.gz")
    compared = list(replay(whole, read_requests(RECORDED / "answers.jsonl")))
    assert not [str(one) for one in compared if one.verdict is Verdict.WRONG]
    found = {one.difference for one in compared}
    assert not [one.row for one in read_differences() if one.seen and one not in found]


def test_guide_has_a_row_for_each_difference() -> None:
    rows = read_reasons()
    assert not [one.row for one in read_differences() if one.row not in rows]


@pytest.mark.parametrize(
    ("live", "ours", "same"),
    [
        ({"id": "*"}, {"id": 7}, True),
        ({"id": "*"}, {"id": None}, False),
        ({"id": 7}, {"id": 7, "more": 1}, False),
        ([1, 2, "... 3 in all"], [1, 2, 3], True),
        ([1, 2, "... 3 in all"], [1, 2], False),
        ([1, 2, "... 3 in all"], [1, 3, 2], False),
        ([1, 2], [1], False),
        ("ab ... 6 characters ... yz", "abcxyz", True),
        ("ab ... 6 characters ... yz", "abcdxyz", False),
        (1.0, 1, True),
        (True, 1, False),
        (None, "", False),
    ],
)
def test_shortened_recorded_values_match_full_values(live: Any, ours: Any, same: bool) -> None:
    assert matches(live, ours) is same


def test_documented_difference_explains_only_its_own_deviation() -> None:
    one = Difference(row="", request="", rule="details", keys=("ids",))
    live = Answer(404, None, None, {"error": "gone"})
    assert one.accounts(live, Answer(404, None, None, {"error": "gone", "ids": [1]}))
    assert not one.accounts(live, Answer(404, None, None, {"error": "gone"}))
    assert not one.accounts(live, Answer(404, None, None, {"error": "away", "ids": [1]}))
    assert not one.accounts(live, Answer(400, None, None, {"error": "gone", "ids": [1]}))
