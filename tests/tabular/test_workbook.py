from __future__ import annotations

import datetime as dt
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.datetime import CALENDAR_MAC_1904

from aspen.database.bulk.spec import RowRequest
from aspencli.changes.cells import read_mapping
from aspencli.errors import BadInputError
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault

NOON = dt.datetime(2024, 3, 5, 12)  # noqa: DTZ001 - spreadsheets have no time zones
HEADER = ("private_identifier", "public_identifier")
RICH = """<c t="inlineStr"><is><r><rPr><b/></rPr><t>rich</t></r><r><t xml:space="preserve"> text</t>
</r><rPh sb="0" eb="1"><t>kana</t></rPh></is></c>"""
STYLES = "xl/styles.xml"
STRINGS = "xl/sharedStrings.xml"
SHEET = "xl/worksheets/sheet1.xml"


@dataclass
class Reading:
    """The result of reading a mapping."""

    requests: list[RowRequest]
    faults: list[Fault]
    notes: list[str]
    remedy: str | None
    blank_lines: int

    @property
    def rows(self) -> list[tuple[str, str]]:
        return [(request.key, str(request.values[0])) for request in self.requests]


def read(path: Path, sheet: str | None = None) -> Reading:
    faults: list[Fault] = []
    with open_table(str(path), sheet=sheet) as table:
        requests = list(read_mapping(table, faults.append))
        return Reading(requests, faults, table.notes, table.remedy, table.blank_lines)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ids.xlsx"


def save(path: Path, *rows: tuple[Any, ...], **formats: str) -> openpyxl.Workbook:
    """Save a workbook with a header, these rows, and number formats by cell."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADER)
    for row in rows:
        sheet.append(row)
    for place, code in formats.items():
        sheet[place].number_format = code
    book.save(path)
    return book


def rewrite(path: Path, change: Callable[[str, bytes], bytes | None]) -> None:
    """Change the parts of a workbook, and drop those that become None."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            changed = change(name, data)
            if changed is not None:
                archive.writestr(name, changed)


def share(path: Path, texts: bytes) -> None:
    """Add a table of shared strings to a workbook."""
    relations = "xl/_rels/workbook.xml.rels"
    relation = b'<Relationship Id="t" Type="x/sharedStrings" Target="sharedStrings.xml"/></Rel'
    rewrite(
        path, lambda name, part: part.replace(b"</Rel", relation) if name == relations else part
    )
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(STRINGS, texts)


def with_rows(path: Path, rows: str) -> None:
    """Write a workbook whose sheet has the header and these rows of XML."""
    save(path)
    head = "".join(f'<c t="inlineStr"><is><t>{name}</t></is></c>' for name in HEADER)
    data = f"<sheetData><row>{head}</row>{rows}</sheetData>"

    def change(name: str, part: bytes) -> bytes:
        whole = re.sub(r"<sheetData>.*</sheetData>", lambda _: data, part.decode(), flags=re.DOTALL)
        return whole.encode() if name == SHEET else part

    rewrite(path, change)


# Cells as displayed


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        ("00123", "General", "00123"),
        ("00123", "@", "00123"),
        (" 12 ", "General", "12"),
        (1234, "General", "1234"),
        (1234.0, "General", "1234"),
        (0.1 + 0.2, "General", "0.3"),
        (1e-7, "General", "0.0000001"),
        (999_999_999_999_999, "General", "999999999999999"),
        (12, "@", "12"),
        (123, "00000", "00123"),
        (-7, "00000", "-00007"),
        (1234.6, "0", "1235"),
        (-0.4, "0", "0"),
        (1.005, "0.00", "1.01"),
        (1.5, "0.##", "1.5"),
        (1234567, "#,##0", "1234567"),
        (1234.5, '_($* #,##0.00_);_($* \\(#,##0.00\\);_($* "-"??_);_(@_)', "$1234.50"),
        (-5, "0;(0)", "(5)"),
        (0, '0;-0;"none"', "none"),
        (12, '"LAB-"0000', "LAB-0012"),
        (123456789, "000-00-0000", "123-45-6789"),
        (12, "[Red]0000;[Blue]-0", "0012"),
        (2.5, "[$€-407]0.0", "€2.5"),
        (5, 'General" ml"', "5 ml"),
        (0.5, "0%", "50%"),
        (0.1234, "0.0%", "12.3%"),
        (True, "General", "TRUE"),
        (False, "General", "FALSE"),
        (dt.date(2024, 3, 5), "dd/mm/yyyy", "2024-03-05"),
        (dt.date(2024, 3, 1), "mmm-yy", "2024-03-01"),
        (NOON, "m/d/yy h:mm", "2024-03-05T12:00:00"),
        (NOON, "yyyy-mm-dd", "2024-03-05"),
        (dt.time(10, 30), "h:mm AM/PM", "10:30:00"),
        (dt.timedelta(hours=36), "[h]:mm:ss", "36:00:00"),
        (45356, '"day" 0', "day 45356"),
        ("line\x7f", "General", None),
        ("=not a formula", "General", "=not a formula"),
        ("a x005F_ b", "General", "a x005F_ b"),
        ("Ñ-日本/🧬", "General", "Ñ-日本/🧬"),
    ],
)
def test_workbook_cell_is_read_as_displayed(
    value: Any, code: str, text: str | None, path: Path
) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADER)
    cell = sheet.cell(2, 1, value)
    if isinstance(value, str):
        cell.data_type = "s"
    cell.number_format = code
    sheet.cell(2, 2, "x")
    book.save(path)
    reading = read(path)
    assert reading.rows == ([(text, "x")] if text else [])
    assert bool(reading.faults) == (text is None)


@pytest.mark.parametrize(
    ("value", "code"),
    [(0.5, "# ?/?"), (12345, "0.00E+00"), (12345, "0,"), (5, "[>100]0;00"), (5, ";;;")],
)
def test_unsupported_number_formats_are_noted(value: float, code: str, path: Path) -> None:
    save(path, (value, "x"), (value, "y"), A2=code, A3=code)
    reading = read(path)
    assert reading.rows[0] == (f"{value:g}", "x")
    said = "numbers are read without their cell format: 2 (the first is A2)"
    assert said in reading.notes


def test_date_conversion_is_noted_only_for_used_columns(path: Path) -> None:
    day = dt.date(2024, 3, 5)
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append((*HEADER, "collected"))
    sheet.append(("L-1", "N-1", day))
    book.save(path)
    assert not any("ISO 8601" in note for note in read(path).notes)
    sheet.append((day, "N-2", day))
    book.save(path)
    assert "dates are read in ISO 8601 format: 1 (the first is A3)" in read(path).notes


def test_dates_in_1904_date_system_are_read(path: Path) -> None:
    book = save(path, (dt.date(2024, 3, 5), "x"), A2="yyyy-mm-dd")
    book.epoch = CALENDAR_MAC_1904
    book.save(path)
    assert read(path).rows == [("2024-03-05", "x")]


@pytest.mark.parametrize(
    ("number", "code"),
    [(-1, "yyyy-mm-dd"), (99_999_999, "yyyy-mm-dd"), (0.5, "yyyy-mm-dd"), (-0.5, "h:mm")],
)
def test_invalid_dates_are_reported_with_cell(number: float, code: str, path: Path) -> None:
    with_rows(path, f'<row><c s="1"><v>{number}</v></c><c><v>1</v></c></row>')
    styles = (
        f'<styleSheet><numFmts><numFmt numFmtId="200" formatCode="{code}"/></numFmts>'
        '<cellXfs><xf numFmtId="0"/><xf numFmtId="200"/></cellXfs></styleSheet>'
    )
    rewrite(path, {STYLES: styles.encode()}.get)
    assert read(path).faults == [Fault(2, HEADER[0], "contains an invalid date (cell A2)")]


@pytest.mark.parametrize(
    ("number", "text"), [(1, "45357"), (14, "2024-03-05"), (31, "2024-03-05"), (33, "12:00:00")]
)
def test_built_in_number_formats_are_recognized(number: int, text: str, path: Path) -> None:
    with_rows(path, '<row><c s="1"><v>45356.5</v></c><c><v>1</v></c></row>')
    styles = f'<styleSheet><cellXfs><xf/><xf numFmtId="{number}"/></cellXfs></styleSheet>'
    rewrite(path, {STYLES: styles.encode()}.get)
    assert read(path).rows == [(text, "1")]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ('<c t="e"><v>#N/A</v></c>', "contains the error #N/A (cell A2)"),
        ("<c><f>1+1</f></c>", "contains a formula without a stored value (cell A2)"),
        ("<c><f>1+1</f><v></v></c>", "contains a formula without a stored value (cell A2)"),
        ('<c t="str"><f>""</f><v></v></c>', "is blank"),
        ("<c/>", "is blank"),
        (
            "<c><v>12345678901234567</v></c>",
            "contains a number of more than 15 digits; spreadsheets",
        ),
        ("<c><v>1E400</v></c>", "contains an invalid number (cell A2)"),
        ("<c><v>nonsense</v></c>", "contains an invalid number (cell A2)"),
        ('<c t="inlineStr"><is><t>a_x000D_b</t></is></c>', "contains a carriage return (U+000D)"),
        (
            '<c t="inlineStr"><is><t>a\nb</t></is></c>',
            "contains a line feed (U+000A) at position 2",
        ),
    ],
)
def test_cells_without_valid_identifier_are_reported(cell: str, reason: str, path: Path) -> None:
    good = "<row><c><v>1</v></c><c><v>2</v></c></row>"
    with_rows(path, f"<row>{cell}<c><v>2</v></c></row>{good}")
    reading = read(path)
    assert [(fault.line, fault.column) for fault in reading.faults] == [(2, HEADER[0])]
    assert reading.faults[0].reason.startswith(reason)
    assert reading.rows == [("1", "2")]


def test_formula_without_stored_value_is_refused_only_in_used_columns(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append((*HEADER, "note"))
    sheet.append(("L-1", "N-1", "=1+1"))
    book.save(path)
    assert (read(path).faults, read(path).remedy) == ([], None)
    sheet.append(("L-2", "=A3", None))
    book.save(path)
    reading = read(path)
    assert reading.faults == [
        Fault(3, HEADER[1], "contains a formula without a stored value (cell B3)")
    ]
    assert "Open the workbook in a spreadsheet program and save it" in str(reading.remedy)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("<c><f>1+1</f><v>2</v></c>", "2"),
        ('<c t="str"><f>A1&amp;"x"</f><v>00100</v></c>', "00100"),
        ('<c t="b"><f>1=1</f><v>1</v></c>', "TRUE"),
        ('<c t="d"><v>2024-03-05</v></c>', "2024-03-05"),
        ("<c><v>1.2340000000000001E3</v></c>", "1234"),
        (RICH, "rich text"),
        ('<c t="inlineStr"><is><t>_x005F_x000D_</t></is></c>', "_x000D_"),
        ('<c t="inlineStr"><is><t>_xD83E_</t></is></c>', "_xD83E_"),
        ("<c><v>&#49;2</v></c>", "12"),
        ('<c s="999"><v>12</v></c>', "12"),
    ],
)
def test_cells_written_by_other_programs_are_read(cell: str, text: str, path: Path) -> None:
    with_rows(path, f"<row>{cell}<c><v>2</v></c></row>")
    assert read(path).rows == [(text, "2")]


def test_shared_strings_are_read(path: Path) -> None:
    cells = '<row r="{}"><c t="s"><v>{}</v></c><c t="s"><v>{}</v></c></row>'
    with_rows(path, cells.format(2, 0, 1) + cells.format(4, 2, 3))
    shared = (
        '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        "<si><t>L-1</t></si><si><r><t>N</t></r><r><t>-1</t></r><rPh><t>en</t></rPh></si>"
        "<si/><si><t>x005F_é</t></si></sst>"
    )
    share(path, shared.encode())
    reading = read(path)
    assert reading.rows == [("L-1", "N-1")]
    assert reading.faults == [Fault(4, HEADER[0], "is blank")]
    rewrite(path, lambda name, part: part.replace(b"<v>3</v>", b"<v>4</v>"))
    with pytest.raises(BadInputError, match="a cell refers to text 4, which does not exist"):
        read(path)


# Rows and columns


def test_line_numbers_are_sheet_rows(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for place, value in {
        "B3": HEADER[0],
        "D3": HEADER[1],
        "B4": "L-1",
        "D4": "N-1",
        "F4": "aside",
        "B7": "L-2",
        "D7": "N-2",
        "B9": "  ",
        "F9": "far from every row",
    }.items():
        sheet[place] = value
    sheet["Z1000"].number_format = "00000"  # a used range that reaches far beyond the data
    book.save(path)
    reading = read(path)
    assert reading.requests == [RowRequest(4, "L-1", ("N-1",)), RowRequest(7, "L-2", ("N-2",))]
    assert (reading.faults, reading.blank_lines) == ([], 2)
    assert "cells without a column header are ignored: 2 (the first is F4)" in reading.notes
    assert "ignored columns: (no name), (no name)" in reading.notes


def test_merged_cells_have_value_only_in_first_cell(path: Path) -> None:
    book = save(path, ("L-1", "N-1"), (None, "N-2"))
    book.active.merge_cells("A2:A3")  # type: ignore[union-attr]
    book.save(path)
    assert read(path).faults == [Fault(3, HEADER[0], "is blank")]


def test_hidden_rows_are_read_and_noted(path: Path) -> None:
    book = save(path, ("L-1", "N-1"), ("L-2", "N-2"))
    book.active.row_dimensions[3].hidden = True  # type: ignore[union-attr]
    book.save(path)
    reading = read(path)
    assert len(reading.rows) == 2
    assert "hidden rows are also read: 1" in reading.notes


# Sheets


def many(path: Path, active: int = 0, **sheets: str) -> None:
    """Write a workbook with sheets in the given states; each has one row with its name."""
    book = openpyxl.Workbook()
    book.remove(book["Sheet"])
    for title, state in sheets.items():
        sheet = book.create_sheet(title)
        if state != "empty":
            sheet.append(HEADER)
            sheet.append((title, "x"))
        sheet.sheet_state = state if "idden" in state else "visible"
    book.active = active
    book.save(path)


@pytest.mark.parametrize(
    ("wanted", "read_from", "note"),
    [
        (None, "Ids", "sheet 'Ids' (the 2nd of 5; not read: 'Plan'; hidden sheets: 'Old', 'Deep')"),
        (
            "Plan",
            "Plan",
            "sheet 'Plan' (the 3rd of 5; not read: 'Ids'; hidden sheets: 'Old', 'Deep')",
        ),
        ("plan ", "Plan", "sheet 'Plan' (the 3rd"),
        ("3", "Plan", "sheet 'Plan' (the 3rd"),
        ("Old", "Old", "sheet 'Old' (the 1st of 5; hidden; not read: 'Ids', 'Plan'"),
    ],
)
def test_chosen_sheet_is_read_and_others_are_noted(
    wanted: str | None, read_from: str, note: str, path: Path
) -> None:
    many(path, 1, Old="hidden", Ids="visible", Plan="visible", Deep="veryHidden", Free="empty")
    reading = read(path, wanted)
    assert reading.rows == [(read_from, "x")]
    assert f"read as a workbook: {note}" in reading.notes[0]


def test_default_sheet_is_single_or_first_visible_sheet(path: Path) -> None:
    many(path, Ids="visible")
    assert read(path).notes == ["read as a workbook: sheet 'Ids'"]
    many(path, 0, Old="hidden", Ids="visible")
    assert read(path).rows == [("Ids", "x")]


def test_missing_or_empty_sheet_is_refused(path: Path) -> None:
    many(path, Ids="visible", Free="empty")
    with pytest.raises(BadInputError, match="has no sheet 'Idz'") as caught:
        read(path, "Idz")
    assert caught.value.hint == "Sheets: 'Ids', 'Free'."
    with pytest.raises(BadInputError, match="is empty"):
        read(path, "2")


def test_strict_namespaces_and_unusual_part_paths_are_read(path: Path) -> None:
    """Excel's "Strict Open XML" and some other programs produce such files."""
    save(path, ("L-1", "N-1"))

    def change(name: str, part: bytes) -> bytes | None:
        text = part.decode()
        if name.endswith(".rels"):
            text = text.replace(
                "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
                "http://purl.oclc.org/ooxml/officeDocument/relationships",
            )
        text = text.replace(
            "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
            "http://purl.oclc.org/ooxml/spreadsheetml/main",
        )
        if name == SHEET:
            text = re.sub(r"<(/?)(\w)", r"<\1x:\2", text).replace("xmlns=", "xmlns:x=")
        return text.encode()

    rewrite(path, change)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name.replace("/sheet1", "\\Sheet1"), data)
    assert read(path).rows == [("L-1", "N-1")]


# Files that are not workbooks, or are incomplete


def archive_of(path: Path, **parts: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


@pytest.mark.parametrize(
    ("part", "says", "hint"),
    [
        ("content.xml", r"is an OpenDocument file \(.ods\)", ".xlsx"),
        ("xl/workbook.bin", r"is a binary workbook \(.xlsb\)", ".xlsx"),
        ("Index/Document.iwa", "is a Numbers document", ".xlsx"),
        ("word/document.xml", "is a zip archive without a workbook", "Extract it"),
    ],
)
def test_archives_that_are_not_workbooks_are_refused(
    part: str, says: str, hint: str, path: Path
) -> None:
    archive_of(path, **{part: "x"})
    with pytest.raises(BadInputError, match=says) as caught:
        read(path)
    assert hint in str(caught.value.hint)


def test_old_and_protected_workbooks_are_refused(path: Path) -> None:
    container = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(2_000)
    path.write_bytes(container + "Workbook".encode("utf-16-le"))
    with pytest.raises(BadInputError, match=r"is an old Excel workbook \(.xls\)") as caught:
        read(path)
    assert "xlsx" in str(caught.value.hint)
    path.write_bytes(container + "EncryptedPackage".encode("utf-16-le"))
    with pytest.raises(BadInputError, match="is password-protected"):
        read(path)


def test_damaged_workbooks_never_cause_unexpected_errors(path: Path) -> None:
    save(path, ("L-1", "N-1"), (12, 13), A3="00000")
    whole = path.read_bytes()
    chance = random.Random(1)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8, 50])):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(8, len(data))])])
        try:
            read(path)
        except BadInputError:
            refused += 1
    assert refused > 150


def test_workbook_with_invalid_xml_is_refused(path: Path) -> None:
    for rows, says in (
        ("<row", "is not valid XML"),
        ('<row r="3"/><row r="2"/>', "row 2 comes after row 3"),
        ('<row r="1048577"/>', "row 1,048,577 comes after"),
        ('<row><c r="B2"/><c r="A2"/></row>', "the cells of row 2 are out of order"),
        ('<row><c r="ZZZZ2"/></row>', "the cells of row 2 are out of order"),
        ('<row><c t="s"><v>0</v></c></row>', "it contains no shared texts"),
        (f"<row><c><v>{'1' * 1_100_000}</v></c></row>", "more than 1,048,576 characters"),
    ):
        with_rows(path, rows)
        with pytest.raises(BadInputError, match=says):
            read(path)


def test_workbook_with_xml_entities_is_refused(path: Path) -> None:
    save(path)
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
    for part in (SHEET, STRINGS, "xl/workbook.xml"):
        save(path)
        share(path, b"<sst/>")
        rewrite(path, {part: bomb}.get)
        with pytest.raises(BadInputError, match="its XML contains a DOCTYPE"):
            read(path)


def test_missing_or_unsupported_workbook_part_is_refused(path: Path) -> None:
    save(path)
    rewrite(path, lambda name, part: None if name == SHEET else part)
    with pytest.raises(BadInputError, match=f"it has no part {SHEET}"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(
        BadInputError, match=r"its part xl/workbook.xml uses an unsupported compression"
    ):
        read(path)


def test_oversized_zip_directory_of_workbook_is_refused(path: Path) -> None:
    save(path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<L", data, len(data) - 22 + 12, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="it is not a complete zip archive"):
        read(path)


# Memory

_MEASURED = """
import pathlib, resource, sys
from aspencli.errors import BadInputError
from aspencli.changes.cells import read_mapping
from aspencli.tabular.reading import open_table
count, ended = 0, ""
try:
    with open_table(sys.argv[1]) as table:
        for _request in read_mapping(table, print):
            count += 1
except BadInputError as error:
    ended = error.message
status = pathlib.Path("/proc/self/status")
if status.exists():  # the other figure is never below that of the process which started this one
    peak = status.read_text().partition("VmHWM:")[2].split()[0]
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.stdout.write(f"{peak} {count} {ended}")
"""


def measured(path: Path) -> tuple[int, int, str]:
    """Return the peak memory (kB; bytes on macOS), the number of rows, and the result."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(path)], capture_output=True, text=True, check=True
    )
    peak, count, ended = done.stdout.split(" ", 2)
    return int(peak), int(count), ended


def test_memory_does_not_grow_with_sheet_size(path: Path) -> None:
    with_rows(path, "")
    small = measured(path)[0]
    row = '<row hidden="false" ht="12.8"><c><v>{0}</v></c><c><v>{0}.5</v></c></row>'
    with_rows(path, "".join(row.format(number) for number in range(60_000)))
    peak, count, ended = measured(path)
    assert (count, ended) == (60_000, "")
    assert peak < small * 1.3


def test_expanding_workbook_parts_do_not_fill_memory(path: Path) -> None:
    with_rows(path, "")
    small = measured(path)[0]
    spaces = b" " * (1 << 26)
    for name in ("xl/workbook.xml", "xl/styles.xml", SHEET, STRINGS):
        with_rows(path, "")
        share(path, b"<sst/>")
        with zipfile.ZipFile(path) as archive:
            part = archive.read(name)
        rewrite(path, {name: part + spaces}.get)
        peak, _count, ended = measured(path)
        assert peak < small * 1.5, name
        assert ("is too large" in ended) == (name in {"xl/workbook.xml", "xl/styles.xml"})
    with_rows(path, f"<row><c {' ' * (1 << 25)}/></row>")
    peak, _count, ended = measured(path)
    assert peak < small * 1.5
    assert "has a tag of more than" in ended
