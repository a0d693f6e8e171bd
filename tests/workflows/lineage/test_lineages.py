"""The lineage job, with a stand-in for pangolin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.steps import REFUSED
from tests.workflows.jobs_rig import (
    Job,
    configure,
    install,
    new_job,
    seconds_of_children,
    surroundings_of,
)

PROGRAM = Path(__file__).with_name("pangolin_program.py")
STEPS = ("lineages-prepare", "lineages-pangolin", "lineages-save")
_FOUND = "SELECT * FROM aspen.sample_lineages WHERE sample_id = :id AND lineage_type = 'PANGOLIN'"

NewJob = Callable[..., Job]


@pytest.fixture
def new(seeded: Database, tmp_path: Path) -> NewJob:
    count = iter(range(100))

    def make(ids: list[int] | None = None, **parameters: Any) -> Job:
        given: dict[str, Any] = {"pathogen": "SC2", "sample_ids": ids or [], **parameters}
        return new_job(tmp_path / f"job-{next(count)}", surroundings_of(seeded), **given)

    return make


@pytest.fixture
def pangolin(programs: Path) -> Path:
    return install(programs, "pangolin", PROGRAM)


def rows(database: Database, query: str, **values: Any) -> list[Any]:
    with database.reading() as session:
        return [*session.execute(sa.text(query), values).mappings()]


def execute(database: Database, statement: str, **values: Any) -> None:
    with database.begin() as session:
        session.execute(sa.text(statement), values)


def some_ids(database: Database, count: int = 3) -> list[int]:
    found = rows(database, "SELECT id FROM aspen.samples ORDER BY id LIMIT :n", n=count)
    return [row["id"] for row in found]


def prepared(job: Job) -> list[int]:
    found = json.loads((job.folder / "lineages-prepare" / "samples.json").read_text())
    return sorted(map(int, found))


@pytest.mark.parametrize("columns", [[], ["expanded_lineage"]], ids=["4.0", "4.3"])
def test_lineages_are_stored(
    seeded: Database, new: NewJob, pangolin: Path, columns: list[str]
) -> None:
    first, second, third = ids = some_ids(seeded)
    configure(
        pangolin,
        {
            "columns": columns,
            "rows": {
                str(second): {
                    "lineage": "B.1.1.7",
                    "ambiguity_score": "",
                    "version": "PANGO-v1.23.1",
                    "note": "Assigned from designation hash.",
                },
                str(third): {"lineage": "Unassigned", "ambiguity_score": "", "qc_status": "fail"},
            },
        },
    )
    new(ids).run(*STEPS)
    (one,) = rows(seeded, _FOUND, id=first)
    assert (one["lineage"], one["lineage_probability"]) == ("BA.2", 99)
    assert one["lineage_software_version"] == "PUSHER-v1.23.1"
    assert one["raw_lineage_output"]["scorpio_call"] == "Omicron (BA.2-like)"
    assert "scorpio_notes" not in one["raw_lineage_output"]  # it is empty
    assert one["last_updated"] is not None
    (two,) = rows(seeded, _FOUND, id=second)
    assert (two["lineage"], two["lineage_probability"]) == ("B.1.1.7", 100)
    (three,) = rows(seeded, _FOUND, id=third)
    assert (three["lineage"], three["lineage_probability"]) == ("Unassigned", None)


def test_same_public_identifier_in_two_groups_is_not_confused(
    seeded: Database, new: NewJob, pangolin: Path
) -> None:
    first, second, _ = some_ids(seeded)
    execute(
        seeded,
        "UPDATE aspen.samples SET submitting_group_id = 2, public_identifier ="
        " (SELECT public_identifier FROM aspen.samples WHERE id = :first) WHERE id = :second",
        first=first,
        second=second,
    )
    before = rows(seeded, _FOUND, id=first)
    configure(pangolin, {"all": {"lineage": "XBB.1"}})
    new([second]).run(*STEPS)
    assert rows(seeded, _FOUND, id=first) == before
    assert rows(seeded, _FOUND, id=second)[0]["lineage"] == "XBB.1"


def test_second_run_replaces_rows_and_adds_none(
    seeded: Database, new: NewJob, pangolin: Path
) -> None:
    ids = some_ids(seeded)
    new(ids).run(*STEPS)
    count = len(rows(seeded, "SELECT FROM aspen.sample_lineages"))
    configure(pangolin, {"all": {"lineage": "XBB.1"}})
    new(ids).run(*STEPS)
    assert len(rows(seeded, "SELECT FROM aspen.sample_lineages")) == count
    assert {rows(seeded, _FOUND, id=one)[0]["lineage"] for one in ids} == {"XBB.1"}


def test_refresh_compares_the_trailing_version(
    seeded: Database, new: NewJob, pangolin: Path
) -> None:
    new(run_type="force-all").run(*STEPS)
    again = new(run_type="refresh-stale")
    again.run(*STEPS)
    assert prepared(again) == []
    old, by_scorpio, old_scorpio = some_ids(seeded)
    change = "UPDATE aspen.sample_lineages SET lineage_software_version = :v WHERE sample_id = :id"
    execute(seeded, change, v="PUSHER-v1.22", id=old)
    execute(seeded, change, v="SCORPIO_v0.1.12", id=by_scorpio)
    execute(seeded, change, v="SCORPIO_v0.1.10", id=old_scorpio)
    stale = new(run_type="refresh-stale")
    stale.run("lineages-prepare")
    assert prepared(stale) == sorted([old, old_scorpio])


def test_unknown_ends_are_stripped_and_empty_genomes_skipped(
    seeded: Database, new: NewJob, pangolin: Path
) -> None:
    first, second, _ = some_ids(seeded)
    change = (
        "UPDATE aspen.pathogen_genomes SET sequence = :text WHERE entity_id ="
        " (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)"
    )
    execute(seeded, change, text="NNACGNTnn", id=first)
    execute(seeded, change, text="NNNN", id=second)
    job = new([first, second])
    job.run("lineages-prepare")
    written = (job.folder / "lineages-prepare" / "sequences.fasta").read_text()
    assert written == f">{first}\nACGNT\n"
    assert new([second]).fails("lineages-prepare").startswith("None of the samples has a genome")


def test_other_pathogen_is_refused(seeded: Database, new: NewJob, pangolin: Path) -> None:
    reason = new(some_ids(seeded), pathogen="MPX").fails("lineages-prepare")
    assert reason.startswith("pangolin knows SARS-CoV-2 only; lineages of MPX come from")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crash", "pangolin 4.3.1 failed with exit code 255: Error: minimap2 is not installed"),
        ("half", "pangolin 4.3.1 wrote an incomplete row (line 4)."),
        ("nothing", "pangolin 4.3.1 wrote no lineage_report.csv."),
        ("columns", "pangolin 4.3.1 wrote lineage_report.csv without version."),
        ("foreign", "pangolin 4.3.1 returned sequences that it was not given: hCoV-19/USA/CA-1"),
        ("missing", "pangolin 4.3.1 returned no result for 1 of 3 samples: "),
    ],
)
def test_broken_program_changes_nothing(
    seeded: Database, new: NewJob, pangolin: Path, mode: str, words: str
) -> None:
    before = rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id")
    configure(pangolin, {"mode": mode})
    reason = new(some_ids(seeded)).fails("lineages-prepare", "lineages-pangolin")
    assert reason.startswith(words)
    assert rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id") == before


def test_missing_program_fails_at_once_with_instructions(
    seeded: Database, new: NewJob, programs: Path
) -> None:
    before = rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id")
    job = new(some_ids(seeded))
    job.start("lineages-prepare").communicate()  # compiles the modules
    began = seconds_of_children()
    process = job.start("lineages-prepare")
    _, log = process.communicate()
    seconds = seconds_of_children() - began
    assert process.returncode == REFUSED, log
    reason = job.reason("lineages-prepare")
    assert reason.startswith("The program pangolin is not on the worker's PATH; no sample was")
    assert "Install pangolin 4 (https://cov-lineages.org" in reason
    assert "Traceback" not in log
    assert rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id") == before
    assert seconds < 2


def test_another_program_of_that_name_is_refused(new: NewJob, pangolin: Path) -> None:
    configure(pangolin, {"version": "Pango 1.0, a text renderer 4.2"})
    assert "it is not the pangolin that assigns lineages" in new([1]).fails("lineages-prepare")
    configure(pangolin, {"version": "pangolin 3.1.20"})
    assert new([1]).fails("lineages-prepare").startswith("pangolin 3.1.20 is not supported")
    configure(pangolin, {"data": "none"})
    assert "does not state the version of its data" in new([1]).fails("lineages-prepare")


def test_score_that_is_not_a_number_is_refused(
    seeded: Database, new: NewJob, pangolin: Path
) -> None:
    configure(pangolin, {"all": {"ambiguity_score": "high"}})
    reason = new(some_ids(seeded)).fails("lineages-prepare", "lineages-pangolin")
    assert reason.endswith("the ambiguity score 'high'.")


def test_updated_program_is_noticed(seeded: Database, new: NewJob, pangolin: Path) -> None:
    job = new(some_ids(seeded))
    job.run("lineages-prepare")
    configure(pangolin, {"data": "pangolin-data 1.24"})
    assert job.fails("lineages-pangolin") == (
        "pangolin was updated while the job ran. Start the job again."
    )
