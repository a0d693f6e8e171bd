"""Imports of public repositories."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows import reading
from aspen.workflows.imports import repository
from aspen.workflows.imports.align import ALIGNER
from aspen.workflows.imports.dump import Dump, Names
from aspen.workflows.imports.metadata import read_metadata
from aspen.workflows.reading import sequences
from aspen.workflows.steps import StepError
from tests.local.test_aws import StandIn
from tests.workflows.imports.conftest import (
    GENBANK,
    GISAID,
    LENGTH,
    NewJob,
    execute,
    fasta,
    row,
    rows,
    table,
    write,
)
from tests.workflows.jobs_rig import SHARED, needs_shared_data

STEPS = ("repository-fetch", "repository-align", "repository-save")
_TABLES = (
    *("entities", "workflows", "raw_repository_data", "processed_repository_data"),
    *("aligned_repository_data", "public_repository_metadata", "locations", "accessions"),
)


def dump(
    folder: Path, count: int = 3, *, packing: str = "", columns: list[str] = GISAID, **changes: Any
) -> dict[str, str]:
    """Write the two files of a dump; return the parameters of a job that imports it."""
    records = [row(number, **changes) for number in range(1, count + 1)]
    name = columns[0]
    metadata = write(folder / f"metadata.tsv{packing}", table(columns, records))
    letters = write(folder / f"sequences.fasta{packing}", fasta([one[name] for one in records]))
    return {"repository": "GISAID", "metadata": str(metadata), "sequences": str(letters)}


def content(database: Database) -> dict[str, list[str]]:
    return {one: sorted(map(repr, rows(database, f"SELECT * FROM aspen.{one}"))) for one in _TABLES}


def newest(database: Database) -> dict[str, Any]:
    (found,) = rows(
        database,
        "SELECT * FROM aspen.aligned_repository_data ORDER BY entity_id DESC LIMIT 1",
    )
    return found


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
def test_dump_is_stored_with_its_rows(
    seeded: Database, new: NewJob, aws: StandIn, tmp_path: Path, packing: str
) -> None:
    new(**dump(tmp_path, packing=packing)).run(*STEPS)
    found = rows(seeded, "SELECT * FROM aspen.public_repository_metadata ORDER BY strain")
    assert [one["strain"] for one in found] == [f"USA/CA-X{n}/2021" for n in (1, 2, 3)]
    assert (found[0]["isl"], found[0]["lineage"]) == ("EPI_ISL_1", "B.1.429")
    assert str(found[0]["date"]) == "2021-03-05 00:00:00"
    workflows = rows(
        seeded,
        "SELECT workflow_type AS kind, workflow_status AS status, start_datetime AS start,"
        " end_datetime AS ended FROM aspen.workflows WHERE workflow_type LIKE '%REPOSITORY%'"
        " ORDER BY end_datetime",
    )
    assert [one["kind"] for one in workflows] == [
        "DOWNLOAD_PUBLIC_REPOSITORY_DATA",
        "ALIGN_PUBLIC_REPOSITORY_DATA",
    ]
    assert {one["status"] for one in workflows} == {"COMPLETED"}
    assert all(one["start"] <= one["ended"] for one in workflows)
    linked = rows(
        seeded,
        "SELECT entity_type AS kind FROM aspen.workflow_inputs JOIN aspen.entities ON id ="
        " entity_id JOIN aspen.workflows w ON w.id = workflow_id WHERE workflow_type LIKE"
        " '%REPOSITORY%' ORDER BY 1",
    )
    assert [one["kind"] for one in linked] == [
        "PROCESSED_PUBLIC_REPOSITORY_DATA",
        "RAW_PUBLIC_REPOSITORY_DATA",
    ]
    keys = [newest(seeded)["sequences_s3_key"], newest(seeded)["metadata_s3_key"]]
    assert [key.split("/")[0::2] for key in keys] == [
        ["aligned_gisaid_dump", "aligned_gisaid.fasta.xz"],
        ["aligned_gisaid_dump", "sanitized_metadata_gisaid.tsv.xz"],
    ]
    local = tmp_path / "aligned.fasta.xz"
    aws.client("s3").download_file(newest(seeded)["s3_bucket"], keys[0], str(local))
    assert [name for name, _ in sequences(local)] == [f"USA/CA-X{n}/2021" for n in (1, 2, 3)]
    raw = rows(seeded, "SELECT * FROM aspen.raw_repository_data")[-1]
    assert raw["s3_key"].endswith(f"/metadata.tsv{packing}")
    stored = aws.client("s3").get_object(Bucket=raw["s3_bucket"], Key=raw["s3_key"])
    assert stored["Body"].read() == (tmp_path / f"metadata.tsv{packing}").read_bytes()


def test_genbank_names_sequences_by_accession(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    given = {**dump(tmp_path, columns=GENBANK), "repository": "GenBank", "pathogen": "MPX"}
    new(**given).run(*STEPS)
    found = rows(seeded, "SELECT * FROM aspen.public_repository_metadata ORDER BY strain")
    assert (found[0]["strain"], found[0]["isl"]) == ("OX000001", "OX000001.1")
    assert found[0]["lineage"] == "B.1.7"
    key = newest(seeded)["sequences_s3_key"]
    assert key.split("/")[0::2] == ["aligned_genbank_mpx_dump", "alignment.fasta.xz"]


def test_unknown_values_and_incomplete_dates_are_null(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    given = dump(tmp_path, date="2021-03-XX", gisaid_epi_isl="?", location="", pango_lineage="?")
    new(**given).run(*STEPS)
    found = rows(seeded, "SELECT * FROM aspen.public_repository_metadata")
    assert {(one["date"], one["isl"], one["location"], one["lineage"]) for one in found} == {
        (None,) * 4
    }


def test_second_import_replaces_the_metadata(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    new(**dump(tmp_path, 5)).run(*STEPS)
    first = newest(seeded)
    new(**dump(tmp_path, 2)).run(*STEPS)
    assert len(rows(seeded, "SELECT FROM aspen.public_repository_metadata")) == 2
    assert newest(seeded)["sequences_s3_key"] != first["sequences_s3_key"]


def test_other_sources_stay(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    new(**dump(tmp_path, 5)).run(*STEPS)
    new(**{**dump(tmp_path, 2), "repository": "GenBank"}).run(*STEPS)
    query = (
        "SELECT public_repository_id AS id, count(*) FROM aspen.public_repository_metadata"
        " GROUP BY 1 ORDER BY 1"
    )
    assert [one["count"] for one in rows(seeded, query)] == [5, 2]


def test_save_that_ran_twice_adds_nothing(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    job = new(**dump(tmp_path))
    job.run(*STEPS)
    before = content(seeded)
    job.run("repository-save")
    assert content(seeded) == before


def test_places_are_added_at_every_level_once(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    # California is known, so its new place must be added to it.
    before = rows(seeded, "SELECT * FROM aspen.locations")
    assert any(one["division"] == "California" for one in before)
    given = dump(tmp_path, location="Newtown")
    new(**given).run(*STEPS)
    new(**given).run(*STEPS)
    added = [
        tuple(one[level] for level in ("region", "country", "division", "location"))
        for one in rows(seeded, "SELECT * FROM aspen.locations ORDER BY id")
        if one not in before
    ]
    assert added == [("North America", "USA", "California", "Newtown")]
    new(**dump(tmp_path, country="Utopia", division="Amaurot", location="")).run(*STEPS)
    found = rows(seeded, "SELECT * FROM aspen.locations WHERE country = 'Utopia' ORDER BY id")
    assert [(one["division"], one["location"]) for one in found] == [
        (None, None),
        ("Amaurot", None),
    ]


def test_imports_at_the_same_time_add_places_once(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    jobs = []
    for name in ("GISAID", "GenBank"):
        (tmp_path / name).mkdir()
        jobs.append(
            new(**{**dump(tmp_path / name, country="Utopia", division=""), "repository": name})
        )
    for job in jobs:
        job.run(*STEPS[:2])
    processes = [job.start("repository-save") for job in jobs]
    assert [(process.communicate(), process.returncode)[1] for process in processes] == [0, 0]
    found = rows(seeded, "SELECT * FROM aspen.locations WHERE country = 'Utopia'")
    assert sorted(str(one["location"]) for one in found) == ["Marin County", "None"]


def test_accessions_are_added_to_samples_of_the_same_name(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    first, second, third = [
        one["id"] for one in rows(seeded, "SELECT id FROM aspen.samples ORDER BY id LIMIT 3")
    ]
    execute(seeded, "DELETE FROM aspen.accessions")
    for sample, name in (
        (first, "HCOV-19/USA/CA-X1/2021"),
        (second, "USA/CA-X2/2021"),
        (third, "hCoV-19/USA/ca-x3/2021"),
    ):
        change = "UPDATE aspen.samples SET public_identifier = :name WHERE id = :id"
        execute(seeded, change, name=name, id=sample)
    new(**dump(tmp_path)).run(*STEPS)
    query = "SELECT sample_id, accession_type AS kind, accession FROM aspen.accessions ORDER BY 1"
    expected = [
        {"sample_id": first, "kind": "GISAID_ISL", "accession": "EPI_ISL_1"},
        {"sample_id": second, "kind": "GISAID_ISL", "accession": "EPI_ISL_2"},
    ]
    assert rows(seeded, query) == expected
    execute(seeded, "UPDATE aspen.accessions SET accession = 'OLD' WHERE sample_id = :id", id=first)
    new(**dump(tmp_path)).run(*STEPS)
    assert rows(seeded, query) == expected


def test_damaged_and_repeated_rows_are_skipped(
    seeded: Database, new: NewJob, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = dump(tmp_path, 300)
    metadata = Path(given["metadata"])
    text = metadata.read_text()
    metadata.write_text(text + text.splitlines()[1] + "\n" + "x\t" * 20 + "\n")
    with Path(given["sequences"]).open("a") as file:
        file.write(fasta(["stranger", "USA/CA-X1/2021"], 4))
    new(**given).run(*STEPS)
    assert len(rows(seeded, "SELECT FROM aspen.public_repository_metadata")) == 300
    log = capfd.readouterr().err
    assert "1 repeated and 1 damaged rows were skipped" in log
    assert "1 without metadata and 1 repeated ones were skipped" in log


def _breaks(given: dict[str, str], what: str) -> None:
    metadata, letters = Path(given["metadata"]), Path(given["sequences"])
    whole = metadata.read_bytes()
    if what == "empty":
        metadata.write_bytes(b"")
    elif what == "web page":
        metadata.write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    elif what == "columns":
        metadata.write_text("a\tb\n1\t2\n")
    elif what == "no rows":
        metadata.write_text("\t".join(GISAID) + "\n")
    elif what == "cut":
        metadata.write_bytes(whole[: len(whole) // 2])
    elif what == "binary":
        metadata.write_bytes(b"\xff\xfe\0binary\n")
    elif what == "many damaged":
        metadata.write_bytes(whole + b"x\t" * 30 + b"\n")
    elif what == "missing":
        metadata.unlink()
    elif what == "no FASTA":
        letters.write_text("ACGT\n")
    elif what == "other names":
        letters.write_text(fasta(["a", "b"]))
    elif what == "cut sequence":
        letters.write_text(">USA/CA-X1/2021\nACGT\n>USA/CA-X2/2021\n")


@pytest.mark.parametrize(
    ("what", "packing", "words"),
    [
        ("empty", "", "metadata.tsv is empty."),
        ("web page", "", "metadata.tsv is a web page or XML, not the file that was expected."),
        ("columns", "", "metadata.tsv is not a metadata file of GISAID or GenBank: it has no"),
        ("no rows", "", "metadata.tsv has no rows."),
        ("cut", ".gz", "metadata.tsv.gz is damaged or incomplete: "),
        ("cut", ".xz", "metadata.tsv.xz is damaged or incomplete: "),
        ("cut", ".zst", "metadata.tsv.zst is damaged or incomplete: "),
        ("binary", "", "metadata.tsv is not a text file in UTF-8."),
        ("many damaged", "", "1 of 4 lines of metadata.tsv do not fit its header (lines 5)."),
        ("missing", "", "metadata.tsv does not exist, or is not a file."),
        ("no FASTA", "", "sequences.fasta is not a FASTA file: line 1 has no header."),
        ("other names", "", "No sequence of sequences.fasta has metadata; do its names match"),
        ("cut sequence", "", "sequences.fasta is incomplete: the sequence 'USA/CA-X2/2021' has"),
    ],
)
def test_wrong_file_changes_nothing_but_leaves_a_failed_workflow(
    seeded: Database, new: NewJob, tmp_path: Path, what: str, packing: str, words: str
) -> None:
    given = dump(tmp_path, packing=packing)
    _breaks(given, what)
    before = content(seeded)
    assert words in new(**given).fails("repository-fetch")
    after = content(seeded)
    (failed,) = rows(
        seeded,
        "SELECT * FROM aspen.workflows JOIN aspen.repository_download_workflows ON id ="
        " workflow_id ORDER BY id DESC LIMIT 1",
    )
    assert (failed["workflow_status"], failed["pathogen_id"]) == ("FAILED", 1)
    assert failed["start_datetime"] <= failed["end_datetime"]
    assert len(after.pop("workflows")) == len(before.pop("workflows")) + 1
    assert after == before


def test_unknown_repository_is_refused(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    given = {**dump(tmp_path), "repository": "ENA"}
    reason = new(**given).fails("repository-fetch")
    assert reason == "There is no public repository 'ENA' (known: GISAID, GenBank)."


def test_relative_path_is_refused(new: NewJob, tmp_path: Path) -> None:
    given = {**dump(tmp_path), "metadata": "metadata.tsv"}
    assert new(**given).fails("repository-fetch").startswith("Give the full path of metadata.tsv")


def test_unaligned_sequences_of_another_pathogen_are_refused(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    given = {**dump(tmp_path, columns=GENBANK), "repository": "GenBank", "pathogen": "MPX"}
    with Path(given["sequences"]).open("w") as file:
        file.write(fasta(["OX000001"], 200) + fasta(["OX000002"], 201))
    reason = new(**given).fails(*STEPS[:2])
    assert reason.startswith("The sequences have 200 to 201 sites, so they are not aligned")
    (failed,) = rows(
        seeded,
        "SELECT workflow_status AS status FROM aspen.workflows JOIN"
        " aspen.repository_alignment_workflows ON id = workflow_id ORDER BY id DESC LIMIT 1",
    )
    assert failed["status"] == "FAILED"


def _can_align() -> bool:
    if find_spec("edlib") is None or find_spec(ALIGNER) is None:
        return False
    return hasattr(import_module(ALIGNER), "Aligner")


@pytest.mark.skipif(not _can_align(), reason="the aligner is not installed")
@needs_shared_data
def test_sequences_are_aligned(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    some = []
    for name, letters in sequences(SHARED / "ncov_genbank_sequences.fasta.gz"):
        some.append((name, letters))
        if len(some) == 5:
            break
    letters_file = write(tmp_path / "s.fasta", "".join(f">{n}\n{t}\n" for n, t in some))
    job = new(
        repository="GenBank",
        metadata=str(SHARED / "ncov_genbank_metadata.tsv"),
        sequences=str(letters_file),
    )
    job.run(*STEPS)
    found = dict(sequences(job.folder / "repository-align" / "aligned.fasta.xz"))
    assert {len(text) for text in found.values()} == {LENGTH}
    assert list(found) == [name for name, _ in some]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"strain\tdate\n")
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(_Handler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_files_are_downloaded(seeded: Database, new: NewJob, tmp_path: Path, server: str) -> None:
    dump(tmp_path, packing=".gz")
    new(
        repository="GISAID",
        metadata=f"{server}/metadata.tsv.gz",
        sequences=f"{server}/sequences.fasta.gz?x=1",
    ).run(*STEPS)
    assert len(rows(seeded, "SELECT FROM aspen.public_repository_metadata")) == 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing.tsv", "the server answered 404 "),
        ("cut/metadata.tsv", "the connection ended after 12 of 1,000,000 bytes"),
    ],
)
def test_incomplete_download_is_refused(
    new: NewJob, server: str, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    monkeypatch.setattr(reading, "_PAUSE_S", 0)
    address = f"{server}/{path}"
    reason = new(repository="GISAID", metadata=address, sequences=address).fails("repository-fetch")
    assert reason.startswith(f"Cannot download {address}: ")
    assert words in reason


def test_failure_in_the_transaction_changes_nothing(
    seeded: Database, new: NewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new(**dump(tmp_path))
    job.run(*STEPS[:2])
    before = content(seeded)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(repository, "_add_entities", fail)
    with pytest.raises(KeyboardInterrupt):
        job.run("repository-save")
    assert content(seeded) == before


def test_killed_save_changes_nothing_and_can_be_repeated(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    job = new(**dump(tmp_path))
    job.run(*STEPS[:2])
    before = content(seeded)
    with seeded.begin() as session:
        # The step waits for this lock after it has replaced the metadata.
        session.execute(sa.text("LOCK TABLE aspen.locations IN SHARE ROW EXCLUSIVE MODE"))
        process = job.start("repository-save")
        waiting = (
            "SELECT FROM pg_stat_activity WHERE application_name LIKE 'aspen job %'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not rows(seeded, waiting):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert content(seeded) == before
    job.run("repository-save")
    assert len(rows(seeded, "SELECT FROM aspen.public_repository_metadata")) == 3
    assert newest(seeded)["sequences_s3_key"].startswith("aligned_gisaid_dump/")


@needs_shared_data
def test_real_dump_is_imported(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    aligned = [
        (name, f"{letters[:LENGTH]:N<{LENGTH}}")
        for name, letters in sequences(SHARED / "ncov_genbank_sequences.fasta.gz")
    ]
    letters_file = write(tmp_path / "s.fasta", "".join(f">{n}\n{t}\n" for n, t in aligned))
    job = new(
        repository="GenBank",
        metadata=str(SHARED / "ncov_genbank_metadata.tsv"),
        sequences=str(letters_file),
        coordinates=str(SHARED / "ncov_lat_longs.tsv"),
    )
    job.run(*STEPS)
    found = rows(seeded, "SELECT * FROM aspen.public_repository_metadata")
    assert len(found) == 418
    assert all(one["isl"] and one["country"] for one in found)
    placed = "SELECT * FROM aspen.locations WHERE country = 'Australia' AND division = 'Victoria'"
    (victoria,) = [one for one in rows(seeded, placed) if one["location"] is None]
    assert (round(victoria["latitude"]), round(victoria["longitude"])) == (-37, 144)
    assert Dump.read(job.folder / "repository-align").aligned_by == "given"


def test_headers_of_repositories_name_sequences() -> None:
    names = Names("hCoV-19")
    for name in ("USA/CA-1/2020", "SouthKorea/1/2020", "MT450922"):
        names.add(name)
    assert names.of_header("hCoV-19/USA/CA-1/2020|EPI_ISL_1|2020-03-01") == "USA/CA-1/2020"
    assert names.of_header("hcov-19/South Korea/1/2020") == "SouthKorea/1/2020"
    assert names.of_header("MT450922 Severe acute respiratory") == "MT450922"
    assert names.of_header("other") is None


def test_short_rows_are_complete_rows_without_their_last_cells(tmp_path: Path) -> None:
    text = "strain\tdate\tregion\tcountry\tdivision\nA\t2020-01-01\tAsia\tChina\n"
    (found,) = read_metadata(write(tmp_path / "m.tsv", text), "GISAID")
    assert found == ["A", None, None, "2020-01-01", "Asia", "China", None, None]


def test_missing_column_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.tsv", "strain\tdate\tcountry\nA\t\t\n")
    with pytest.raises(StepError, match="it has no column region"):
        next(read_metadata(path, "GISAID"))
