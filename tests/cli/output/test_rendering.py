"""Results in every format: exact for programs, and harmless for people."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspencli.cli.output.formats import Column, record_field, table_cells, tsv_cell, write_rows
from aspencli.text import csv_cell, json_text, no_formula, visible

COLUMNS = (Column("id", "Id", right=True), Column("name", "Name"), Column("more", "More"))
# Characters that move the cursor, set colors, break lines, or change the text direction.
UNSAFE = set(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066, 0xFEFF)))
# Text that PostgreSQL can store.
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


class Colour(Enum):
    RED = "red"


def _written(form: str, *rows: dict[str, Any]) -> str:
    stream = io.StringIO()
    write_rows(stream, form, COLUMNS, rows)
    return stream.getvalue()


def _row(name: Any, more: Any = None) -> dict[str, Any]:
    return {"id": 1, "name": name, "more": more, "not asked for": "x"}


def _unescaped_tsv(text: str) -> str:
    pairs = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
    out, rest = "", text
    while rest:
        pair = rest[:2]
        out += pairs.get(pair, rest[0])
        rest = rest[2:] if pair in pairs else rest[1:]
    return out


@pytest.mark.parametrize(
    ("value", "in_json", "in_a_cell"),
    [
        (None, None, ""),
        (True, True, "true"),
        (False, False, "false"),
        (-1.5, -1.5, "-1.5"),
        (dt.date(2023, 5, 17), "2023-05-17", "2023-05-17"),
        (
            dt.datetime(2023, 5, 17, 12, tzinfo=dt.UTC),
            "2023-05-17T12:00:00+00:00",
            "2023-05-17T12:00:00+00:00",
        ),
        (Colour.RED, "red", "red"),
        (["a", 1], ["a", 1], '["a", 1]'),
        ({"a": None}, {"a": None}, '{"a": null}'),
    ],
)
def test_each_value_type_is_rendered_in_every_format(
    value: Any, in_json: Any, in_a_cell: str
) -> None:
    assert json.loads(_written("json", _row(value)))[0]["name"] == in_json
    assert json.loads(_written("jsonl", _row(value)))["name"] == in_json
    read = list(csv.reader(io.StringIO(_written("csv", _row(value)), newline="")))
    assert read == [["id", "name", "more"], ["1", in_a_cell, ""]]
    assert _written("tsv", _row(value)).splitlines()[1] == f"1\t{in_a_cell}\t"


def test_empty_result_is_heading_or_empty_list() -> None:
    assert _written("json") == "[]\n"
    assert _written("jsonl") == ""
    assert _written("csv") == "id,name,more\n"
    assert _written("tsv") == "id\tname\tmore\n"


@settings(deadline=None)  # a busy machine must not fail the test
@given(TEXT)
def test_json_output_round_trips_text(text: str) -> None:
    for form in ("json", "jsonl"):
        written = _written(form, _row(text, {"nested": [text]}))
        assert not set(written) & (UNSAFE - {"\n"})
        read = json.loads(written)
        row = read[0] if form == "json" else read
        assert row == {"id": 1, "name": text, "more": {"nested": [text]}}
    assert len(_written("jsonl", _row(text)).splitlines()) == 1


@settings(deadline=None)  # a busy machine must not fail the test
@given(TEXT, TEXT)
def test_csv_output_keeps_row_and_cell_boundaries(first: str, second: str) -> None:
    written = _written("csv", _row(first, second), _row(second))
    assert not set(written) & (UNSAFE - set("\t\n\r"))
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert [len(row) for row in rows] == [3, 3, 3]
    if not set(first) & (UNSAFE - set("\t\n\r")):
        expected = no_formula(first)
        assert rows[1][1] == expected or visible(expected) != expected


@settings(deadline=None)  # a busy machine must not fail the test
@given(TEXT, TEXT)
def test_tsv_output_keeps_row_and_cell_boundaries(first: str, second: str) -> None:
    written = _written("tsv", _row(first, second))
    assert not set(written) & (UNSAFE - set("\t\n"))
    heading, line, end = written.split("\n")
    assert heading == "id\tname\tmore"
    assert end == ""
    cells = line.split("\t")
    assert len(cells) == 3
    if not set(first) & UNSAFE and visible(first) == first:
        assert _unescaped_tsv(cells[1]) == no_formula(first)


@pytest.mark.parametrize("form", ["csv", "tsv"])
@pytest.mark.parametrize("text", ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "=\x1b[31m"])
def test_csv_and_tsv_output_guard_formulas(form: str, text: str) -> None:
    delimiter = "," if form == "csv" else "\t"
    written = _written(form, _row(text))
    cell = next(csv.DictReader(io.StringIO(written, newline=""), delimiter=delimiter))["name"]
    assert cell.startswith("'")


def test_csv_output_does_not_guard_numbers() -> None:
    assert _written("csv", _row(-1.5)).splitlines()[1] == "1,-1.5,"


def test_csv_cell_quotes_bare_carriage_return() -> None:
    assert csv_cell("a\rb") == '"a\rb"'


@settings(deadline=None)  # a busy machine must not fail the test
@given(TEXT)
def test_table_cell_is_one_line_without_unsafe_characters(text: str) -> None:
    (shown,) = table_cells([text])
    assert not set(shown) & UNSAFE
    assert len(shown.splitlines()) <= 1


def test_unsafe_characters_are_escaped() -> None:
    assert visible("a\x1b[31m\x9b\u202e\u200b\ufeff") == ("a\\x1b[31m\\x9b\\u202e\\u200b\\ufeff")
    assert tsv_cell("a\tb\\\n") == "a\\tb\\\\\\n"
    assert json_text("\x7f\x9b") == '"\\u007f\\u009b"'


def test_no_escaped_character_is_printable_in_python() -> None:
    # Python's Unicode tables change between versions, and printable texts are not searched.
    every = map(chr, range(0x110000))
    unsafe = "\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff"
    assert not [char for char in every if re.match(f"[{unsafe}]", char) and char.isprintable()]


def test_ordinary_unicode_text_is_unchanged() -> None:
    for text in ("Łódź", "李安", "آدا", "🧬", "zero\u200cwidth", "a'b"):
        assert visible(text) == text
        assert csv_cell(text) == text


def test_record_field_shows_one_item_per_line() -> None:
    roles = [{"id": 1, "name": "CZI", "roles": ["admin", "viewer"], "more": None}, {"id": 2}]
    assert record_field(roles) == "id: 1, name: CZI, roles: admin, viewer\nid: 2"
    assert record_field([]) == ""
    assert record_field({"a\x1b": "b\n"}) == "a\\x1b: b\\n"


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
def test_rows_are_streamed_in_every_format(form: str) -> None:
    stream = io.StringIO()
    seen: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3):
            seen.append(len(stream.getvalue()))
            yield _row(f"name {number}")

    write_rows(stream, form, COLUMNS, rows())
    assert seen[0] < seen[1] < seen[2]


VALUES = (
    *("RCPHL-0000001", "a,b", 'q"q', "=1+1", "-1", "tab\there", "back\\slash", "two\nlines", "\r"),
    *("\x1b[31m", "\u202e", "Łódź", "李安", "", None, True, -1.5, 7, dt.date(2023, 5, 17)),
    *(["a", 1], {"a": None}, Colour.RED),
)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("values", [VALUES, VALUES[:1], VALUES[:2], VALUES[-1:]], ids=len)
def test_many_rows_have_same_bytes_as_single_rows(form: str, values: tuple[Any, ...]) -> None:
    rows = [_row(values[n % len(values)], values[n % 5 % len(values)]) for n in range(2_000)]
    empty = _written(form)
    header = empty if form in {"csv", "tsv"} else ""
    bodies = [_written(form, row).removeprefix(header) for row in rows]
    if form == "json":
        bodies = [body.removeprefix("[").removesuffix("\n]\n") for body in bodies]
        assert _written(form, *rows) == "[" + ",".join(bodies) + "\n]\n"
    else:
        assert _written(form, *rows) == header + "".join(bodies)


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("count", [3, 150, 1_234])
def test_rows_before_an_error_are_written(form: str, count: int) -> None:
    stream = io.StringIO()

    def rows() -> Iterator[dict[str, Any]]:
        yield from (_row(f"name {number}") for number in range(count))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_rows(stream, form, COLUMNS, rows())
    assert stream.getvalue().count("name ") == count


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
def test_rows_without_columns_are_counted(form: str) -> None:
    stream = io.StringIO()
    write_rows(stream, form, (), [{}] * 300)
    assert stream.getvalue().count("{}" if form.startswith("json") else "\n") >= 300
