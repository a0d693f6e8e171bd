"""``--jq`` and ``--template``: what they print, and what they say if they do not fit."""

from __future__ import annotations

import io
import json
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from aspencli.cli.main import run
from aspencli.cli.output.console import Output
from aspencli.cli.output.filters import Jq, Template
from aspencli.cli.output.formats import Column, titled
from aspencli.errors import BadInputError

COLUMNS = titled("id", "name", "groups", "aside", "private")
ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "name": "Ada",
        "groups": [{"name": "CZI", "roles": ["admin"]}, {"name": "Lake", "roles": []}],
        "aside": {"x": 1},
        "private": True,
    },
    {"id": 2, "name": 'O\'Neil, "Bob"', "groups": [], "aside": None, "private": False},
]
FIELDS = [column.key for column in COLUMNS]


def _jq(expression: str, *, by_row: bool = False) -> list[str]:
    made = Jq(expression, by_row=by_row, command="aspencli users list")
    return list(made.rows(COLUMNS, ROWS))


def _template(text: str) -> list[str]:
    return list(Template(text, FIELDS).rows(COLUMNS, ROWS))


# jq


@pytest.mark.parametrize(
    ("expression", "lines"),
    [
        (".[].name", ["Ada", 'O\'Neil, "Bob"']),
        ("length", ["2"]),
        (".[0].groups[].name", ["CZI", "Lake"]),
        ("map({id, private})", ['[{"id": 1, "private": true}, {"id": 2, "private": false}]']),
        (".[1].aside", ["null"]),
        (".[] | select(.id > 5)", []),
        (".[] | [.id, .name] | @csv", ['1,"Ada"', '2,"O\'Neil, ""Bob"""']),
    ],
)
def test_jq_prints_texts_raw_and_others_as_json(expression: str, lines: list[str]) -> None:
    assert _jq(expression) == lines


def test_jq_is_applied_to_each_row_of_json_lines() -> None:
    assert _jq(".id + 1", by_row=True) == ["2", "3"]


def test_jq_on_json_lines_takes_constant_memory() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(5_000):
            yield {"id": number, "name": "x" * 1_000}

    columns = titled("id", "name")
    made = Jq("select(.id == 4999).id", by_row=True, command="aspencli samples list")
    tracemalloc.start()
    assert list(made.rows(columns, rows())) == ["4999"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000  # of 5 MB


def test_jq_escapes_control_characters_but_keeps_lines() -> None:
    made = Jq(".[].name", by_row=False, command="x")
    lines = list(made.rows(titled("name"), [{"name": "a\x1b[31m\tb\nc\x9b"}]))
    assert lines == ["a\\x1b[31m\tb\nc\\x9b"]


def test_syntax_error_of_jq_shows_its_place_and_the_manual() -> None:
    with pytest.raises(BadInputError) as caught:
        _jq(".[")
    error = caught.value
    assert error.message.startswith("Invalid value for --jq: syntax error, unexpected end of file")
    assert error.details == ("    .[", "     ^")
    assert "https://jqlang.org/manual/" in (error.hint or "")


@pytest.mark.parametrize(
    ("by_row", "expression", "hint"),
    [(False, ".name", "a list of rows (id, name, groups,"), (True, ".[0]", "one row (id, name,")],
)
def test_failing_jq_says_its_input_and_where_the_types_are(
    by_row: bool, expression: str, hint: str
) -> None:
    with pytest.raises(BadInputError) as caught:
        _jq(expression, by_row=by_row)
    assert caught.value.message.startswith("The --jq expression failed: Cannot index")
    assert hint in (caught.value.hint or "")
    assert "aspencli schema users list" in (caught.value.hint or "")


def test_missing_jq_package_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jq", None)
    assert run(["target", "list", "--jq", "."]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Error: --jq requires the Python package jq, which is not installed." in err
    assert "python -m pip install 'aspencli[jq]'" in err


# Templates


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (r"{id}:\t{name}", ["1:\tAda", '2:\tO\'Neil, "Bob"']),
        ("{ id }{{x}}", ["1{x}", "2{x}"]),
        ("{groups.name}", ["CZI, Lake", ""]),
        ("{groups.0.roles.0}|{private}", ["admin|true", "|false"]),
        ("{aside}/{aside.x}", ['{"x": 1}/1', "/"]),
        ("{groups|count} {aside|count}", ["2 1", "0 0"]),
        ("{name|json}", ['"Ada"', '"O\'Neil, \\"Bob\\""']),
        ("{name|sh}", ["Ada", "'O'\"'\"'Neil, \"Bob\"'"]),
        ("{name|csv}", ["Ada", '"O\'Neil, ""Bob"""']),
        ("{aside|json}", ['{"x": 1}', "null"]),
        (r"a\\b\nc", ["a\\b\nc", "a\\b\nc"]),
        ("", ["", ""]),
    ],
)
def test_template_prints_a_text_for_each_row(text: str, lines: list[str]) -> None:
    assert _template(text) == lines


def test_whole_row_is_a_dot() -> None:
    assert json.loads(_template("{.|json}")[0]) == ROWS[0]


@pytest.mark.parametrize("text", ["{name.__class__}", "{id.real}", "{name.0}"])
def test_template_reads_no_attributes(text: str) -> None:
    with pytest.raises(BadInputError, match="The template does not fit the result"):
        _template(text)


def test_template_escapes_control_characters_of_data_only() -> None:
    lines = list(Template("\x1b[1m{name}", ["name"]).rows(titled("name"), [{"name": "\x1b[0m"}]))
    assert lines == ["\x1b[1m\\x1b[0m"]


def test_formula_is_guarded_for_spreadsheets() -> None:
    lines = list(Template("{name|csv}", ["name"]).rows(titled("name"), [{"name": "=1+1,2"}]))
    assert lines == ['"\'=1+1,2"']


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{nam}", "Unknown field in --template: nam"),
        ("{nam.x}", "Unknown field in --template: nam"),
        ("{name", "unmatched { at character 1"),
        ("name}", "unmatched } at character 5"),
        ("{}", "an empty placeholder"),
        ("{name|upper}", "unknown filter 'upper'"),
        ("{name|}", "unknown filter ''"),
    ],
)
def test_invalid_template_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadInputError) as caught:
        _template(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_wrong_part_names_those_that_exist() -> None:
    with pytest.raises(BadInputError) as caught:
        _template("{groups.nam}")
    assert caught.value.message == "The template does not fit the result: groups has no part nam."
    assert caught.value.hint == "It has: name, roles."


def test_wrong_part_of_a_document_names_those_that_exist() -> None:
    with pytest.raises(BadInputError) as caught:
        list(Template("{total}", None).document({"totals": {}, "what": "x"}))
    assert caught.value.message.endswith("the result has no part total.")
    assert caught.value.hint == "It has: totals, what."


# In commands


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("--jq", ".[].name"), "local\nrdev\nstaging\nprod\n"),
        (("-o", "jsonl", "--jq", ".safety"), "local\nshared\nshared\nproduction\n"),
        (("--columns", "name", "--jq", ".[0]"), '{"name": "local"}\n'),
        (
            ("--template", "{name}={safety}"),
            "local=local\nrdev=shared\nstaging=shared\nprod=production\n",
        ),
    ],
)
def test_command_prints_what_is_asked_for(
    words: tuple[str, ...], out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["target", "list", *words]) == 0
    assert capsys.readouterr() == (out, "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--jq", ".", "-o", "csv"), "--jq cannot be combined with --output csv."),
        (("--template", "x", "-o", "table"), "--template cannot be combined with --output table."),
        (("--jq", ".", "--template", "x"), "--jq and --template cannot be combined."),
        (("--columns", "name", "--template", "x"), "--columns and --template cannot be combined."),
        (("--template", "{nam}"), "Unknown field in --template: nam"),
        (("--jq", ".name"), "The --jq expression failed: Cannot index array"),
    ],
)
def test_contradicting_options_are_refused(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["target", "list", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, f"Error: {message}" in err) == ("", True), err


@pytest.mark.parametrize("option", ["--jq", "--template"])
def test_command_without_json_refuses_filters(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["auth", "token", option, "."]) == 2
    assert "which has no JSON output" in capsys.readouterr().err


def test_result_of_write_is_not_lost_if_filter_fails() -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output("json", stdout=out, stderr=err)
    output.filter = Jq(".name", by_row=False, command="aspencli users create")
    output.finish_anyway()
    output.rows((Column("id", "Id"),), [{"id": 1}])
    assert json.loads(out.getvalue()) == [{"id": 1}]
    assert err.getvalue().startswith("Warning: The --jq expression failed: ")
