"""Updating several columns at once: unique ones, clearable ones, and ones that a row keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.bulk.columns import COLUMNS, PRIVATE, PUBLIC, SAMPLES
from aspen.database.bulk.spec import KEEP, BulkColumn, Cell, RowRequest, Spec, ValueChange
from aspen.database.engine import Database
from aspen.database.errors import RowsMovedError
from aspencli.changes import undo as undofile
from aspencli.changes.undo import UndoOrigin, read_undo
from aspencli.tabular.table import Fault
from tests.cli.commands.mapping_lab import Lab
from tests.database.rename_lab import planned, problems, undo_into

NAMES = {"A": "1", "B": "2", "C": "3", "D": "4"}
HOST = BulkColumn("host", "host", nullable=True)
DATE = BulkColumn("collection_date", "collection_date", type="date")
ID = BulkColumn("id", "id", type="bigint")
SPEC = Spec(SAMPLES, ID, (PRIVATE, PUBLIC, HOST, DATE), partial=True)
Row = tuple[str, str, str | None, str]


class Group:
    """Samples whose updatable columns can all be read."""

    def __init__(self, lab: Lab):
        self._lab = lab
        self.id = lab.group(NAMES)

    def rows(self) -> dict[str, Row]:
        """Return private identifier, public identifier, host, and date, by ID."""
        query = (
            "SELECT id, private_identifier, public_identifier, host, collection_date::text AS date "
            "FROM aspen.samples WHERE submitting_group_id = :group ORDER BY id"
        )
        with self._lab.engine.connect() as connection:
            found = connection.execute(sa.text(query), {"group": self.id}).all()
        return {str(row.id): tuple(row[1:]) for row in found}

    def set(self, key: str, **values: Any) -> None:
        sets = ", ".join(f"{name} = :{name}" for name in values)
        self._lab.execute(f"UPDATE aspen.samples SET {sets} WHERE id = :key", key=key, **values)


@pytest.fixture(scope="module")
def database(lab: Lab) -> Iterator[Database]:
    database = Database(lab.address, application_name="columns", writable=True)
    yield database
    database.dispose()


@pytest.fixture(scope="module")
def lab(
    postgres: Any, _migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lab]:
    name = postgres.create(template=_migrated_template)
    yield Lab(postgres.url(name), tmp_path_factory.mktemp("lab"))
    postgres.drop(name)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a column that can be cleared, too."""
    kind = undofile.RestorableKind(SAMPLES, COLUMNS | {"host": HOST})
    monkeypatch.setitem(undofile.KINDS, "samples", kind)


@pytest.fixture
def group(lab: Lab) -> Group:
    return Group(lab)


def asked(group: Group, *rows: tuple[Cell, ...]) -> list[RowRequest]:
    """Return a request per row, which updates the first columns of the sample at its position."""
    keys = list(group.rows())
    return [
        RowRequest(line, keys[line - 2], (*row, *[KEEP] * (4 - len(row))))
        for line, row in enumerate(rows, start=2)
    ]


def undo_requests(path: Path) -> list[RowRequest]:
    """Return the requests of an undo file, as the program reads it."""
    origin = UndoOrigin(
        "local", 1, "now", 4, "samples", tuple(column.name for column in SPEC.columns)
    )
    file = path.with_name("whole.csv")
    file.write_text(origin.line() + path.read_text())
    faults: list[Fault] = []
    rows = list(read_undo(str(file), origin, faults.append))
    assert not faults
    return rows


ROWS: list[tuple[Cell, ...]] = [
    ("B", "2"),
    ("A", "1"),
    ("D", "9", "bat"),
    ("C", "3", KEEP, "2024-02-29"),
]


def test_bulk_update_swaps_both_identifiers_and_undo_restores_them(
    database: Database, group: Group, tmp_path: Path
) -> None:
    before, undo = group.rows(), tmp_path / "undo.csv"
    with planned(database, group.id, asked(group, *ROWS), spec=SPEC) as (run, plan):
        assert not problems(run)
        assert (plan.to_change, plan.already, plan.detours) == (4, 0, 7)
        assert next(run.rows()).changes == (
            ValueChange("private_identifier", "A", "B"),
            ValueChange("public_identifier", "1", "2"),
        )
        run.apply(undo_into(undo))
    assert list(group.rows().values()) == [
        ("B", "2", None, "2023-05-17"),
        ("A", "1", None, "2023-05-17"),
        ("D", "9", "bat", "2023-05-17"),
        ("C", "3", None, "2024-02-29"),
    ]
    back = undo_requests(undo)
    assert [row.values for row in back] == [
        ("A", "1", KEEP, KEEP),
        ("B", "2", KEEP, KEEP),
        ("C", "3", None, KEEP),
        ("D", "4", KEEP, "2023-05-17"),
    ]
    with planned(database, group.id, back, spec=SPEC.restoring(), skip_moved=True) as (run, plan):
        assert (plan.to_change, plan.left_out, plan.problems) == (4, 0, 0)
        run.apply(undo_into(undo))
    assert group.rows() == before


def test_concurrent_change_of_other_columns_is_not_conflict(
    database: Database, group: Group, tmp_path: Path
) -> None:
    rows = asked(group, ("X", KEEP, "bat"), (KEEP, "2"), (KEEP, KEEP, None))
    first, second, _third, _fourth = group.rows()
    with planned(database, group.id, rows, spec=SPEC) as (run, plan):
        assert (plan.to_change, plan.already) == (1, 2)
        group.set(first, public_identifier="theirs", collection_date="2020-01-01")
        group.set(second, private_identifier="theirs", host="theirs")
        run.apply(undo_into(tmp_path / "undo.csv"))
    assert list(group.rows().values())[:2] == [
        ("X", "theirs", "bat", "2020-01-01"),
        ("theirs", "2", "theirs", "2023-05-17"),
    ]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"host": "x"}, 'sample "A" now has host "x", expected nothing'),
        ({"private_identifier": "x"}, 'sample "A" now has private_identifier "x", expected "A"'),
        (
            {"collection_date": "1999-12-31"},
            'sample "A" now has collection_date "1999-12-31", expected "2023-05-17"',
        ),
    ],
)
@pytest.mark.parametrize("row", [("X", "1", "bat", "2024-01-01"), ("A", "1", None, "2023-05-17")])
def test_concurrent_change_of_requested_columns_is_conflict(
    change: dict[str, str],
    told: str,
    row: tuple[Cell, ...],
    database: Database,
    group: Group,
    tmp_path: Path,
) -> None:
    rows = asked(group, row, (KEEP, "9"))
    with planned(database, group.id, rows, spec=SPEC) as (run, _plan):
        group.set(next(iter(group.rows())), **change)
        now = group.rows()
        with pytest.raises(RowsMovedError) as caught:
            run.apply(undo_into(tmp_path / "undo.csv"))
    assert (caught.value.rows, caught.value.total) == ((f"line 2: {told}",), 1)
    assert group.rows() == now


def test_undo_skips_rows_changed_since_run_and_rows_they_block(
    database: Database, group: Group, tmp_path: Path
) -> None:
    undo = tmp_path / "undo.csv"
    with planned(database, group.id, asked(group, *ROWS), spec=SPEC) as (run, _plan):
        run.apply(undo_into(undo))
    first, *_others, last = group.rows()
    group.set(last, collection_date="1999-12-31")  # so D keeps C, which the third needs back
    group.set(first, host="x")  # not changed by the run
    back = undo_requests(undo)
    with planned(database, group.id, back, spec=SPEC.restoring(), skip_moved=True) as (run, plan):
        assert (plan.to_change, plan.left_out, plan.problems) == (2, 2, 0)
        assert [(problem.line, problem.column, problem.reason) for problem in run.left_out()] == [
            (5, "private_identifier", '"C" is already used by sample "C"'),
            (5, "public_identifier", '"3" is already used by sample "C"'),
            (
                6,
                "collection_date",
                '"C" now has collection_date "1999-12-31", expected "2024-02-29"',
            ),
        ]
        run.apply(undo_into(undo))
    assert list(group.rows().values()) == [
        ("A", "1", "x", "2023-05-17"),
        ("B", "2", None, "2023-05-17"),
        ("D", "9", "bat", "2023-05-17"),
        ("C", "3", None, "1999-12-31"),
    ]


def test_bulk_update_reports_each_problem_with_line_and_column(
    database: Database, group: Group
) -> None:
    rows = asked(group, ("B", "X"), (KEEP, "X"), ("Y", KEEP), ("Y", "9"))
    rows += [RowRequest(6, "123456789012", ("Z", "4", KEEP, KEEP)), rows[1]._replace(line=7)]
    with planned(database, group.id, rows, spec=SPEC) as (run, plan):
        assert [(each.line, each.column, each.reason) for each in problems(run)] == [
            (2, "private_identifier", '"B" is already used by sample "B"'),
            (3, "public_identifier", "duplicate of line 2"),
            (5, "private_identifier", "duplicate of line 4"),
            (6, "id", "the group has no sample 123456789012"),
            (7, "id", "duplicate of line 3"),
            (7, "public_identifier", "duplicate of line 2"),
        ]
        assert plan.problems == 6
