"""Mappings as laboratories send them, from the command line to the database."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import openpyxl
import pytest

from tests.commands.mapping_cases import H
from tests.commands.mapping_lab import Lab

WRITES = {"L-1": "N-1", "L-2": "00042"}


@pytest.fixture
def group(lab: Lab) -> int:
    return lab.group()


def workbook(*header: str) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Final"
    for row in (header, ("L-1", "N-1", "x"), ("L-2", 42, "y")):
        sheet.append(row)
    sheet["B3"].number_format = "00000"
    old = book.create_sheet("Old")
    old.append(("nothing",))
    old.sheet_state = "hidden"
    book.create_sheet("Notes").append(("by the laboratory",))
    return book


def saved(book: openpyxl.Workbook) -> bytes:
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def test_workbook_renames_what_the_person_sees(lab: Lab, group: int, tmp_path: Path) -> None:
    file = tmp_path / "Ids of May.xlsx"
    file.write_bytes(saved(workbook("Lab ID", "Public ID", "who")))
    names = ("--map", "Lab ID=private_identifier", "--map", "public id=public_identifier")
    ended = lab.update(group, str(file), *names, "--yes")
    assert (ended.code, ended.written) == (0, WRITES)
    said = ended.err.splitlines()
    assert said[0] == (
        "Note: read as a workbook: sheet 'Final' (the 1st of 3; not read: 'Notes'; hidden: 'Old')."
    )
    assert said[1] == "Note: further columns ignored: who."


def test_how_it_was_read_is_said_before_a_header_is_refused(
    lab: Lab, group: int, tmp_path: Path
) -> None:
    file = tmp_path / "ids.xlsx"
    file.write_bytes(saved(workbook("Private ID", "public_identifier")))
    ended = lab.update(group, str(file), "--yes")
    assert (ended.code, ended.written) == (2, {})
    assert ended.err.startswith("Note: read as a workbook: sheet 'Final'")
    assert "--map 'Private ID=private_identifier'" in ended.err
    ended = lab.update(group, str(file), "--yes", "--sheet", "notes")
    assert ended.err.startswith("Note: read as a workbook: sheet 'Notes' (the 3rd of 3;")


@pytest.mark.parametrize("kind", ["workbook", "gzip", "workbook in gzip"])
def test_standard_input_may_be_a_workbook_or_compressed(kind: str, lab: Lab, group: int) -> None:
    data = saved(workbook("private_identifier", "public_identifier"))
    if kind == "gzip":
        data = f"{H}\nL-1,N-1\nL-2,00042\n".encode()
    ended = lab.update(group, "-", "--yes", stdin=gzip.compress(data) if "gzip" in kind else data)
    assert (ended.code, ended.written) == (0, WRITES)


def test_cells_without_a_value_are_named_with_a_remedy(
    lab: Lab, group: int, tmp_path: Path
) -> None:
    book = workbook("private_identifier", "public_identifier")
    book["Final"]["B2"] = '="N-"&1'
    book.save(tmp_path / "ids.xlsx")
    ended = lab.update(group, str(tmp_path / "ids.xlsx"), "--yes")
    assert (ended.code, ended.written) == (2, {})
    assert (
        "line 2: public_identifier: holds a formula whose value is not stored (cell B2)"
        in ended.err.splitlines()
    )
    assert "→ Open the workbook in the spreadsheet program, and save it" in ended.err


def test_damaged_files_end_in_words(lab: Lab, group: int, tmp_path: Path) -> None:
    book = saved(workbook("private_identifier", "public_identifier"))
    text = gzip.compress(f"{H}\nL-1,N-1\n".encode())
    for content in (book[: len(book) // 2], book[:-30], text[:-4]):
        file = tmp_path / "ids.bin"
        file.write_bytes(content)
        ended = lab.update(group, str(file), "--yes")
        assert (ended.code, ended.written, ended.out) == (2, {}, "")
        assert ended.err.startswith(f"Error: {file} is ")
        assert "\n→ " in ended.err
