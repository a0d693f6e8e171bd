"""Mappings as laboratories send them, from the command line to the database."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import openpyxl
import pytest

from aspencli.tabular import writers
from aspencli.tabular.reading import open_table
from aspencli.text import guard
from tests.cli.commands.mapping_cases import H
from tests.cli.commands.mapping_lab import Lab

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


def test_workbook_cells_are_read_as_displayed(lab: Lab, group: int, tmp_path: Path) -> None:
    file = tmp_path / "Ids of May.xlsx"
    file.write_bytes(saved(workbook("Lab ID", "Public ID", "who")))
    names = ("--map", "Lab ID=private_identifier", "--map", "public id=public_identifier")
    ended = lab.update(group, str(file), *names, "--yes")
    assert (ended.code, ended.written) == (0, WRITES)
    said = ended.err.splitlines()
    assert said[0] == (
        "Note: read as a workbook: sheet 'Final' (the 1st of 3; not read: 'Notes'; "
        "hidden sheets: 'Old')."
    )
    assert said[1] == "Note: ignored columns: who."


def test_note_about_workbook_precedes_header_error(lab: Lab, group: int, tmp_path: Path) -> None:
    file = tmp_path / "ids.xlsx"
    file.write_bytes(saved(workbook("Private ID", "public_identifier")))
    ended = lab.update(group, str(file), "--yes")
    assert (ended.code, ended.written) == (2, {})
    assert ended.err.startswith("Note: read as a workbook: sheet 'Final'")
    assert "--map 'Private ID=private_identifier'" in ended.err
    ended = lab.update(group, str(file), "--yes", "--sheet", "notes")
    assert ended.err.startswith("Note: read as a workbook: sheet 'Notes' (the 3rd of 3;")


@pytest.mark.parametrize("kind", ["workbook", "gzip", "workbook in gzip"])
def test_stdin_can_be_workbook_or_gzip(kind: str, lab: Lab, group: int) -> None:
    data = saved(workbook("private_identifier", "public_identifier"))
    if kind == "gzip":
        data = f"{H}\nL-1,N-1\nL-2,00042\n".encode()
    ended = lab.update(group, "-", "--yes", stdin=gzip.compress(data) if "gzip" in kind else data)
    assert (ended.code, ended.written) == (0, WRITES)


def test_formula_without_stored_value_is_named_with_remedy(
    lab: Lab, group: int, tmp_path: Path
) -> None:
    book = workbook("private_identifier", "public_identifier")
    book["Final"]["B2"] = '="N-"&1'
    book.save(tmp_path / "ids.xlsx")
    ended = lab.update(group, str(tmp_path / "ids.xlsx"), "--yes")
    assert (ended.code, ended.written) == (2, {})
    assert (
        "line 2: public_identifier: contains a formula without a stored value (cell B2)"
        in ended.err.splitlines()
    )
    assert "→ Open the workbook in a spreadsheet program and save it" in ended.err


def test_damaged_input_file_is_refused_with_hint(lab: Lab, group: int, tmp_path: Path) -> None:
    book = saved(workbook("private_identifier", "public_identifier"))
    text = gzip.compress(f"{H}\nL-1,N-1\n".encode())
    for content in (book[: len(book) // 2], book[:-30], text[:-4]):
        file = tmp_path / "ids.bin"
        file.write_bytes(content)
        ended = lab.update(group, str(file), "--yes")
        assert (ended.code, ended.written, ended.out) == (2, {}, "")
        assert ended.err.startswith(f"Error: {file} is ")
        assert "\n→ " in ended.err


# Reports and rejects


@pytest.mark.parametrize("suffix", ["csv", "json", "xlsx"])
def test_report_format_follows_file_suffix(
    suffix: str, lab: Lab, group: int, tmp_path: Path
) -> None:
    file, report = tmp_path / "ids.csv", tmp_path / f"report.{suffix}"
    file.write_text(f"{H}\nL-1,N-1\n=1+1,@N\n")
    ended = lab.update(group, str(file), "--yes", "--report", str(report))
    assert ended.code == 0
    if suffix == "json":
        rows = [tuple(row.values()) for row in json.loads(report.read_text())]
    elif suffix == "xlsx":
        _header, *rows = openpyxl.load_workbook(report).active.iter_rows(values_only=True)  # type: ignore[union-attr]
    else:
        _header, *rows = map(tuple, csv.reader(report.read_text().splitlines()))
        assert rows == [
            ("2", "L-1", "P-1", "N-1", "updated", ""),
            ("3", "'=1+1", "P-formula", "'@N", "updated", ""),
        ]
        return
    assert rows == [
        (2, "L-1", "P-1", "N-1", "updated", None),
        (3, "=1+1", "P-formula", "@N", "updated", None),
    ]


def test_invalid_report_or_rejects_file_stops_update(lab: Lab, group: int, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text(f"{H}\nL-1,N-1\n")
    for option, name, says in (
        ("--report", "report.pdf", "(choose .csv, .json, or .xlsx)"),
        ("--rejects", "bad.json", "(choose .csv, .tsv, or .xlsx)"),
        ("--rejects", "ids.csv", "would overwrite another file of this run"),
    ):
        ended = lab.update(group, str(file), "--yes", option, str(tmp_path / name))
        assert (ended.code, ended.written) == (2, {})
        assert says in ended.err
        assert list(tmp_path.glob("*.*")) == [file]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx"])
def test_fixed_rejects_file_is_applied(suffix: str, lab: Lab, group: int, tmp_path: Path) -> None:
    file, bad = tmp_path / "ids.csv", tmp_path / f"bad.{suffix}"
    file.write_text(f'{H}\nL-1,N-1\nX-2,00042\n=1+1,\n"L-3,N-3\nL-4,N-1\n')
    ended = lab.update(group, str(file), "--yes", "--rejects", str(bad))
    assert (ended.code, ended.written) == (2, {})
    assert (
        f"3 invalid rows written to {bad}.\n"
        "Not in that file, because they are not rows: 1 invalid line.\n"
    ) in ended.err
    with open_table(str(bad)) as table:
        header = table.header
        rows = [record for _line, record in table.records(lambda _fault: None)]
    assert [(row[0], *row[2:]) for row in rows] == [
        ("3", "X-2", "00042"),
        ("4", "=1+1", ""),
        ("6", "L-4", "N-1"),
    ]
    rows[0][2], rows[1][3], rows[2][3] = "L-2", "-N", "N-4"
    with bad.open("wb") as fixed:
        if suffix == "xlsx":
            writers.write_workbook(fixed, header, rows)
        else:
            with writers.as_text(fixed, "utf-8") as text:
                csv.writer(text, delimiter="\t" if suffix == "tsv" else ",").writerows(
                    [header, *([guard(cell) for cell in row] for row in rows)]
                )
    ended = lab.update(group, str(bad), "--yes", "--rejects", str(tmp_path / "more.csv"))
    assert (ended.code, ended.written) == (0, {"L-2": "00042", "=1+1": "-N", "L-4": "N-4"})
    assert "invalid row" in ended.err


def test_rejects_file_contains_invalid_rows_of_stdin(lab: Lab, group: int, tmp_path: Path) -> None:
    bad = tmp_path / "bad.csv"
    content = f"{H}\nL-1,N-1\nL-2\n".encode()
    ended = lab.update(group, "-", "--dry-run", "--rejects", str(bad), stdin=content)
    assert (ended.code, ended.written) == (2, {})
    assert bad.read_text().splitlines()[1:] == ["3,has too few cells: 1 (the header has 2),L-2"]
