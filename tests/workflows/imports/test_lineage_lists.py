"""Imports of the lists of lineages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aspen.database.engine import Database
from tests.local.test_aws import StandIn
from tests.workflows.imports.conftest import NewJob, execute, rows, write

NOTES = (
    "Lineage\tDescription\n"
    "A\tRoot\nB.1.1.7\tAlpha\n*B.1.1.6\tWithdrawn: Alias\nXBB.1.5\tA recombinant\nB.1.1.7\tagain\n"
)
MPXV = {
    "$schema": "x",
    "lineages": [
        {"name": "A.1.1", "alias": "B", "parent": "A.1"},
        {"name": "A.1", "parent": "A"},
        {"name": "B", "parent": "None"},
    ],
}


def listed(database: Database, pathogen: int = 1) -> list[str]:
    query = "SELECT lineage FROM aspen.pathogen_lineages WHERE pathogen_id = :p ORDER BY 1"
    return [one["lineage"] for one in rows(database, query, p=pathogen)]


def test_pango_list_is_replaced(
    seeded: Database, new: NewJob, aws: StandIn, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = len(listed(seeded))
    job = new(file=str(write(tmp_path / "lineage_notes.txt", NOTES)))
    job.run("import-lineages")
    assert listed(seeded) == ["A", "B.1.1.7", "XBB.1.5"]
    assert f"SC2: 3 lineages: 1 added, {before - 2} removed" in capfd.readouterr().err
    keys = [
        one["Key"]
        for one in aws.client("s3").list_objects_v2(
            Bucket="genepi-db-data", Prefix="pangolin_lineages/"
        )["Contents"]
    ]
    assert all(key.endswith("+0000_lineage_notes.txt") for key in keys)
    job.run("import-lineages")
    assert "SC2: 3 lineages: 0 added, 0 removed" in capfd.readouterr().err


def test_mpox_names_and_aliases_are_the_list(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    before = listed(seeded)
    new(pathogen="MPX", file=str(write(tmp_path / "l.json", json.dumps(MPXV)))).run(
        "import-lineages"
    )
    assert listed(seeded, 2) == ["A.1", "A.1.1", "B"]
    assert listed(seeded) == before


@pytest.mark.parametrize(
    ("pathogen", "text", "words"),
    [
        ("SC2", "", "l.txt is empty."),
        ("SC2", "<html>404</html>", "l.txt is a web page or XML"),
        ("SC2", "lineage,description\nA,Root\n", "l.txt is not lineage_notes.txt"),
        ("SC2", "Lineage\tDescription\n", "l.txt has no lineages."),
        ("SC2", "Lineage\tDescription\nA\t\nnot a lineage\tx\n", "on lines 3 ('not a lineage')"),
        ("SC2", json.dumps(MPXV), "l.txt is not lineage_notes.txt"),
        ("MPX", NOTES, "l.txt is not lineages.json of mpxv-lineages, or is incomplete"),
        ("MPX", json.dumps(MPXV)[:-9], "l.txt is not lineages.json of mpxv-lineages"),
        ("MPX", '{"lineages": {}}', "it has no names."),
        ("MPX", '{"lineages": [{"name": 5}]}', "it has no names."),
        ("MPX", '{"lineages": []}', "l.txt has no lineages."),
        ("MPX", '{"lineages": [{"name": ""}]}', "a name that is not a lineage: ''"),
    ],
)
def test_wrong_file_changes_nothing(
    seeded: Database, new: NewJob, tmp_path: Path, pathogen: str, text: str, words: str
) -> None:
    before = listed(seeded), listed(seeded, 2)
    path = write(tmp_path / "l.txt", text)
    assert words in new(pathogen=pathogen, file=str(path)).fails("import-lineages")
    assert (listed(seeded), listed(seeded, 2)) == before


def test_list_that_ends_early_is_refused(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    many = "INSERT INTO aspen.pathogen_lineages SELECT 1, 'Z.' || n FROM generate_series(1, 2000) n"
    execute(seeded, many)
    before = listed(seeded)
    reason = new(file=str(write(tmp_path / "l.txt", NOTES))).fails("import-lineages")
    assert "probably incomplete. Nothing was changed." in reason
    assert listed(seeded) == before
