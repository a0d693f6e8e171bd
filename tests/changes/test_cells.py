from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.database.bulk.spec import RowRequest
from aspencli.changes.cells import identifier, read_mapping
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault

H = "private_identifier,public_identifier\n"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x", None),
        ("x" * 128, None),
        ("🧬" * 128, None),
        ("", "is blank"),
        ("x" * 129, "is too long: 129 characters (maximum 128)"),
        ("a\0", "contains a NUL (U+0000) at position 2"),
        ("\x85", "contains a control character (U+0085) at position 1"),
        ("a\rb", "contains a carriage return (U+000D) at position 2"),
        ("hCoV\u201319/USA", "contains U+2013 EN DASH at position 5, which looks like '-'"),
        ("\u0421A-N1", "contains U+0421 CYRILLIC CAPITAL LETTER ES at position 1, which looks"),
        ("\ufffd", "contains a replacement character (U+FFFD): an earlier conversion lost a"),
    ],
)
def test_identifier_check_returns_reason_for_invalid_values(value: str, reason: str | None) -> None:
    _value, found = identifier(value)
    assert found == reason if reason is None else str(found).startswith(reason)


@given(value=st.text(st.characters(codec="utf-8"), max_size=140))
def test_mapping_reader_reports_same_faults_as_identifier_check(
    value: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "one.csv"
    quoted = value.replace('"', '""')
    file.write_text(f'{H}x,"{quoted}"\n', encoding="utf-8", newline="")
    faults: list[Fault] = []
    with open_table(str(file)) as source:
        requests = list(read_mapping(source, faults.append))
    _value, reason = identifier(value.strip(), missing_words=False)
    assert requests == ([] if reason else [RowRequest(2, "x", (value.strip(),))])
    assert faults == ([Fault(2, "public_identifier", reason)] if reason else [])


def test_undecodable_identifier_is_reported_once(tmp_path: Path) -> None:
    file = tmp_path / "latin.csv"
    file.write_bytes(H.encode() + b"\xe9,\n")
    faults: list[Fault] = []
    with open_table(str(file)) as source:
        assert list(read_mapping(source, faults.append)) == []
    assert [(fault.column, fault.reason.split()[0]) for fault in faults] == [
        ("", "byte"),
        ("public_identifier", "is"),
    ]
