from __future__ import annotations

import json
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspen.database.bulk.spec import AssessedRow, Problem, RowRequest, ValueChange
from aspencli.changes.cells import read_mapping
from aspencli.changes.report import RENAMES, Rejected, RejectsFile, ReportFile
from aspencli.errors import BadInputError
from aspencli.tabular import writers
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault
from aspencli.text import guard, unguard

H = "private_identifier,public_identifier"


def renamed(before: str | None, after: str) -> tuple[ValueChange, ...]:
    return (ValueChange("public_identifier", before, after),)


ROWS = [
    AssessedRow(2, "=1+1", renamed("@old", "-new"), None, left_out=False),
    AssessedRow(
        4, "00123", renamed(None, "_x0041_"), "private_identifier: no sample", left_out=False
    ),
    AssessedRow(5, "\x1b[31m\uffff", renamed("4", "4\u202e"), None, left_out=False),
]
FAULTS = [Problem(3, "", "has too few cells")]
TOLD: list[tuple[int | str | None, ...]] = [
    (2, "=1+1", "@old", "-new", "updated", None),
    (3, None, None, None, "failed", "has too few cells"),
    (4, "00123", None, "_x0041_", "failed", "private_identifier: no sample"),
]


def report(path: Path, rows: list[AssessedRow], faults: list[Problem]) -> Path:
    with ReportFile(path, RENAMES) as file:
        file.write(rows[:1], [], "from before")
        file.write(rows, faults, "updated")
        return file.publish()


def sheets(path: Path) -> list[list[tuple[object, ...]]]:
    """Return the rows of each sheet as another program reads them; nothing in it is computed."""
    book = openpyxl.load_workbook(path)
    for sheet in book:
        assert sheet.freeze_panes == "A2"
        assert {cell.data_type for row in sheet for cell in row} <= {"s", "n"}
    return [list(sheet.iter_rows(values_only=True)) for sheet in book]


# Reports


def test_json_report_is_list_of_objects_with_exact_values(tmp_path: Path) -> None:
    path = report(tmp_path / "out.json", ROWS, FAULTS)
    text = path.read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    found = json.loads(text)
    assert [tuple(row.values()) for row in found[:3]] == TOLD
    assert (tuple(found[3]), found[3]["private_identifier"]) == (RENAMES.header, "\x1b[31m\uffff")
    assert found[3]["after"] == "4\u202e"
    assert json.loads(report(tmp_path / "none.json", [], []).read_text()) == []


def test_workbook_report_stores_formulas_as_text(tmp_path: Path) -> None:
    ((header, *rows),) = sheets(report(tmp_path / "out.XLSX", ROWS, FAULTS))
    assert header == RENAMES.header
    assert rows[:2] == TOLD[:2]
    # openpyxl does not decode the format's escapes; spreadsheets do, and so do we.
    assert rows[2][3] == "_x005F_x0041_"
    assert rows[3][1:4] == ("\\x1b[31m_xFFFF_", "4", "4\\u202e")
    ((header,),) = sheets(report(tmp_path / "none.xlsx", [], []))
    assert header == RENAMES.header


def test_workbook_report_continues_on_further_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writers, "_MOST_ROWS", 5)
    rows = [AssessedRow(n, f"L-{n}", renamed("a", "b"), None, left_out=False) for n in range(2, 12)]
    found = sheets(report(tmp_path / "out.xlsx", rows, []))
    assert [len(sheet) for sheet in found] == [5, 5, 3]
    assert [row[0] for sheet in found for row in sheet[1:]] == list(range(2, 12))


@pytest.mark.parametrize("name", ["out", "out.txt", "out.xls", "out.csv.gz"])
def test_report_with_unknown_suffix_is_refused_before_any_write(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"(choose \.csv, \.json, or \.xlsx)") as caught:
        ReportFile(tmp_path / "folder" / name, RENAMES)
    assert "out" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


# Rejects


@given(st.text(max_size=4))
def test_unguard_reverses_formula_guard(text: str) -> None:
    assert unguard(guard(text)) == text
    assert not guard(text).startswith(("=", "+", "-", "@"))


def reject(source: Path, place: Path, *problems: Problem) -> tuple[Rejected, list[Fault]]:
    """Reject a mapping's bad rows, and the rows with the given problems."""
    faults: list[Fault] = []
    with RejectsFile(place) as rejects, open_table(str(source)) as table:

        def keep(records):  # type: ignore[no-untyped-def]
            return rejects.keep(table, records)

        list(read_mapping(table, faults.append, (), keep))
        found = [Problem(fault.line, fault.column, fault.reason) for fault in faults]
        return rejects.write(sorted([*found, *problems], key=lambda one: one.line)), faults


def reread(path: Path) -> tuple[list[RowRequest], list[Fault], list[str]]:
    faults: list[Fault] = []
    with open_table(str(path)) as table:
        return list(read_mapping(table, faults.append)), faults, table.notes


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_rejects_file_is_accepted_as_input(suffix: str, delimiter: str, tmp_path: Path) -> None:
    source, place = tmp_path / "ids.txt", tmp_path / f"bad{suffix}"
    rows = [
        ["private_identifier", "note", "public_identifier"],
        ["L-1", "", "N-1"],
        ["00123", "=1+1", "-N"],
        ["'=L-3", '"a\r\n; , \t | b"', "N-3"],
        ["L-4", "é\u2028", ""],
    ]
    source.write_text("\n".join(delimiter.join(row) for row in rows), newline="")
    taken = Problem(3, "public_identifier", 'is held by sample "L-9"')
    gone = Problem(4, "private_identifier", "no sample")
    done, faults = reject(source, place, taken, gone)
    assert (done, faults) == (Rejected(place, 3, 0), [Fault(6, "public_identifier", "is blank")])
    requests, faults, notes = reread(place)
    assert [(one.key, *one.values) for one in requests] == [("00123", "-N"), ("'=L-3", "N-3")]
    assert len(faults) == 1
    assert "ignored columns: line, reason, note" in notes
    said = "a rejects file: apostrophes before =, +, -, @, and ' are removed"
    assert (said in notes) == (suffix != ".xlsx")
    with open_table(str(place)) as table:
        records = [record for _line, record in table.records(faults.append)]
    assert [record[:2] for record in records] == [
        ["3", 'public_identifier: is held by sample "L-9"'],
        ["4", "private_identifier: no sample"],
        ["6", "public_identifier: is blank"],
    ]
    assert [record[3] for record in records] == ["=1+1", "a\r\n; , \t | b", "é\u2028"]


def test_csv_rejects_file_has_bom_and_guards_formulas(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.csv"
    source.write_text(f"{H};x\n=HYPERLINK();é;;y\n".replace(",", ";"))
    reject(source, place)
    data = place.read_bytes().decode("utf-8")
    assert data.startswith("\ufeffline;reason;private_identifier;")
    assert "\r\n2;has too many cells: 4 (the header has 3);'=HYPERLINK();é;;y\r\n" in data


def test_rejects_file_keeps_width_of_irregular_rows(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.xlsx"
    source.write_text(f"{H}\nL-1\nL-2,N-2,x,y\n")
    reject(source, place)
    ((_header, *rows),) = sheets(place)
    assert [row[2:] for row in rows] == [("L-1", None, None, None), ("L-2", "N-2", "x", "y")]


def test_rejects_of_rejects_file_have_reason_columns_once(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.csv"
    source.write_text(f"{H}\nL-1,N-1\nL-2,\n'L-3,\n")
    for problem in (Problem(2, "", "first"), Problem(2, "", "again")):
        done, _faults = reject(source, place, problem)
        assert done.rows == 3
        source = place.rename(tmp_path / "again.csv")
    lines = source.read_text().splitlines()
    assert lines == [
        f"\ufeffline,reason,{H}",
        "2,again,L-1,N-1",
        "3,public_identifier: is blank,L-2,",
        "4,public_identifier: is blank,''L-3,",
    ]


def test_rejects_file_counts_unparsable_lines(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.csv"
    source.write_bytes(H.encode() + b'\nL-1,\xe9\n"L-2,N-2\nL-3,\n')
    done, _faults = reject(source, place)
    assert done == Rejected(place, 2, 1)
    _requests, faults, _notes = reread(place)
    found = [(fault.line, fault.reason.split()[0]) for fault in faults]
    assert found == [(2, "contains"), (3, "is")]
    assert "replacement character" in faults[0].reason


def test_workbook_rejects_preserve_characters_invalid_in_xml(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.xlsx"
    source.write_text(f"{H},note\nL-1,N\x1b1,_x0041_\uffff\n")
    reject(source, place)
    _requests, faults, _notes = reread(place)
    assert faults[0].reason.startswith("contains an escape character (U+001B) at position 2")
    with open_table(str(place)) as table:
        ((_line, record),) = table.records(faults.append)
    assert record[2:] == ["L-1", "N\x1b1", "_x0041_\uffff"]


def test_workbook_rejects_refuse_cell_over_excel_limit(tmp_path: Path) -> None:
    source = tmp_path / "ids.csv"
    source.write_text(f"{H},genome\nL-1,,{'a' * 40_000}\n")
    with pytest.raises(BadInputError, match="A cell on line 2 has 40,000 characters"):
        reject(source, tmp_path / "bad.xlsx")
    assert not (tmp_path / "bad.xlsx").exists()
    assert reject(source, tmp_path / "bad.csv")[0].rows == 1


def test_workbook_rejects_keep_displayed_cell_values(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.xlsx", tmp_path / "bad.xlsx"
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (H.split(","), (123, "#N/A"), ("L-2", "N-2")):
        book.active.append(row)
    book.active["A2"].number_format = "00000"
    book.active["B2"].data_type = "e"
    book.save(source)
    assert reject(source, place)[0].rows == 1
    ((_header, written),) = sheets(place)
    reason = "public_identifier: contains the error #N/A (cell B2)"
    assert written == (2, reason, "00123", "#N/A")


def test_rejects_file_without_rejects_has_only_header(tmp_path: Path) -> None:
    source, place = tmp_path / "ids.csv", tmp_path / "bad.csv"
    source.write_text(f"{H}\nL-1,N-1\n")
    place.write_text("from before")
    assert reject(source, place)[0] == Rejected(place, 0, 0)
    assert place.read_text() == f"\ufeffline,reason,{H}\n"


@pytest.mark.parametrize("name", ["bad", "bad.json", "bad.txt"])
def test_rejects_file_with_unsupported_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"(choose \.csv, \.tsv, or \.xlsx)"):
        RejectsFile(tmp_path / name)
