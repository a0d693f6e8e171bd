"""Tables as programs and people produce them, read without a process or a database."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from aspen.database.bulk.columns import RENAME
from aspen.database.bulk.spec import KEEP, Cell, RowRequest
from aspencli.changes.apply import Faults, assess
from aspencli.changes.cells import lay_out, read_changes, read_mapping
from aspencli.config import Config
from aspencli.errors import BadInputError, NotFoundError
from aspencli.samples.bulk import SAMPLE_CHANGES
from aspencli.samples.create import Sequences, WantedSample
from aspencli.samples.models import settle_keys
from aspencli.samples.remote import ListedSample, Snapshot
from aspencli.samples.remote_plan import RenamePlan
from aspencli.tabular.dates import DayFormat
from aspencli.tabular.fasta import read_fasta
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault, SavedName

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

H = "private_identifier,public_identifier"
ONE = [("L-1", "N-1")]
TWO = [("L-1", "N-1"), ("L-2", "N-2")]


@dataclass
class Read:
    """The result of reading a file."""

    rows: list[tuple[str, Cell]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: str = ""
    error: str = ""


def read(path: Path, names: Sequence[str] = (), **options: Any) -> Read:
    """Read a mapping like the command does."""
    faults: list[Fault] = []
    found = Read()
    try:
        with open_table(str(path), **{"template": "auto", **options}) as table:
            rows = read_mapping(table, faults.append, names)
            found.rows = [(row.key, row.values[0]) for row in rows]
            found.notes = "\n".join(table.notes)
    except BadInputError as error:
        found.error = "\n".join([error.message, *error.details, error.hint or ""])
    found.faults = [f"line {one.line}: {one.column}: {one.reason}" for one in faults]
    return found


def changes(path: Path, names: Sequence[str] = (), **options: Any) -> tuple[Any, ...]:
    """Read a file of changes; return its key, its rows with their columns, and the notes."""
    faults: list[Fault] = []
    days = options.pop("days", None)
    with open_table(str(path), **{"template": "auto", **options}) as table:
        layout = lay_out(table, SAMPLE_CHANGES, key=None, names=names)
        rows = list(read_changes(table, layout, faults.append, days=days))
        assert not faults, faults
        found = [
            {"key": row.key, **dict(zip(layout.headers, row.values, strict=True))} for row in rows
        ]
        return layout.key, found, "\n".join(table.notes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ids.csv"


# Cells


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("#N/A", "contains the error #N/A"),
        ("#BEZUG!", "contains the error #BEZUG!"),
        ("####", "contains the error ####"),
        ("NA", 'is "NA", which usually means'),
        (" unknown ", 'is "unknown", which usually means'),
        ("1.20E+05", "scientific notation"),
        ('"=""N-1"""', 'is a formula; use its value instead: "N-1"'),
        ("=A2", "is a formula; save its value"),
        ("'N-1", "starts with an apostrophe"),
        ("1-Mar", "is a date"),
        ("17.0", "ends in .0"),
        ('"12,345"', "thousands separators"),
        ('"""N-1"""', "is in quotes"),
        ("N\u20131", "U+2013 EN DASH"),
        ("N\u00a01", "U+00A0 NO-BREAK SPACE"),
        ("\u041d-1", "U+041D CYRILLIC CAPITAL LETTER EN"),
    ],
)
def test_damaged_cells_are_reported_with_line(cell: str, reason: str, file: Path) -> None:
    file.write_text(f"{H}\nL-1,N-1\nL-2,{cell}\n")
    found = read(file)
    assert found.rows == ONE
    assert len(found.faults) == 1
    assert found.faults[0].startswith("line 3: public_identifier: ")
    assert reason in found.faults[0]


def test_spreadsheet_errors_are_reported_in_keys_and_every_column(file: Path) -> None:
    file.write_text(f"{H}\n#REF!,N-1\n")
    assert read(file).faults == ["line 2: private_identifier: contains the error #REF!"]
    file.write_text("id,collection_date,private,location\n1,#N/A,#VALUE!,#NAME?\n")
    faults: list[Fault] = []
    with open_table(str(file)) as table:
        layout = lay_out(table, SAMPLE_CHANGES, key=None, names=())
        assert list(read_changes(table, layout, faults.append)) == []
    assert [fault.reason for fault in faults] == [
        "contains the error #N/A",
        "contains the error #VALUE!",
        "contains the error #NAME?",
    ]


def test_sample_keys_are_accepted_exactly_as_written(file: Path) -> None:
    file.write_text(f"{H}\nL\u20111,N-1\nNA,N-2\n'3,N-3\n1.0,N-4\n")
    assert [key for key, _new in read(file).rows] == ["L\u20111", "NA", "'3", "1.0"]


def test_identifiers_that_spreadsheet_would_change_are_noted(file: Path) -> None:
    file.write_text(f"{H}\nL-1,N-1\nL-2,12E5\nL-3,2e10\n")
    found = read(file)
    assert [new for _key, new in found.rows] == ["N-1", "12E5", "2e10"]
    assert "scientific notation: 2 (the first is 12E5 on line 3)" in found.notes


# Rows


@pytest.mark.parametrize(
    ("content", "rows", "says"),
    [
        (f"{H}\nL-1,N-1,\nL-2,N-2,,,\n", TWO, "extra blank cells"),
        (f"{H}\nL-1,N-1, \t\n", ONE, "1 (the first is line 2)"),
        (f"{H},a,b\nL-1,N-1,x,y\nL-2,N-2\n", TWO, "1 (the first is line 3)"),
        (f"a,{H},b\nx,L-1,N-1\n,L-2,N-2,\n", TWO, "1 (the first is line 2)"),
    ],
)
def test_rows_of_other_width_are_read_if_no_value_is_lost(
    content: str, rows: Any, says: str, file: Path
) -> None:
    file.write_text(content)
    found = read(file)
    assert (found.rows, found.faults) == (rows, [])
    assert says in found.notes


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (f"{H}\nL-1,N-1,x\n", "line 2: : has too many cells: 3 (the header has 2)"),
        (f"{H}\nL-1\n", "line 2: : has too few cells: 1 (the header has 2)"),
        (f"a,{H}\nx,L-1\n", "line 2: : has too few cells: 2 (the header has 3)"),
        (f"{H},a\nL-1,N,1,x\n", "line 2: : has too many cells: 4 (the header has 3)"),
    ],
)
def test_rows_with_possibly_shifted_cells_are_refused(content: str, fault: str, file: Path) -> None:
    file.write_text(content)
    found = read(file)
    assert (found.rows, found.faults) == ([], [fault])


# Headers


@pytest.mark.parametrize(
    "header",
    [
        "\ufeff\ufeffprivate_identifier,public_identifier",
        '\ufeff\ufeff"private_identifier","public_identifier"',
        "private_identifier\u200b,public_identifier",
        "private\u00ad_identifier,\u2060public_identifier\u200e",
        "private_identifier\u00a0,\u3000public_identifier",
        "\uff50rivate_identifier,public_identifier",
        "Private_Identifier ,PUBLIC_IDENTIFIER",
    ],
)
def test_headers_match_despite_invisible_characters(header: str, file: Path) -> None:
    file.write_text(f"{header}\nL-1,N-1\n", encoding="utf-8")
    found = read(file)
    assert (found.rows, found.error) == (ONE, "")


def test_invisible_characters_in_headers_are_noted(file: Path) -> None:
    file.write_text("\ufeff\ufeffprivate_identifier\u200b,public_identifier\nL-1,N-1\n")
    assert read(file).notes.splitlines() == [
        "a second byte order mark is ignored",
        (
            "invisible characters in the header 'private_identifier' are ignored: "
            "U+200B ZERO WIDTH SPACE"
        ),
    ]


@pytest.mark.parametrize(
    "header", ["Private ID,Public ID", "private identifer,Public_Id", "Privat ID,Publik ID"]
)
def test_suggested_map_options_are_accepted(header: str, file: Path) -> None:
    file.write_text(f"{header.replace(' ', chr(0xA0))}\u200b\nL-1,N-1\n")
    error = read(file, template="none").error
    names = [word.strip("'") for word in error.split("--map ")[1:]]
    assert len(names) == 2
    assert read(file, [name.strip().strip("'") for name in names], template="none").rows == ONE


@pytest.mark.parametrize(
    ("header", "hints"),
    [
        ("Sample ID,strain", ["'Sample ID=private_identifier'", "strain=public_identifier"]),
        ("lab_id,virus_name2", ["lab_id=private_identifier", "'YOUR HEADER=public_identifier'"]),
        ("Specimen ID,x", ["'Specimen ID=private_identifier'", "'YOUR HEADER=public_identifier'"]),
        ("Patient ID,x", ["'YOUR HEADER=private_identifier'", "'YOUR HEADER=public_identifier'"]),
        ("id,ids", ["'YOUR HEADER=private_identifier'", "'YOUR HEADER=public_identifier'"]),
    ],
)
def test_map_suggestions_never_name_unrelated_columns(
    header: str, hints: list[str], file: Path
) -> None:
    file.write_text(f"{header}\nL-1,N-1\n")
    found = read(file)
    assert [part.strip() for part in found.error.split("--map ")[1:]] == hints


@pytest.mark.parametrize("skipped", [1, 3])
def test_lines_before_the_header_are_skipped_and_counted(skipped: int, file: Path) -> None:
    file.write_text("# exported, from; LIMS\n" * skipped + f"{H}\nL-1,N-1\nL-2,#N/A\n")
    found = read(file)
    assert f"Line {skipped + 1} looks like the header: --skip-lines {skipped}" in found.error
    found = read(file, skip_lines=skipped)
    assert found.rows == ONE
    assert found.faults[0].startswith(f"line {skipped + 3}: ")
    assert f"lines skipped before the header: {skipped}" in found.notes
    assert "is empty" in read(file, skip_lines=skipped + 3).error


def test_delimiter_and_sep_line_are_detected_after_skipped_lines(file: Path) -> None:
    file.write_text(f"a;b;c\nsep=;\n{H.replace(',', ';')}\nL-1;N-1\n")
    assert read(file, skip_lines=1).rows == ONE


def test_values_in_ignored_columns_are_counted(file: Path) -> None:
    file.write_text(f"{H},note,empty,\nL-1,N-1,x, ,\nL-2,N-2,y,,z\n")
    assert "values in ignored columns: note (2), (no name) (1)" in read(file).notes
    found = read(file, ["note="])
    assert "values in ignored columns: (no name) (1)" in found.notes
    error = read(file, ["nope="]).error
    assert error.startswith("Invalid value for --map: ")
    assert "has no column 'nope'" in error


def test_misspelled_column_is_refused_unless_ignored(file: Path) -> None:
    file.write_text("private_identifier,collection_date,sequencing_dat\nL-1,2024-01-01,x\n")
    with pytest.raises(BadInputError, match=r"did you mean sequencing_date\?") as caught:
        changes(file)
    assert caught.value.hint == (
        "If so: --map sequencing_dat=sequencing_date. To ignore it: --map sequencing_dat="
    )
    _key, rows, _notes = changes(file, ["sequencing_dat="])
    assert rows == [{"key": "L-1", "collection_date": "2024-01-01"}]


# Templates

EDIT = (
    "Current Private ID\tNew Private ID - Optional\tPublic ID\tCollection Date\t"
    "Collection Location\tSequencing Date - Optional\tSample is Private"
)


def test_edit_template_is_recognized_and_fully_read(file: Path) -> None:
    file.write_text(
        f"{EDIT}\nL-1\t\tN-1\t2020-12-22\tEurope/Greece\tDelete\tYes\n"
        "L-2\tL-9\t\t\t\t2021-01-02\tNo\n"
    )
    key, rows, notes = changes(file)
    assert key == "private_identifier"
    assert rows == [
        {
            "key": "L-1",
            "new_private_identifier": KEEP,
            "public_identifier": "N-1",
            "collection_date": "2020-12-22",
            "sequencing_date": None,
            "private": "true",
            "location": "Europe/Greece",
        },
        {
            "key": "L-2",
            "new_private_identifier": "L-9",
            "public_identifier": KEEP,
            "collection_date": KEEP,
            "sequencing_date": "2021-01-02",
            "private": "false",
            "location": KEEP,
        },
    ]
    assert "read as the service's edit template" in notes
    assert "ignored" not in notes


def test_edit_template_with_renamed_key_header_keeps_all_columns(file: Path) -> None:
    header = EDIT.replace("Current Private ID\tNew Private ID - Optional", "private_identifier")
    file.write_text(f"{header}\nL-1\tN-1\t2020-12-22\tEurope\tDelete\tYes\n")
    _key, ((row), *_), notes = changes(file)
    assert len(row) == 6
    assert (row["sequencing_date"], row["private"]) == (None, "true")
    assert "ignored" not in notes


def test_template_option_selects_template(file: Path) -> None:
    file.write_text("strain,Lab ID,x\nN-1,L-1,y\n")
    assert "no column public_identifier (did you mean 'strain'?)" in read(file).error
    found = read(file, ["Lab ID=private_identifier"], template="nextstrain")
    assert found.rows == ONE
    assert "Choose one of: auto, none, czgenepi-" in read(file, template="excel").error
    assert "no column of a GISAID table" in read(file, template="gisaid").error
    file.write_text(f"{EDIT}\nL-1\t\tN-1\t\t\t\t\n")
    assert "no column private_identifier" in read(file, template="none").error


@pytest.mark.parametrize(
    "header",
    [
        "covv_subm_sample_id,covv_virus_name",
        "Sample ID given by the submitting laboratory,Virus name,Collection date",
        "pox_subm_sample_id,pox_virus_name",
        "rsv_subm_sample_id,rsv_virus_name,fn",
    ],
)
def test_gisaid_tables_are_recognized_with_one_or_two_header_rows(header: str, file: Path) -> None:
    file.write_text(f"{header}\nL-1,N-1\n")
    assert read(file).rows == ONE
    labels = "Sample ID given by the submitting laboratory,Virus name"
    if header.startswith("Sample"):
        labels = "covv_subm_sample_id,covv_virus_name,covv_collection_date"
    file.write_text(f"{header}\n{labels}\nL-1,N-1\n")
    found = read(file)
    assert found.rows == ONE
    assert "line 2 is a second header row and is skipped" in found.notes


def test_gisaid_dates_and_locations_are_read(file: Path) -> None:
    file.write_text(
        "covv_virus_name,covv_collection_date,covv_location,covv_host\n"
        "Virus name,Collection date,Location,Host\n"
        "hCoV-19/USA/1,2021-03-04,North America / USA,Human\n"
    )
    key, rows, notes = changes(file)
    assert (key, rows) == (
        "public_identifier",
        [
            {
                "key": "hCoV-19/USA/1",
                "collection_date": "2021-03-04",
                "location": "North America / USA",
            }
        ],
    )
    assert "values in ignored columns: covv_host (1)" in notes


def test_nextstrain_metadata_is_recognized_and_locations_are_joined(file: Path) -> None:
    file.write_text(
        "strain\tvirus\tdate\tregion\tcountry\tdivision\tlocation\n"
        "N-1\tncov\t2021-03-04\tNorth America\tUSA\tCalifornia\tAlameda County\n"
        "N-2\tncov\t?\tEurope\tGreece\t?\t\n"
        "N-3\tncov\t2021-03-05\t\t\t\t\n"
    )
    key, rows, notes = changes(file)
    assert key == "public_identifier"
    assert notes.splitlines()[-1] == "values in ignored columns: virus (3)"
    assert [(row["collection_date"], row["location"]) for row in rows] == [
        ("2021-03-04", "North America / USA / California / Alameda County"),
        (KEEP, "Europe / Greece"),
        ("2021-03-05", KEEP),
    ]


def workbook(*sheets: tuple[str, list[list[Any]]]) -> bytes:
    book, data = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.worksheets[0])
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(data)
    return data.getvalue()


def test_workbook_headers_and_notes_match_those_of_text_files(file: Path) -> None:
    rows = [
        ["by the laboratory"],
        ["covv_subm_sample_id\u200b", "covv_virus_name", "fn"],
        ["Sample ID given by the submitting laboratory", "Virus name", "FASTA filename"],
        ["L-1", "N-1", "all.fasta"],
    ]
    file.write_bytes(workbook(("Submissions", rows)))
    found = read(file, skip_lines=1)
    assert found.rows == ONE
    assert "rows skipped before the header: 1" in found.notes
    assert "line 3 is a second header row and is skipped" in found.notes
    assert "values in ignored columns: fn (1)" in found.notes
    assert "U+200B ZERO WIDTH SPACE" in found.notes


def test_workbook_location_columns_are_joined_by_template(file: Path) -> None:
    rows = [
        ["strain", "date", "region", "country"],
        ["N-1", "2021-03-04", "Europe", "Greece"],
        ["N-2", "2021-03-05"],
    ]
    file.write_bytes(workbook(("metadata", rows)))
    assert [row["location"] for row in changes(file)[1]] == ["Europe / Greece", KEEP]


def test_empty_first_sheet_error_suggests_sheet_with_data(file: Path) -> None:
    rows = [H.split(","), ["L-1", "N-1"]]
    file.write_bytes(workbook(("Sheet1", []), ("Ids of May", rows), ("Notes", [["x"]])))
    error = read(file).error
    assert "The sheet 'Sheet1' of " in error
    assert " is empty; there is data on 'Ids of May', 'Notes'" in error
    assert "--sheet 'Ids of May' or --sheet Notes" in error
    assert read(file, sheet="Ids of May").rows == ONE
    file.write_bytes(workbook(("Sheet1", []), ("Sheet2", [])))
    assert "is empty.\n" in read(file).error


# Saved maps and dates

MAPS = """
[maps.lims]
"Lab ID" = "private_identifier"
"GISAID name" = "public_identifier"
"Sampled on" = "collection_date"
"""


def test_saved_map_applies_to_files_with_some_of_its_columns(tmp_path: Path) -> None:
    config, file = tmp_path / "config.toml", tmp_path / "ids.csv"
    config.write_text(MAPS)
    saved = Config({}, {"ASPEN_CONFIG": str(config)}).column_map("lims")
    names = [SavedName(f"{header}={column}") for header, column in saved.items()]
    file.write_text("GISAID name,Lab ID\nN-1,L-1\n")
    assert read(file, names).rows == ONE
    file.write_text("Lab ID,Sampled on\nL-1,2024-01-02\n")
    assert changes(file, names)[1] == [{"key": "L-1", "collection_date": "2024-01-02"}]
    with pytest.raises(BadInputError, match="No column map named 'limes'"):
        Config({}, {"ASPEN_CONFIG": str(config)}).column_map("limes")
    config.write_text("[maps.lims]\nprivate_identifier = 7\n")
    with pytest.raises(BadInputError, match="is not a table of headers and columns"):
        Config({}, {"ASPEN_CONFIG": str(config)}).column_map("lims")


@pytest.mark.parametrize(
    ("form", "text", "day"),
    [
        ("DD.MM.YYYY", "5.3.2024", "2024-03-05"),
        ("DD.MM.YYYY", "05.03.2024", "2024-03-05"),
        ("M/D/YY", "3/5/24", "2024-03-05"),
        ("mm/dd/yyyy", "03/05/2024", "2024-03-05"),
        ("DD-MMM-YYYY", "05-Mar-2024", "2024-03-05"),
        ("D MMMM YYYY", "5 March 2024", "2024-03-05"),
        ("YYYYMMDD", "20240305", "2024-03-05"),
        ("%d/%m/%Y", "05/03/2024", "2024-03-05"),
        ("DD.MM.YYYY", "2024-03-05", "2024-03-05"),
    ],
)
def test_date_format_option_determines_how_dates_are_read(
    form: str, text: str, day: str, file: Path
) -> None:
    file.write_text(f"id,collection_date\n1,{text}\n")
    assert changes(file, days=DayFormat(form))[1] == [{"key": "1", "collection_date": day}]


def test_dates_not_in_given_format_and_invalid_formats_are_refused(file: Path) -> None:
    reason = DayFormat("DD.MM.YYYY").understand("03/05/2024")[1]
    assert reason == '"03/05/2024" is not a date in the format DD.MM.YYYY'
    for form in ("DD.MM", "YYYY-MM-DD-DD", "%Y", "x", "", "HH:MM"):
        with pytest.raises(BadInputError, match="Invalid value for --date-format"):
            DayFormat(form)


def test_future_dates_are_counted_in_notes(file: Path) -> None:
    file.write_text(
        "id,collection_date,sequencing_date\n1,2024-01-01,2999-01-01\n2,2999-05-01,\n"
        "3,2024-01-01,2998-01-01\n"
    )
    notes = changes(file)[2].splitlines()
    assert notes[-2:] == [
        "collection_date: 1 date is in the future (the first is 2999-05-01 on line 3)",
        "sequencing_date: 2 dates are in the future (the first is 2999-01-01 on line 2)",
    ]


# Files in other formats


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "ids.xls",
            b"<html><table><tr><td>x</td></tr></table></html>",
            "is an HTML page named .xls",
        ),
        ("ids.xls", b"\xef\xbb\xbf \r\n<!DOCTYPE html>\n<html>", "is an HTML page named .xls"),
        ("ids.csv", b"<table border=1>", "is an HTML page named .csv"),
        ("ids.xls", "<html>".encode("utf-16"), "is an HTML page named .xls"),
        ("ids.html", b"<html>", "is an HTML page, not a table"),
        (
            "ids.xls",
            b'<?xml version="1.0"?><Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">',
            "is an XML spreadsheet named .xls, not a table",
        ),
        ("ids.xml", b"<?xml version='1.0'?><data/>", "is an XML document"),
        ("ids.csv", b'[{"private_identifier": "L-1"}]', "is JSON named .csv"),
        ("ids.json", b'{"samples": []}', "is JSON, not a table"),
        ("ids.xls", b"\xd0\xcf\x11\xe0" + bytes(600), "is an old Excel workbook (.xls)"),
        ("ids.pdf", b"%PDF-1.7", "is a PDF"),
        ("ids.7z", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("ids.rar", b"Rar!\x1a\x07", "is a RAR archive"),
        ("ids.parquet", b"PAR1", "is a Parquet file"),
        ("ids.rtf", b"{\\rtf1\\ansi}", "is an RTF document"),
        ("ids.db", b"SQLite format 3\0", "is a SQLite database"),
    ],
)
def test_unsupported_file_formats_are_identified(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    error = read(tmp_path / name).error
    assert says in error
    assert error.splitlines()[-1]


# Files from laboratories, if available

CASES = Path(__file__).parents[3] / "shared" / "cases"
EXPECTED = {
    "02_na.csv": (2, "contains the error #N/A"),
    "04e_zwdup.csv": (2, "U+200B ZERO WIDTH SPACE at position 23"),
    "05b_dash_new.csv": (2, "U+2013 EN DASH at position 5"),
    "08b_sci_new.csv": (2, "scientific notation"),
    "10b_trailing_only_rows.csv": (0, "extra blank cells"),
    "14b_bombom.csv": (0, "a second byte order mark is ignored"),
    "15_comment.csv": (2, "--skip-lines 1"),
    "17b_gisaid_map.csv": (2, "--map lab_id=private_identifier"),
    "18d_hdr_zw.csv": (0, "U+200B ZERO WIDTH SPACE"),
    "50_html.xls": (2, "is an HTML page named .xls, not a table"),
    "60_eq_new.csv": (2, "is a formula"),
    "61_excel16.csv": (0, "without cells in unused columns: 4"),
    "62_sampleid.csv": (2, "--map 'Sample ID=private_identifier' --map strain=public_identifier"),
    "x01_gisaid2.xlsx": (2, "--map lab_id=private_identifier"),
    "x28_empty_first.xlsx": (2, "--sheet ids"),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="there are no such files here")
@pytest.mark.parametrize("name", EXPECTED)
def test_laboratory_files_are_read_or_refused_with_reason(name: str) -> None:
    code, says = EXPECTED[name]
    found = read(CASES / name)
    assert (2 if found.faults or found.error else 0) == code
    assert says in "\n".join([*found.faults, found.error, found.notes])


@pytest.mark.skipif(not CASES.is_dir(), reason="there are no such files here")
@pytest.mark.parametrize("name", ["17b_gisaid_map.csv", "x01_gisaid2.xlsx"])
def test_laboratory_files_are_read_with_suggested_map(name: str) -> None:
    found = read(CASES / name, ["lab_id=private_identifier"])
    assert found.rows == [("RCPHL-0000001", "hCoV-19/USA/CA-N1/2020")]


@pytest.mark.skipif(not CASES.is_dir(), reason="there are no such files here")
@pytest.mark.parametrize(
    "name", ["czgenepi_edit_template.tsv", "czgenepi_edit_template_half_mapped.tsv"]
)
def test_service_edit_templates_are_fully_read(name: str) -> None:
    _key, (row,), notes = changes(CASES / name)
    assert (row["sequencing_date"], row["private"]) == (None, "true")
    assert row["location"] == "North America/USA/California"
    assert "ignored" not in notes


# Compressed files

TEXT = f"{H}\nL-1,N-1\n".encode()


def _zipped(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def _in_zip(data: bytes) -> bytes:
    return _zipped(("ids.csv", data))


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "gzip": gzip.compress,
    "zip": _in_zip,
}
PACKED = {kind: pack(TEXT) for kind, pack in PACKERS.items() if kind != "zip"}


@pytest.mark.parametrize("kind", PACKED)
def test_compressed_tables_are_read(kind: str, file: Path) -> None:
    file.write_bytes(PACKED[kind])
    found = read(file)
    assert found.rows == ONE
    assert f"compressed with {kind}" in found.notes


@pytest.mark.parametrize(
    "content",
    [
        bz2.compress(TEXT[:40]) + bz2.compress(TEXT[40:]),
        lzma.compress(TEXT[:40]) + bytes(8) + lzma.compress(TEXT[40:]) + bytes(4),
        zstd.compress(TEXT[:40]) + zstd.compress(TEXT[40:]),
    ],
    ids=["bzip2", "xz", "zstd"],
)
def test_compressed_tables_may_have_several_streams(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert read(file).rows == ONE


@pytest.mark.parametrize("kind", PACKED)
def test_truncated_or_damaged_compressed_tables_are_reported(kind: str, file: Path) -> None:
    long = f"{H}\n" + "".join(f"L-{n},N-{n * n}\n" for n in range(20_000))
    whole = PACKERS[kind](long.encode())
    file.write_bytes(whole[: len(whole) // 2])
    assert "is truncated: the compressed data ends too early" in read(file).error
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes(64) + whole[middle + 64 :])
    assert "is damaged: the compressed data cannot be decompressed" in read(file).error
    file.write_bytes(bz2.compress(PACKED[kind]))
    assert "is compressed twice" in read(file).error


@pytest.mark.parametrize(
    "content",
    [
        _zipped(("ids.csv", TEXT)),
        _zipped(("data/", b""), ("data/ids.csv", TEXT)),
        _zipped(("ids.csv", TEXT), ("__MACOSX/._ids.csv", b"x"), (".DS_Store", b"x")),
        _zipped(("ids.xlsx", workbook(("Sheet", [H.split(","), ["L-1", "N-1"]])))),
        gzip.compress(_zipped(("ids.csv", TEXT))),
    ],
    ids=["one file", "in a folder", "from a Mac", "workbook", "in gzip"],
)
def test_single_file_in_zip_archive_is_read(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    found = read(file)
    assert found.rows == ONE, found.error
    assert "read from a zip archive: " in found.notes


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_zipped(("a.csv", TEXT), ("b.csv", TEXT)), "is a zip archive with 2 files, but must"),
        (_zipped(("data/", b"")), "is a zip archive with 0 files"),
        (
            _zipped(("ids.zip", _zipped(("ids.csv", TEXT)))),
            "is a zip archive in another zip archive",
        ),
        (_zipped(("ids.csv", TEXT))[:-30], "is damaged: it is not a complete zip archive"),
        (_zipped(("content.xml", b"<x/>"), ("mimetype", b"x")), "is an OpenDocument file (.ods)"),
        (_zipped(("Index/Document.iwa", b"x")), "is a Numbers document"),
        (_zipped(("word/document.xml", b"x"), ("[Content_Types].xml", b"x")), "without a workbook"),
    ],
)
def test_unsupported_archives_are_identified(content: bytes, says: str, file: Path) -> None:
    file.write_bytes(content)
    assert says in read(file).error


@pytest.mark.parametrize("kind", ["bzip2", "xz", "zstd", "zip"])
def test_compressed_tables_that_expand_too_much_are_refused(kind: str, file: Path) -> None:
    bomb = TEXT + b"\n" * (40 << 20)
    file.write_bytes(PACKERS[kind](bomb))
    assert "expands from " in read(file).error


@pytest.mark.parametrize("kind", PACKERS)
def test_compressed_sequences_are_read(kind: str, tmp_path: Path) -> None:
    text, path = b">BUG-1\r\nACGT\r\n>BUG-2\r\nAC\r\nGT\r\n", tmp_path / "batch"
    path.write_bytes(PACKERS[kind](text))
    assert [(one.name, one.sequence) for one in read_fasta(path)] == [
        ("BUG-1", "ACGT"),
        ("BUG-2", "ACGT"),
    ]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadInputError, match=r"is truncated|is damaged"):
        list(read_fasta(path))


@pytest.mark.skipif(not CASES.is_dir(), reason="there are no such files here")
def test_compressed_laboratory_sequences_are_read() -> None:
    (found,) = read_fasta(CASES / "crlf.fasta.xz")
    assert (found.name, len(found.sequence)) == ("BUG-1", 1_040)


@pytest.mark.parametrize("kind", PACKERS)
def test_damaged_compressed_files_never_cause_unexpected_errors(kind: str, file: Path) -> None:
    chance = random.Random(kind)
    whole = PACKERS[kind](TEXT + b"L-2,N-2\n" * 50)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        file.write_bytes(data)
        read(file)  # any finding is an error message or a list of rows
        with contextlib.suppress(BadInputError):
            list(read_fasta(file))


def test_missing_sequence_error_suggests_lookalike_name(tmp_path: Path) -> None:
    path, faults = tmp_path / "batch.fasta", list[Fault]()
    path.write_text(">N\u20111\n" + "ACGT" * 300 + "\n")
    fields: Any = {"private_identifier": "N-1"}
    sequences = Sequences(path, [WantedSample(2, fields, sequence_name="N-1")])
    assert sequences.check(faults.append) == ["N\u20111"]
    assert faults[0].reason == (
        f'has no sequence "N-1" in {path}; did you mean "N\u20111"? '
        "(U+2011 NON-BREAKING HYPHEN at position 2, which looks like '-')"
    )


def test_unknown_key_error_explains_lookalike_character() -> None:
    with pytest.raises(NotFoundError) as caught:
        settle_keys(["L\u20111"], [], within="1")
    assert str(caught.value.hint).startswith("Did you mean 'L-1'? ")
    assert "contains U+2011 NON-BREAKING HYPHEN at position 2" in caught.value.details[0]


def test_unknown_keys_are_explained_using_samples_listed_by_api() -> None:
    held = ListedSample(
        7, "L-2", "P-2", private=True, collection_date="2024-01-01", sequencing_date=None
    )
    plan = RenamePlan(RENAME, lambda _wanted: Snapshot({7: held}, frozenset()))
    faults = Faults()
    requests = [RowRequest(2, "L\u20112", ("N-2",)), RowRequest(3, "L\u20119", ("N-9",))]
    for request in requests:
        faults.look_at_key(request.line, request.key)
    assess(plan, requests, faults)
    faults.close()
    contains = "it contains U+2011 NON-BREAKING HYPHEN at position 2, which looks like '-'"
    assert [problem.reason for problem in plan.problems()] == [
        f'the group has no sample "L\u20112"; {contains}; did you mean "L-2"?',
        f'the group has no sample "L\u20119"; {contains}',
    ]
