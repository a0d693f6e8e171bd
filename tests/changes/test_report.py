from __future__ import annotations

import os
from pathlib import Path

import pytest

from aspen.database.bulk.spec import AssessedRow, Problem, ValueChange
from aspencli.changes.report import RENAMES, ReportFile
from aspencli.errors import AspenError, BadInputError, RefusedError


def renamed(before: str | None, after: str) -> tuple[ValueChange, ...]:
    return (ValueChange("public_identifier", before, after),)


ROWS = [
    AssessedRow(2, "A", renamed("1", "2"), None, left_out=False),
    AssessedRow(
        4, "B", renamed(None, "3"), "private_identifier: the group has no sample", left_out=False
    ),
    AssessedRow(6, "C", renamed("4", "4"), None, left_out=False),
    AssessedRow(7, "D", renamed("5", "6"), "public_identifier: is held", left_out=True),
]
FAULTS = [Problem(3, "", "has too few cells"), Problem(5, "public_identifier", "is blank")]


def written(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def test_csv_report_lists_outcome_of_each_line_in_file_order(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    with ReportFile(path, RENAMES) as report:
        report.write(ROWS, FAULTS, "updated")
        assert not path.exists(), "it is true only when it is published"
        assert report.publish() == path
    assert written(path) == [
        "2,A,1,2,updated,",
        "3,,,,failed,has too few cells",
        "4,B,,3,failed,private_identifier: the group has no sample",
        "5,,,,failed,public_identifier: is blank",
        "6,C,4,4,unchanged,",
        "7,D,5,6,skipped,public_identifier: is held",
    ]


def test_csv_report_keeps_only_last_write_and_replaces_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_text("from before")
    with ReportFile(path, RENAMES) as report:
        report.write(ROWS * 1_000, FAULTS, "updated")
        assert path.read_text() == "from before"
        report.write(ROWS[:1], [], "skipped", bad_only=False)
        report.publish()
    assert written(path) == ["2,A,1,2,skipped,"]


def test_csv_report_with_bad_only_omits_good_rows(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    with ReportFile(path, RENAMES) as report:
        report.write(ROWS, FAULTS, "updated", bad_only=True)
        report.publish()
    assert [line[0] for line in written(path)] == ["3", "4", "5", "7"]


def test_unpublished_report_leaves_no_file(tmp_path: Path) -> None:
    with ReportFile(tmp_path / "report.csv", RENAMES) as report:
        report.write(ROWS, FAULTS, "updated")
    assert list(tmp_path.iterdir()) == []


def test_csv_report_neutralizes_formulas_and_escape_sequences(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    row = AssessedRow(
        2, "=HYPERLINK()", renamed("\x1b[31mred\r\n", "@x\u202e"), None, left_out=False
    )
    with ReportFile(path, RENAMES) as report:
        report.write([row], [], "updated")
        report.publish()
    assert written(path) == ["2,'=HYPERLINK(),\\x1b[31mred\\r\\n,'@x\\u202e,updated,"]


@pytest.mark.parametrize("target", ["real.csv", "missing.csv"])
def test_report_to_symbolic_link_is_refused_and_link_remains(tmp_path: Path, target: str) -> None:
    (tmp_path / "real.csv").write_text("precious")
    (tmp_path / "link.csv").symlink_to(target)
    with pytest.raises(RefusedError, match="is a symbolic link; nothing was written"):
        ReportFile(tmp_path / "link.csv", RENAMES)
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "precious"
    assert {one.name for one in tmp_path.iterdir()} == {"link.csv", "real.csv"}


def test_report_to_anything_but_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BadInputError, match="is not a regular file"):
            ReportFile(place, RENAMES)
    with pytest.raises(AspenError, match=r"file is not a directory; nothing was written"):
        ReportFile(tmp_path / "file" / "report.csv", RENAMES)
