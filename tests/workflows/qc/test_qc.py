"""The quality job, with stand-ins for Nextclade 2 and 3."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.programs import Version
from aspen.workflows.qc import save as saving
from aspen.workflows.qc.nextclade import Dataset, read_dataset
from aspen.workflows.steps import REFUSED, StepError
from tests.workflows.jobs_rig import (
    Job,
    configure,
    install,
    new_job,
    seconds_of_children,
    surroundings_of,
)

PROGRAM = Path(__file__).with_name("nextclade_program.py")
STEPS = ("qc-prepare", "qc-nextclade", "qc-save")
V2 = {
    "tag.json": {
        "attributes": {
            "name": {"value": "sars-cov-2"},
            "reference": {"value": "MN908947"},
            "tag": {"value": "2023-08-17T12:00:00Z"},
        }
    }
}
V3 = {
    "pathogen.json": {
        "attributes": {"name": "SARS-CoV-2", "reference accession": "MN908947"},
        "version": {"tag": "2024-06-13--23-42-47Z"},
    }
}
_TABLES = ("sample_qc_metrics", "sample_mutations", "sample_lineages", "aligned_pathogen_genome")

NewJob = Callable[..., Job]


@pytest.fixture
def new(seeded: Database, tmp_path: Path) -> NewJob:
    count = iter(range(100))

    def make(ids: list[int] | None = None, **parameters: Any) -> Job:
        given: dict[str, Any] = {"pathogen": "SC2", "sample_ids": ids or [], **parameters}
        return new_job(tmp_path / f"job-{next(count)}", surroundings_of(seeded), **given)

    return make


@pytest.fixture
def nextclade(programs: Path) -> Path:
    return install(programs, "nextclade", PROGRAM, dataset=V2)


def rows(database: Database, query: str, **values: Any) -> list[Any]:
    with database.reading() as session:
        return [*session.execute(sa.text(query), values).mappings()]


def content(database: Database) -> dict[str, list[Any]]:
    return {
        table: sorted(map(repr, rows(database, f"SELECT * FROM aspen.{table}")))
        for table in (*_TABLES, "pathogen_genomes", "entities")
    }


def execute(database: Database, statement: str, **values: Any) -> None:
    with database.begin() as session:
        session.execute(sa.text(statement), values)


def some_ids(database: Database, count: int = 3) -> list[int]:
    found = rows(database, "SELECT id FROM aspen.samples ORDER BY id LIMIT :n", n=count)
    return [row["id"] for row in found]


def test_results_are_stored_with_version_and_dataset(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    ids = some_ids(seeded)
    new(ids).run(*STEPS)
    (found,) = rows(
        seeded, "SELECT * FROM aspen.sample_qc_metrics WHERE sample_id = :id", id=ids[0]
    )
    assert (found["qc_score"], found["qc_status"], found["qc_caller"]) == (
        "12.5",
        "good",
        "NEXTCLADE",
    )
    assert found["qc_software_version"] == "2.14.0"
    assert found["reference_dataset_name"] == "sars-cov-2"
    assert found["reference_sequence_accession"] == "MN908947"
    assert found["reference_dataset_tag"] == "2023-08-17T12:00:00Z"
    assert found["raw_qc_output"]["seqName"] == str(ids[0])
    (mutated,) = rows(
        seeded, "SELECT * FROM aspen.sample_mutations WHERE sample_id = :id", id=ids[0]
    )
    assert (mutated["substitutions"], mutated["aa_substitutions"]) == ("A1C", "S:D614G")
    assert (mutated["insertions"], mutated["aa_insertions"]) == ("", "")
    (aligned,) = rows(
        seeded,
        "SELECT * FROM aspen.aligned_pathogen_genome JOIN aspen.pathogen_genomes"
        " ON entity_id = pathogen_genome_id WHERE sample_id = :id",
        id=ids[0],
    )
    assert (len(aligned["sequence"]), aligned["reference_name"]) == (900, "MN908947")
    counted = ("num_unambiguous_sites", "num_missing_alleles", "num_mixed")
    gaps = aligned["sequence"].count("-")
    assert sum(aligned[name] for name in counted) == 900 - gaps


def test_results_of_version_3_are_stored(seeded: Database, new: NewJob, nextclade: Path) -> None:
    configure(nextclade, {"version": "nextclade 3.8.2", "dataset": V3})
    ids = some_ids(seeded)
    new(ids).run(*STEPS)
    (found,) = rows(
        seeded, "SELECT * FROM aspen.sample_qc_metrics WHERE sample_id = :id", id=ids[0]
    )
    assert found["qc_software_version"] == "3.8.2"
    assert found["reference_dataset_tag"] == "2024-06-13--23-42-47Z"
    # The name in the dataset is another one; samples would always count as stale.
    assert found["reference_dataset_name"] == "sars-cov-2"


def test_sars_cov_2_lineages_are_left_to_pangolin(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    before = rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id")
    new(some_ids(seeded)).run(*STEPS)
    assert rows(seeded, "SELECT * FROM aspen.sample_lineages ORDER BY id") == before


@pytest.mark.parametrize(
    ("more", "lineage"), [({"lineage": "B.1.7"}, "B.1.7"), ({}, "20C"), ({"lineage": ""}, "FAILED")]
)
def test_other_pathogens_get_lineage_or_clade(
    seeded: Database, new: NewJob, nextclade: Path, more: dict[str, str], lineage: str
) -> None:
    ids = some_ids(seeded)
    execute(seeded, "UPDATE aspen.samples SET pathogen_id = 2 WHERE id = ANY(:ids)", ids=ids)
    configure(nextclade, {"dataset": V2, "more": more})
    new(ids, pathogen="MPX").run(*STEPS)
    query = (
        "SELECT lineage, lineage_software_version AS version, reference_dataset_name AS dataset"
        " FROM aspen.sample_lineages WHERE sample_id = :id AND lineage_type = 'NEXTCLADE'"
    )
    (found,) = rows(seeded, query, id=ids[0])
    assert dict(found) == {"lineage": lineage, "version": "2.14.0", "dataset": "hMPXV"}


def test_sequence_without_bases_is_invalid(seeded: Database, new: NewJob, nextclade: Path) -> None:
    first, second, _ = ids = some_ids(seeded)
    execute(
        seeded,
        "UPDATE aspen.pathogen_genomes SET sequence = repeat('N', 2000) WHERE entity_id ="
        " (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)",
        id=first,
    )
    new(ids).run(*STEPS)
    query = "SELECT qc_score, qc_status FROM aspen.sample_qc_metrics WHERE sample_id = :id"
    assert [*map(dict, rows(seeded, query, id=first))] == [
        {"qc_score": None, "qc_status": "invalid"}
    ]
    assert rows(seeded, query, id=second)[0]["qc_status"] == "good"
    aligned = "SELECT FROM aspen.aligned_pathogen_genome WHERE sample_id = :id"
    assert rows(seeded, aligned, id=first) == []


def test_second_run_replaces_rows_and_adds_none(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    ids = some_ids(seeded)
    new(ids).run(*STEPS)
    counts = {table: len(found) for table, found in content(seeded).items()}
    aligned = rows(seeded, "SELECT * FROM aspen.aligned_pathogen_genome ORDER BY sample_id")
    configure(nextclade, {"version": "nextclade 2.15.0", "dataset": V2})
    new(ids).run(*STEPS)
    assert {table: len(found) for table, found in content(seeded).items()} == counts
    versions = (
        "SELECT DISTINCT qc_software_version AS v FROM aspen.sample_qc_metrics"
        " WHERE sample_id = ANY(:ids)"
    )
    assert [row["v"] for row in rows(seeded, versions, ids=ids)] == ["2.15.0"]
    # The same alignment to the same reference stays as it is.
    again = rows(seeded, "SELECT * FROM aspen.aligned_pathogen_genome ORDER BY sample_id")
    assert again == aligned


def test_aligned_genome_of_another_reference_is_replaced(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    ids = some_ids(seeded)
    new(ids).run(*STEPS)
    entities = (
        "SELECT pathogen_genome_id AS id, reference_name FROM aspen.aligned_pathogen_genome"
        " ORDER BY 1"
    )
    before = rows(seeded, entities)
    other = {"tag.json": {**V2["tag.json"], "reference": {"accession": "BA.2"}}}
    configure(nextclade, {"dataset": other})
    new(ids).run(*STEPS)
    after = rows(seeded, entities)
    assert [row["id"] for row in after] == [row["id"] for row in before]
    assert {row["reference_name"] for row in after} == {"BA.2"}


def test_refresh_takes_stale_samples_only(seeded: Database, new: NewJob, nextclade: Path) -> None:
    total = len(rows(seeded, "SELECT FROM aspen.samples"))
    first = new(run_type="refresh-stale")
    first.run(*STEPS)
    assert len(json.loads((first.folder / "qc-prepare" / "samples.json").read_text())) == total
    second = new(run_type="refresh-stale")
    second.run(*STEPS)
    assert (second.folder / "qc-prepare" / "samples.json").read_text() == "{}"
    changed, no_row, _ = some_ids(seeded)
    execute(
        seeded,
        "UPDATE aspen.sample_qc_metrics SET reference_dataset_tag = NULL WHERE sample_id = :id",
        id=changed,
    )
    execute(seeded, "DELETE FROM aspen.sample_qc_metrics WHERE sample_id = :id", id=no_row)
    third = new(run_type="refresh-stale")
    third.run(*STEPS)
    found = json.loads((third.folder / "qc-prepare" / "samples.json").read_text())
    assert sorted(map(int, found)) == [changed, no_row]


def test_force_all_takes_every_sample_of_the_pathogen(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    moved, *_ = some_ids(seeded)
    execute(seeded, "UPDATE aspen.samples SET pathogen_id = 2 WHERE id = :id", id=moved)
    new(run_type="force-all").run(*STEPS)
    again = new(run_type="force-all")
    again.run("qc-prepare")
    found = json.loads((again.folder / "qc-prepare" / "samples.json").read_text())
    assert len(found) == len(rows(seeded, "SELECT FROM aspen.samples")) - 1


def test_pathogen_without_dataset_ends_refresh_quietly(new: NewJob, nextclade: Path) -> None:
    new(pathogen="HCV", run_type="refresh-stale").run(*STEPS)
    reason = new(pathogen="HCV", run_type="force-all").fails("qc-prepare")
    assert "HCV has no Nextclade dataset" in reason


def test_sample_of_another_pathogen_is_refused(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    ids = some_ids(seeded)
    reason = new(ids, pathogen="MPX").fails("qc-prepare")
    assert reason == f"Not samples of MPX: {', '.join(f'{one} (SC2)' for one in ids)}."


def test_unknown_pathogen_and_missing_ids_are_refused(new: NewJob, nextclade: Path) -> None:
    assert "There is no pathogen 'XYZ' (known: HCV, MPX, SC2)" in new([1], pathogen="XYZ").fails(
        "qc-prepare"
    )
    assert new([]).fails("qc-prepare") == "No sample was given."
    assert new([999_999]).fails("qc-prepare") == "None of the given samples exists: 999999."


def test_deleted_sample_does_not_stop_the_others(
    seeded: Database, new: NewJob, nextclade: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ids = some_ids(seeded)
    job = new([*ids, 999_999])
    job.run(*STEPS)
    log = capfd.readouterr().err
    assert "these samples no longer exist: 999999" in log
    assert "Stored the quality and mutations of 3 samples." in log


def test_sample_without_genome_is_named(seeded: Database, new: NewJob, nextclade: Path) -> None:
    first, second, _ = some_ids(seeded)
    execute(
        seeded,
        "UPDATE aspen.pathogen_genomes SET sequence = '' WHERE entity_id ="
        " (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)",
        id=first,
    )
    reason = new([first]).fails("qc-prepare")
    assert reason.startswith(f"None of the samples has a genome: {first} (")
    job = new([first, second])
    job.run(*STEPS)
    assert list(json.loads((job.folder / "qc-prepare" / "samples.json").read_text())) == [
        str(second)
    ]


def test_headers_inside_uploaded_sequences_are_dropped(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    first, *_ = some_ids(seeded)
    execute(
        seeded,
        "UPDATE aspen.pathogen_genomes SET sequence = E'>x 1\\nACGT\\nnnac\\n' WHERE entity_id ="
        " (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)",
        id=first,
    )
    job = new([first])
    job.run("qc-prepare")
    written = (job.folder / "qc-prepare" / "sequences.fasta").read_text()
    assert written == f">{first}\nACGTNNAC\n"


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crash", "nextclade 2.14.0 failed with exit code 101: thread 'main' panicked"),
        ("half", "nextclade 2.14.0 wrote an incomplete row (line 4)."),
        ("nothing", "nextclade 2.14.0 wrote no nextclade.tsv."),
        ("columns", "nextclade 2.14.0 wrote nextclade.tsv without qc.overallStatus."),
        ("foreign", "nextclade 2.14.0 returned sequences that it was not given: 999999."),
        ("missing", "nextclade 2.14.0 returned no result for 1 of 3 samples: "),
        ("repeated", "nextclade 2.14.0 returned more than one result for samples "),
    ],
)
def test_broken_program_changes_nothing(
    seeded: Database, new: NewJob, nextclade: Path, mode: str, words: str
) -> None:
    before = content(seeded)
    configure(nextclade, {"dataset": V2, "mode": mode})
    assert new(some_ids(seeded)).fails("qc-prepare", "qc-nextclade").startswith(words)
    assert content(seeded) == before


def test_missing_program_fails_at_once_with_instructions(
    seeded: Database, new: NewJob, programs: Path
) -> None:
    before, job = content(seeded), new(some_ids(seeded))
    job.start("qc-prepare").communicate()  # compiles the modules
    began = seconds_of_children()
    process = job.start("qc-prepare")
    _, log = process.communicate()
    seconds = seconds_of_children() - began
    assert process.returncode == REFUSED, log
    reason = job.reason("qc-prepare")
    assert reason.startswith("The program nextclade is not on the worker's PATH; no sample was")
    assert "npm install --global @nextstrain/nextclade@0.14.4" in reason
    assert "Traceback" not in log
    assert content(seeded) == before
    assert seconds < 2


def test_unsupported_or_foreign_program_is_refused(new: NewJob, nextclade: Path) -> None:
    configure(nextclade, {"version": "nextclade 1.11.0"})
    assert new([1]).fails("qc-prepare").startswith("nextclade 1.11.0 is not supported")
    configure(nextclade, {"version": "Usage: nextclade FILE"})
    assert "it is not Nextclade" in new([1]).fails("qc-prepare")
    configure(nextclade, {"version": "no", "version_code": 3})
    assert "--version failed with exit code 3: no" in new([1]).fails("qc-prepare")


def test_dataset_that_cannot_be_downloaded_is_named(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    configure(nextclade, {"no_dataset": True})
    reason = new(some_ids(seeded)).fails("qc-prepare")
    assert reason == (
        "nextclade 2.14.0 dataset get --name sars-cov-2 failed with exit code 1: Error: no network"
    )


def test_program_replaced_during_the_job_is_noticed(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    job = new(some_ids(seeded))
    job.run("qc-prepare")
    configure(nextclade, {"version": "nextclade 3.8.2", "dataset": V3})
    assert "2.14.0 is now 3.8.2" in job.fails("qc-nextclade")


def test_changed_or_deleted_genome_gets_no_result(
    seeded: Database, new: NewJob, nextclade: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed, kept, _ = ids = some_ids(seeded)
    execute(seeded, "DELETE FROM aspen.sample_qc_metrics WHERE sample_id = ANY(:ids)", ids=ids)
    job = new(ids)
    job.run(*STEPS[:2])
    execute(
        seeded,
        "UPDATE aspen.pathogen_genomes SET sequence = 'ACGT' WHERE entity_id ="
        " (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)",
        id=changed,
    )
    job.run(STEPS[2])
    query = "SELECT sample_id FROM aspen.sample_qc_metrics WHERE sample_id = ANY(:ids)"
    assert changed not in {row["sample_id"] for row in rows(seeded, query, ids=ids)}
    assert kept in {row["sample_id"] for row in rows(seeded, query, ids=ids)}
    assert f"has changed meanwhile: {changed}" in capfd.readouterr().err


def test_interrupted_save_leaves_whole_samples_and_can_be_repeated(
    seeded: Database, new: NewJob, nextclade: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [row["id"] for row in rows(seeded, "SELECT id FROM aspen.samples ORDER BY id")]
    for table in ("sample_qc_metrics", "sample_mutations"):
        execute(seeded, f"DELETE FROM aspen.{table}")
    job = new(ids)
    job.run(*STEPS[:2])
    monkeypatch.setattr(saving, "_BATCH", 20)
    calls = iter(range(10))
    original = saving._save_aligned

    def interrupted(*arguments: Any) -> None:
        original(*arguments)
        if next(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(saving, "_save_aligned", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.run(STEPS[2])
    tables = ("sample_qc_metrics", "sample_mutations", "aligned_pathogen_genome")
    for table in tables:
        assert len(rows(seeded, f"SELECT FROM aspen.{table}")) == 20
    job.run(STEPS[2])
    for table in tables:
        assert len(rows(seeded, f"SELECT FROM aspen.{table}")) == len(ids)


def test_killed_save_leaves_no_half_written_sample(
    seeded: Database, new: NewJob, nextclade: Path
) -> None:
    ids = [row["id"] for row in rows(seeded, "SELECT id FROM aspen.samples ORDER BY id")]
    for table in ("sample_qc_metrics", "sample_mutations"):
        execute(seeded, f"DELETE FROM aspen.{table}")
    job = new(ids)
    job.run(*STEPS[:2])
    # Wait until it writes: a lock on one sample stops it in the middle of its transaction.
    with seeded.begin() as session:
        lock = "SELECT FROM aspen.samples WHERE id = :id FOR UPDATE"
        session.execute(sa.text(lock), {"id": ids[-1]})
        process = job.start("qc-save")
        waiting = (
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'aspen job %'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not rows(seeded, waiting):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    counted = [
        len(rows(seeded, f"SELECT FROM aspen.{table}"))
        for table in _TABLES
        if table != "sample_lineages"
    ]
    assert counted == [0, 0, 0]
    job.run("qc-save")
    counted = [
        len(rows(seeded, f"SELECT FROM aspen.{table}"))
        for table in _TABLES
        if table != "sample_lineages"
    ]
    assert counted == [len(ids)] * 3


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_program_ends_with_its_step(
    seeded: Database, new: NewJob, nextclade: Path, tmp_path: Path
) -> None:
    job = new(some_ids(seeded))
    job.run("qc-prepare")
    written = tmp_path / "pid"
    configure(nextclade, {"pid": str(written)})
    process = job.start("qc-nextclade")
    while not (written.exists() and written.read_text().endswith("\n")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    pid = int(written.read_text())
    while _is_running(pid):
        time.sleep(0.05)  # the test's time limit ends this
    before = rows(seeded, "SELECT * FROM aspen.sample_qc_metrics ORDER BY id")
    configure(nextclade, {"dataset": V2})
    job.run("qc-nextclade", "qc-save")
    assert rows(seeded, "SELECT * FROM aspen.sample_qc_metrics ORDER BY id") != before


@pytest.mark.parametrize(
    ("name", "document", "expected"),
    [
        (
            "tag.json",
            {"name": "x", "reference": {"accession": "MN1"}, "tag": "2022"},
            ("MN1", "2022"),
        ),
        ("tag.json", {"reference": "MN2", "tag": "2021"}, ("MN2", "2021")),
        ("tag.json", V2["tag.json"], ("MN908947", "2023-08-17T12:00:00Z")),
        ("pathogen.json", V3["pathogen.json"], ("MN908947", "2024-06-13--23-42-47Z")),
    ],
)
def test_dataset_describes_itself(
    tmp_path: Path, name: str, document: dict[str, Any], expected: tuple[str, str]
) -> None:
    (tmp_path / name).write_text(json.dumps(document))
    assert read_dataset(tmp_path, "one") == Dataset("one", *expected)


def test_dataset_without_tag_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="neither tag"):
        read_dataset(tmp_path, "one")
    (tmp_path / "pathogen.json").write_text('{"attributes": {"reference accession": "X"}}')
    with pytest.raises(StepError, match="no reference or no tag"):
        read_dataset(tmp_path, "one")


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("nextclade 2.14.0", Version("2.14.0", 2, 14)),
        ("0.14.4", Version("0.14.4", 0, 14)),
        ("nextclade 3.8.2-beta", Version("3.8.2", 3, 8)),
        ("usage", None),
    ],
)
def test_version_is_found(printed: str, expected: Version | None) -> None:
    assert Version.find(printed) == expected
