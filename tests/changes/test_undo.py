from __future__ import annotations

from pathlib import Path
from typing import IO

import pytest

from aspen.database.bulk.spec import RowRequest
from aspencli.changes.undo import UndoOrigin, read_origin, read_undo, write_undo
from aspencli.errors import AspenError, BadInputError
from aspencli.tabular.table import Fault

ORIGIN = UndoOrigin("rdev/mine", 7, "2026-11-24T03:40:12+00:00", 2)
ROWS = (
    b"private_identifier,new_public_identifier,old_public_identifier,id\nA,2,1,17\n'=B,'@4,''3,9\n"
)


def put_rows(file: IO[bytes]) -> None:
    file.write(ROWS)


def test_undo_file_round_trips_origin_and_rows(tmp_path: Path) -> None:
    path = write_undo(tmp_path / "undo", ORIGIN, put_rows)
    assert path.name.endswith("-rdev-mine-group7.csv")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert read_origin(str(path)) == ORIGIN
    faults: list[Fault] = []
    assert list(read_undo(str(path), ORIGIN, faults.append)) == [
        RowRequest(3, "17", ("1",), ("2",), label="A"),
        RowRequest(4, "9", ("'3",), ("@4",), label="=B"),
    ]
    assert faults == []


def test_undo_file_missing_last_byte_is_reported_as_truncated(tmp_path: Path) -> None:
    path = write_undo(tmp_path / "undo", ORIGIN, put_rows)
    path.write_bytes(path.read_bytes()[:-1])
    faults: list[Fault] = []
    list(read_undo(str(path), ORIGIN, faults.append))
    assert faults == [Fault(4, "", "is truncated")]


def test_undo_files_written_at_same_time_have_different_names(tmp_path: Path) -> None:
    assert len({write_undo(tmp_path, ORIGIN, put_rows) for _ in range(20)}) == 20


def test_undo_file_gets_final_name_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "undo.csv"

    def look() -> None:
        (part,) = tmp_path.iterdir()
        assert part.name.startswith(".undo.csv.")
        assert part.read_bytes().endswith(ROWS)

    assert write_undo(tmp_path, ORIGIN, put_rows, path, look) == path
    assert [each.name for each in tmp_path.iterdir()] == ["undo.csv"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("late", [False, True])
def test_failed_undo_file_write_leaves_no_file(
    error: BaseException, late: bool, tmp_path: Path
) -> None:
    def fail(_file: object = None) -> None:
        raise error

    expected = AspenError if isinstance(error, OSError) else KeyboardInterrupt
    write, then = (put_rows, fail) if late else (fail, lambda: None)
    with pytest.raises(expected):
        write_undo(tmp_path, ORIGIN, write, tmp_path / "undo.csv", then)
    assert list(tmp_path.iterdir()) == []


def test_existing_undo_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "undo.csv"
    path.write_text("theirs")
    with pytest.raises(AspenError, match="File exists; nothing was changed"):
        write_undo(tmp_path, ORIGIN, put_rows, path)
    assert [path.read_text(), *tmp_path.iterdir()] == ["theirs", path]


def test_reading_directory_as_undo_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="Cannot read"):
        read_origin(str(tmp_path))
