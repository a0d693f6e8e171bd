"""Lists of identifiers as operators have them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from openpyxl import Workbook

from aspencli.errors import BadInputError
from aspencli.samples.keys import IDENTIFIERS
from aspencli.samples.models import KEYS
from aspencli.tabular.identifiers import read_ids


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ids.txt"


def test_identifier_list_is_read_line_by_line_without_duplicates(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfA-1\r\n\n  A 2 \nA-1\nid,x\n")
    found = read_ids(["B", "A-1"], str(file), IDENTIFIERS)
    assert found.ids == ["B", "A-1", "A 2", "id,x"]
    assert found.repeated == 2


def test_identifier_list_may_be_utf_16_or_gzip(file: Path) -> None:
    file.write_bytes("Ä-1\nÄ-2\n".encode("utf-16"))
    assert read_ids([], str(file), IDENTIFIERS).ids == ["Ä-1", "Ä-2"]
    file.write_bytes(gzip.compress(b"A-1\n"))
    assert read_ids([], str(file), IDENTIFIERS).ids == ["A-1"]


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_identifiers_are_read_from_table_column(file: Path, delimiter: str) -> None:
    rows = (
        ("id", "private_identifier", "Public_Identifier"),
        ("7", "A-1", "P/1"),
        ("8", "", "P/2"),
    )
    file.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    assert read_ids([], str(file), IDENTIFIERS).ids == ["A-1", "P/2"]
    assert read_ids([], str(file), KEYS).ids == ["7", "8"]


def test_identifiers_are_read_from_workbook_column(tmp_path: Path) -> None:
    book = Workbook()
    assert book.active is not None
    for row in (("public_identifier", "n"), ("P/1", 1), ("P/2", 2)):
        book.active.append(row)
    book.save(tmp_path / "ids.xlsx")
    assert read_ids([], str(tmp_path / "ids.xlsx"), IDENTIFIERS).ids == ["P/1", "P/2"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "No identifiers given"),
        (b"\n \n", "No identifiers given"),
        (b"A\nB\x1b[1m\n", "line 2: The identifier contains an invisible character: U+001B"),
        (b"A\nB\xff\n", "line 2: byte 0xFF"),
        (b"private_identifier,x\nA,1\n,2\n", "line 3: has no identifier"),
        (b"%PDF-1.7\n", "is a PDF"),
    ],
)
def test_invalid_identifier_file_is_refused_with_reason(
    file: Path, data: bytes, words: str
) -> None:
    file.write_bytes(data)
    with pytest.raises(BadInputError) as caught:
        read_ids([], str(file), IDENTIFIERS)
    assert words in "\n".join([caught.value.message, *caught.value.details])


def test_missing_identifier_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Cannot read"):
        read_ids([], str(tmp_path / "none"), IDENTIFIERS)
