from __future__ import annotations

import gzip
import hashlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from aspencli.changes.cells import read_mapping
from aspencli.errors import BadInputError
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault

H = "private_identifier,public_identifier\n"
PLAIN = f"{H}L-1,N-1\n".encode()


def unexpected(fault: Fault) -> None:
    pytest.fail(f"line {fault.line}: {fault.reason}")


def read(path: Path | str, names: Sequence[str] = (), **options: Any) -> list[tuple[str, str]]:
    with open_table(str(path), **options) as table:
        requests = list(read_mapping(table, unexpected, names))
    return [(request.key, str(request.values[0])) for request in requests]


def notes(path: Path, names: Sequence[str] = ()) -> list[str]:
    with open_table(str(path)) as table:
        list(read_mapping(table, unexpected, names))
        return table.notes


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a path whose name does not reveal the file's format."""
    return tmp_path / "ids.csv"


def workbook() -> bytes:
    book, data = openpyxl.Workbook(), io.BytesIO()
    assert book.active is not None
    for row in (H.strip().split(","), ("L-1", "N-1")):
        book.active.append(row)
    book.save(data)
    return data.getvalue()


# Detected formats and their notes


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (PLAIN, ["read as CSV in UTF-8"]),
        (b"\xef\xbb\xbf" + PLAIN, ["read as CSV in UTF-8"]),
        (PLAIN.replace(b",", b"\t"), ["cells are separated by a tab"]),
        (PLAIN.decode().encode("utf-16"), ["read as UTF-16"]),
    ],
    ids=["CSV", "CSV with a mark", "TSV", "UTF-16"],
)
def test_detected_format_is_always_noted(content: bytes, said: list[str], file: Path) -> None:
    file.write_bytes(content)
    assert read(file) == [("L-1", "N-1")]
    assert notes(file) == said


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;;;"])
def test_excel_sep_line_sets_delimiter_and_is_skipped(line: str, file: Path) -> None:
    file.write_bytes(f"{line}\r\n".encode() + PLAIN.replace(b",", b";"))
    with open_table(str(file)) as table:
        assert [request.line for request in read_mapping(table, unexpected)] == [3]
        assert table.notes == ["cells are separated by a semicolon"]


def test_excel_sep_line_overrides_detected_delimiter(file: Path) -> None:
    file.write_text("sep=;\nprivate_identifier;public_identifier;a,b,c,d\nL-1;N-1;x\n")
    assert read(file) == [("L-1", "N-1")]


# Compressed files


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(PLAIN), ["compressed with gzip"]),
        (gzip.compress(PLAIN[:50]) + gzip.compress(PLAIN[50:]), ["compressed with gzip"]),
        (gzip.compress(PLAIN) + bytes(100), ["compressed with gzip"]),
        (
            gzip.compress(PLAIN.replace(b",", b";")),
            ["compressed with gzip", "cells are separated by a semicolon"],
        ),
        (
            gzip.compress(PLAIN.decode().encode("utf-16")),
            ["compressed with gzip", "read as UTF-16"],
        ),
        (
            gzip.compress(workbook()),
            ["compressed with gzip", "read as a workbook: sheet 'Sheet'"],
        ),
    ],
    ids=["plain", "in two members", "padded", "semicolons", "UTF-16", "workbook"],
)
def test_gzip_files_are_read_and_noted(content: bytes, said: list[str], file: Path) -> None:
    file.write_bytes(content)
    assert read(file) == [("L-1", "N-1")]
    assert notes(file) == said


@pytest.mark.parametrize("rows", [1, 100_000])
def test_truncated_or_damaged_gzip_file_is_refused(rows: int, file: Path) -> None:
    whole = gzip.compress((H + "".join(f"L-{n},N-{n}\n" for n in range(rows))).encode())
    damaged = bytearray(whole)
    damaged[-8] ^= 0xFF  # the checksum
    for content, says in (
        (whole[:-9], "is truncated: the compressed data ends too early"),
        (whole[: len(whole) // 2], "is truncated"),
        (bytes(damaged), "is damaged: the compressed data cannot be decompressed"),
        (whole + b"more", "is damaged"),
        (gzip.compress(whole), "is compressed twice"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadInputError, match=says) as caught:
            read(file)
        assert str(file) in caught.value.message


def test_standard_input_accepts_text_gzip_and_workbook(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (PLAIN, gzip.compress(PLAIN), workbook(), gzip.compress(workbook())):
        raw = io.BufferedReader(io.BytesIO(content))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(raw))
        assert read("-") == [("L-1", "N-1")]


@pytest.mark.parametrize(
    "content",
    [PLAIN * 10_000, gzip.compress(PLAIN), workbook(), gzip.compress(workbook())],
    ids=["plain", "compressed", "workbook", "compressed workbook"],
)
def test_observer_receives_bytes_as_stored(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    digest = hashlib.sha256()
    with open_table(str(file), digest.update) as table:
        list(table.records(lambda _fault: None))
    assert digest.digest() == hashlib.sha256(content).digest()


# Options that apply to other files


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (workbook(), {"encoding": "cp1252"}, "is a workbook, so --encoding does not apply"),
        (workbook(), {"delimiter": ";"}, "is a workbook, so --delimiter does not apply"),
        (PLAIN, {"sheet": "Ids"}, "is a text file, so --sheet does not apply"),
    ],
    ids=["encoding", "delimiter", "sheet"],
)
def test_options_for_other_file_formats_are_refused(
    content: bytes, options: dict[str, str], says: str, file: Path
) -> None:
    file.write_bytes(content)
    with pytest.raises(BadInputError, match=says):
        read(file, **options)


# Headers from elsewhere


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("Lab ID,GISAID", ["Lab ID=private_identifier", "GISAID=public_identifier"]),
        ("LAB  ID ,gisaid", ["lab id = Private_Identifier", " GISAID =PUBLIC_IDENTIFIER"]),
        ("a=b,public_identifier", ["a=b=private_identifier"]),
        ('"Lab\nID",public_identifier', ["Lab ID=private_identifier"]),
    ],
)
def test_map_option_assigns_headers_to_columns(header: str, names: list[str], file: Path) -> None:
    file.write_text(f"{header}\nL-1,N-1\n")
    assert read(file, names) == [("L-1", "N-1")]


def test_map_option_overrides_matching_header(file: Path) -> None:
    file.write_text("private_identifier,Lab ID,public_identifier\nold,L-1,N-1\n")
    names = ["Lab ID=private_identifier"]
    assert read(file, names) == [("L-1", "N-1")]
    assert notes(file, names)[1:] == [
        "ignored columns: private_identifier",
        "values in ignored columns: private_identifier (1)",
    ]


@pytest.mark.parametrize(
    ("names", "says", "hint"),
    [
        (["Lab ID"], "Invalid value for --map: 'Lab ID'", "HEADER=COLUMN"),
        (
            ["=private_identifier"],
            "Invalid value for --map: '=private_identifier'",
            "HEADER=COLUMN",
        ),
        (
            ["Lab ID=name"],
            "Invalid value for --map: 'Lab ID=name'",
            "one of: private_identifier, public_identifier",
        ),
        (["Lab ID=public_identifier"] * 2, "--map names public_identifier more than once", "once"),
        (
            ["Lab-ID=private_identifier"],
            "Invalid value for --map: .* has no column 'Lab-ID'",
            "Did you mean --map 'Lab ID=private_identifier'?",
        ),
        (["Zzz=private_identifier"], "has no column 'Zzz'", "header"),
        (["Twin=private_identifier"], "has more than one column Twin", "different"),
    ],
)
def test_invalid_map_option_is_refused_with_hint(
    names: list[str], says: str, hint: str, file: Path
) -> None:
    file.write_text("Lab ID,Twin,twin,public_identifier\n")
    with pytest.raises(BadInputError, match=says) as caught:
        read(file, names)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (
            "private_identifer,public_identifier",
            "--map private_identifer=private_identifier",
        ),
        (
            "Private ID,Public ID",
            "--map 'Private ID=private_identifier' --map 'Public ID=public_identifier'",
        ),
        (
            "Sample Private Identifier,public_identifier",
            "--map 'Sample Private Identifier=private_identifier'",
        ),
        ("Public IDs,private_identifier", "--map 'Public IDs=public_identifier'"),
        ("Public ID,public_identifier", "--map 'YOUR HEADER=private_identifier'"),
        ("Lab,public_identifier", "--map 'YOUR HEADER=private_identifier'"),
    ],
)
def test_unknown_header_error_suggests_map_options(header: str, options: str, file: Path) -> None:
    file.write_text(f"{header}\nL-1,N-1\n")
    with pytest.raises(BadInputError, match="is not the header of a mapping") as caught:
        read(file)
    assert str(caught.value.hint).endswith(f"To map other names: {options}")


def test_workbook_header_error_names_row(file: Path) -> None:
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active["B4"], book.active["C4"] = "Lab ID", "#REF!"
    book.active["C4"].data_type = "e"
    book.save(file)
    with pytest.raises(BadInputError, match=r"Line 4 of .* is not the header") as caught:
        read(file)
    assert caught.value.details == ("found: (no name), Lab ID, #REF!",)
    assert "private_identifier, public_identifier. To map" in str(caught.value.hint)
