"""The results of an assistant's calls: limits, what was left out, and personal data."""

from __future__ import annotations

import json

from aspencli.cli.assistant.results import MOST_CHARACTERS, Masking, answer_of
from aspencli.cli.assistant.tools import Listed

PLAIN = Listed(("samples", "list"))


def test_many_rows_are_cut_with_the_number_left_out() -> None:
    answer = answer_of(json.dumps([{"id": number} for number in range(1_234)]), PLAIN, Masking())
    assert len(json.loads(answer.text)) == 500
    assert answer.notes[0].startswith("500 of 1,234 rows shown; 734 left out")


def test_long_rows_are_cut_at_a_number_of_characters() -> None:
    found = [{"text": "x" * 3_000} for _ in range(100)]
    answer = answer_of(json.dumps(found), PLAIN, Masking())
    assert len(answer.text) <= MOST_CHARACTERS
    assert 10 <= len(json.loads(answer.text)) < 100
    assert "left out" in answer.notes[0]


def test_one_long_text_is_cut_and_says_how_long_it_was() -> None:
    answer = answer_of(json.dumps([{"sequence": "A" * 1_000_000}]), PLAIN, Masking())
    assert json.loads(answer.text)[0]["sequence"].endswith("A... (1,000,000 characters)")


def test_log_keeps_its_end() -> None:
    log = "first\n" + "x\n" * MOST_CHARACTERS + "the reason"
    answer = answer_of(log, Listed(("jobs", "logs"), ends=True), Masking())
    assert answer.text.endswith("the reason")
    assert "first" not in answer.text
    assert answer.notes[0].startswith("The first ")


def test_control_characters_in_a_log_are_made_visible() -> None:
    answer = answer_of("one\x1b[2J\ntwo", Listed(("jobs", "logs"), ends=True), Masking(is_off=True))
    assert "\x1b" not in answer.text
    assert answer.text.splitlines()[1] == "two"


def test_personal_data_is_replaced_and_equal_values_stay_equal() -> None:
    masking = Masking()
    found = [
        {"private_identifier": "LAB-1", "uploaded_by": "Ada", "note": "ask Ada@lab.example.org!"},
        {"private_identifier": "LAB-1", "uploaded_by": None, "note": "ada@lab.example.org"},
        {"members": [{"name": "Ada", "role": "admin"}], "name": "The Lab"},
    ]
    listed = Listed(("groups", "show"), personal=frozenset({"members.name"}))
    one, other, group = json.loads(answer_of(json.dumps(found), listed, masking).text)
    assert "LAB-1" not in str((one, other))
    assert one["private_identifier"] == other["private_identifier"]
    assert one["note"] == f"ask {other['note']}!"
    assert other["note"].endswith("@lab.example.org")
    assert other["uploaded_by"] is None
    assert group["name"] == "The Lab"
    assert group["members"][0] == {"name": one["uploaded_by"], "role": "admin"}
    again = answer_of(json.dumps(found), listed, Masking()).text
    assert one["private_identifier"] not in again  # another server, another key


def test_values_in_statements_of_other_sessions_are_replaced() -> None:
    found = [{"pid": 1, "query": "select * from samples where private_identifier = 'LAB-1'"}]
    text = answer_of(json.dumps(found), Listed(("db", "activity")), Masking()).text
    assert "LAB-1" not in text
    assert "private_identifier = '...'" in text


def test_values_in_errors_of_the_database_are_replaced() -> None:
    sql = "select private_identifier::int from samples"
    error = (
        'invalid input syntax for type integer: "LAB-1"\n'
        "  DETAIL:  Key (private_identifier)=(LAB-1) exists.\n"
        '  column "private_identifier"'
    )
    said = Masking().error(error, sql)
    assert "LAB-1" not in said
    assert 'column "private_identifier"' in said
    assert Masking(is_off=True).error(error, sql) == error
