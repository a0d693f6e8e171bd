"""``samples create``: one sample from options, or many from a table and a FASTA file."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import Sample
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.remote.conftest import Serving

BASES = "ACGTN" * 240
HEADER = "private_identifier,public_identifier,collection_date,location,private,sequencing_date"
PLACE = "North America / USA / California"
ROWS = (
    f"N-1,hCoV-19/USA/N-1/2023,2023-05-17,{PLACE},yes,2023-05-20",
    f"N 2,,2023-05-18,{PLACE},no,",
    f"N-3,hCoV-19/USA/N-3/2023,2023-05-19,{PLACE},,",
)
NAMES = ("N-1", "N 2", "N-3")


@pytest.fixture
def lab(api_lab: ApiLab) -> ApiLab:
    return api_lab


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    table, fasta = tmp_path / "batch.csv", tmp_path / "batch.fasta"
    table.write_text("\n".join([HEADER, *ROWS, ""]))
    fasta.write_text("".join(f">{name}\n{BASES[:600]}\n{BASES[600:]}\n" for name in NAMES))
    return str(table), str(fasta)


def create(lab: ApiLab, files: tuple[str, str], *more: str, **options: Any) -> Any:
    table, fasta = files
    command = ("samples", "create", "--fasta", fasta, "--metadata", table, "-o", "json", *more)
    return lab(*command, **options)


def there(lab: ApiLab) -> dict[str, Any]:
    path = "/v2/orgs/1/pathogens/SC2/samples/"
    samples = lab.service("GET", path, "gadmin").json()["samples"]
    return {each["private_identifier"]: each for each in samples}


def test_samples_are_created_from_table_and_fasta_file(lab: ApiLab, files: tuple[str, str]) -> None:
    before = len(there(lab))
    ended = create(lab, files, "--yes")
    assert ended.code == 0, ended.err
    assert [row["private_identifier"] for row in ended.json] == list(NAMES)
    assert {row["outcome"] for row in ended.json} == {"created"}
    after = there(lab)
    assert len(after) == before + 3
    first, second, third = (after[name] for name in NAMES)
    assert (first["sequencing_date"], first["private"]) == ("2023-05-20", True)
    assert (second["private"], third["private"]) == (False, True)
    assert second["public_identifier"].startswith("hCoV-19/USA/RCPHL-")
    with lab.service.database.reading() as session:
        genome = session.get_one(Sample, first["id"]).uploaded_pathogen_genome
        assert genome is not None
        assert genome.sequence == BASES


def test_upload_template_of_service_is_accepted_unchanged(lab: ApiLab, tmp_path: Path) -> None:
    table, fasta = tmp_path / "upload.tsv", tmp_path / "batch.fasta"
    table.write_text(
        "Sample Name (from FASTA)\tPrivate ID\tPublic ID - Optional\tCollection Date\t"
        "Collection Location\tSequencing Date - Optional\tSample is Private\n"
        f"seq-1\tN-1\thCoV-19/USA/N-1/2023\t2023-05-17\t{PLACE}\t2023-05-20\tNo\n"
    )
    fasta.write_text(f">seq-1\n{BASES}\n")
    ended = create(lab, (str(table), str(fasta)), "--yes")
    assert ended.code == 0, ended.err
    assert "Note: read as the service's upload template" in ended.err
    assert "ignored" not in ended.err
    made = there(lab)["N-1"]
    assert (made["public_identifier"], made["private"]) == ("hCoV-19/USA/N-1/2023", False)
    assert (made["collection_date"], made["sequencing_date"]) == ("2023-05-17", "2023-05-20")


def test_second_run_is_refused_unless_existing_samples_are_skipped(
    lab: ApiLab, files: tuple[str, str]
) -> None:
    assert create(lab, files, "--yes").code == 0
    before = there(lab)
    again = create(lab, files, "--yes")
    assert (again.code, again.out) == (7, "")
    assert "Cannot create 3 samples" in again.err
    assert "--skip-existing" in again.err
    table = Path(files[0])
    table.write_text(table.read_text() + f"N-4,,2023-05-19,{PLACE},,\n")
    fasta = Path(files[1])
    fasta.write_text(fasta.read_text() + f">N-4\n{BASES}\n")
    more = create(lab, files, "--yes", "--skip-existing")
    assert more.code == 0, more.err
    assert [(row["private_identifier"], row["outcome"]) for row in more.json] == [
        ("N-4", "created"),
        *((name, "skipped") for name in NAMES),
    ]
    assert there(lab).keys() - before.keys() == {"N-4"}
    last = create(lab, files, "--yes", "--skip-existing")
    assert (last.code, {row["outcome"] for row in last.json}) == (0, {"skipped"})


def test_skip_existing_refuses_public_identifier_in_use(
    lab: ApiLab, files: tuple[str, str]
) -> None:
    before = there(lab)
    taken = next(iter(before.values()))["public_identifier"]
    table = Path(files[0])
    table.write_text(table.read_text().replace("hCoV-19/USA/N-3/2023", taken))
    ended = create(lab, files, "--yes", "--skip-existing")
    assert (ended.code, ended.out) == (7, "")
    assert f"line 4: {taken} is used by another sample" in ended.err
    assert there(lab) == before


def test_dry_run_creates_nothing(lab: ApiLab, files: tuple[str, str]) -> None:
    before = there(lab)
    ended = create(lab, files, "--dry-run")
    assert ended.code == 0, ended.err
    assert [(row["private_identifier"], row["location"], row["outcome"]) for row in ended.json] == [
        (name, PLACE, "create") for name in NAMES
    ]
    assert there(lab) == before


def test_all_problems_are_named_and_nothing_is_created(lab: ApiLab, files: tuple[str, str]) -> None:
    table, fasta = map(Path, files)
    bad = [
        f"B-1,,17/05/2023,{PLACE},,",
        "B-2,,2023-05-17,Nowhere,,",
        f",,2023-05-17,{PLACE},,",
        f"N-1,,2023-05-17,{PLACE},maybe,",
        f"B-3,hCoV-19/USA/N-1/2023,2023-05-17,{PLACE},,",
        f"B-4,,2023-05-17,{PLACE},,",
        f"B-5,,2023-05-17,{PLACE},,",
        f"B-6,,2023-05-17,{PLACE},,,surplus",
    ]
    table.write_text("\n".join([HEADER, *ROWS, *bad, ""]))
    fasta.write_text(fasta.read_text() + f">B-4\nACGT\n>B-3\n{BASES}JJ\n>who\n{BASES}\n")
    before = there(lab)
    ended = create(lab, files, "--yes")
    assert (ended.code, ended.out) == (2, "")
    for words in (
        'line 5: collection_date: "17/05/2023" is not in the format YYYY-MM-DD; did you mean',
        "did you mean 2023-05-17?",
        "line 6: location: no such location: 'Nowhere'",
        "line 7: private_identifier: is blank",
        "line 8: private: ",
        "line 9: public_identifier: duplicate of line 2",
        "line 9: its sequence contains invalid letters: J",
        "line 10: its sequence is too short: 4 letters (minimum 1,000)",
        'line 11: has no sequence "B-5" in ',
        "line 12: has too many cells",
        "sequence 'who' does not match any sample",
        "10 problems found; nothing was written.",
    ):
        assert words in ended.err, ended.err
    assert there(lab) == before


def test_single_sample_is_created_from_options(lab: ApiLab, tmp_path: Path) -> None:
    fasta = tmp_path / "one.fasta.gz"
    fasta.write_bytes(gzip.compress(f">whatever it is called\n{BASES}\n".encode()))
    ended = lab(
        *("samples", "create", "--fasta", str(fasta), "--private-identifier", "O-1"),
        *("--collection-date", "17 May 2023", "--location", PLACE, "--public", "--yes"),
        *("-o", "json"),
    )
    assert ended.code == 0, ended.err
    assert 'Collection date: "17 May 2023" -> 2023-05-17' in ended.err
    (row,) = ended.json
    assert (row["private_identifier"], row["private"]) == ("O-1", False)
    assert there(lab)["O-1"]["collection_date"] == "2023-05-17"


def test_sequences_are_read_from_named_pipe(
    lab: ApiLab, files: tuple[str, str], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", files[1], pipe]):
        ended = create(lab, (files[0], str(pipe)), "--yes")
    assert ended.code == 0, ended.err
    assert [row["private_identifier"] for row in ended.json] == list(NAMES)


def test_sequence_used_by_two_samples_is_refused(lab: ApiLab, files: tuple[str, str]) -> None:
    table = Path(files[0])
    header, *rows = table.read_text().splitlines()
    names = ("N-1", "N-3", "N-3")
    lines = [f"{row},{name}" for row, name in zip(rows, names, strict=True)]
    table.write_text("\n".join([f"{header},sequence_name", *lines]))
    ended = create(lab, files, "--yes")
    assert (ended.code, ended.out) == (2, "")
    assert "line 4: sequence_name: duplicate of line 3" in ended.err


def test_fasta_file_modified_during_run_creates_nothing(
    lab: ApiLab, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.cli.context import AppContext

    before = there(lab)
    asked = AppContext.authorize

    def meanwhile(self: AppContext, *args: Any, **kwargs: Any) -> None:
        Path(files[1]).write_text(f">N-1\n{BASES}\n")
        asked(self, *args, **kwargs)

    monkeypatch.setattr(AppContext, "authorize", meanwhile)
    ended = create(lab, files, "--yes")
    assert (ended.code, json.loads(ended.out or "[]")) == (7, [])
    assert "batch.fasta was modified while the command was running" in ended.err
    assert there(lab) == before


def test_interrupted_create_reports_created_samples(lab: ApiLab, tmp_path: Path) -> None:
    names = [f"I-{number}" for number in range(1, 103)]
    table, fasta = tmp_path / "many.csv", tmp_path / "many.fasta"
    header = "private_identifier,collection_date,location"
    table.write_text("\n".join([header, *(f"{name},2023-05-17,{PLACE}" for name in names)]))
    fasta.write_text("".join(f">{name}\n{BASES}\n" for name in names))
    command = (
        *("samples", "create", "--fasta", str(fasta), "--metadata", str(table)),
        *("--yes", "-o", "json"),
    )
    with lab.service.database.begin() as session:
        first = session.scalars(sa.select(Sample).order_by(Sample.id)).first()
        assert first is not None
        first.private_identifier = names[-1]  # blocks everyone who wants this name
        session.flush()
        ended = lab.interrupt(lab.start(*command, "--debug"), "POST", count=2)
        session.rollback()
    assert ended.code == 130
    assert [row["private_identifier"] for row in ended.json] == names[:100]
    assert "100 of 102 samples were created before the error (listed above)" in ended.err
    assert "The last request may have been carried out too" in ended.err
    rest = lab(*command, "--skip-existing")
    assert rest.code == 0, rest.err
    assert set(names) <= there(lab).keys()
    assert len({row["private_identifier"] for row in rest.json}) == 102


def test_sequences_are_read_from_stdin(lab: ApiLab, files: tuple[str, str]) -> None:
    ended = create(lab, (files[0], "-"), "--yes", stdin=Path(files[1]).read_text())
    assert ended.code == 0, ended.err
    assert len(ended.json) == 3


@pytest.mark.parametrize("delivered", [True, False])
def test_create_with_lost_response_creates_each_sample_once(
    lab: ApiLab, serving: Serving, files: tuple[str, str], delivered: bool
) -> None:
    before = len(there(lab))
    relay = serving(route=Relay(lab.service.url, "POST", [delivered]))
    ended = create(lab, files, "--yes", env={"ASPEN_API": relay.url})
    assert ended.code == 0, ended.err
    assert [row["private_identifier"] for row in ended.json] == list(NAMES)
    assert len(there(lab)) == before + 3


def test_failed_create_reports_samples_created_before_error(
    lab: ApiLab, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.samples.create._MOST", 1)
    from aspencli.cli.context import AppContext

    asked = AppContext.authorize

    def meanwhile(self: AppContext, *args: Any, **kwargs: Any) -> None:
        with lab.service.database.begin() as session:
            first = session.scalars(sa.select(Sample).order_by(Sample.id)).first()
            assert first is not None
            first.private_identifier = "N 2"
        asked(self, *args, **kwargs)

    monkeypatch.setattr(AppContext, "authorize", meanwhile)
    ended = create(lab, files, "--yes")
    assert ended.code == 7
    assert [row["private_identifier"] for row in json.loads(ended.out)] == ["N-1"]
    assert "1 of 3 samples were created before the error" in ended.err


def test_organism_of_created_samples_follows_pathogen(lab: ApiLab, files: tuple[str, str]) -> None:
    ended = create(lab, files, "--yes", "--pathogen", "MPX")
    assert ended.code == 0, ended.err
    with lab.service.database.reading() as session:
        organisms = session.scalars(
            sa.select(Sample.organism).where(Sample.private_identifier.in_(NAMES))
        )
        assert "Severe acute" not in " ".join(organisms)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--metadata", "{table}", "--location", "1"), "options for a single sample"),
        ((), "Missing sample metadata"),
        (("--private-identifier", "X"), "found 3"),
        (("--metadata", "none.csv"), "Cannot read none.csv: No such file"),
    ],
)
def test_invalid_create_options_are_refused(
    lab: ApiLab, files: tuple[str, str], arguments: tuple[str, ...], words: str
) -> None:
    table, fasta = files
    command = [each.format(table=table) for each in arguments]
    ended = lab("samples", "create", "--fasta", fasta, *command, "--yes")
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err


def test_viewer_cannot_create_samples(lab: ApiLab, files: tuple[str, str]) -> None:
    ended = create(lab, files, "--yes", who="viewer")
    assert (ended.code, json.loads(ended.out or "[]")) == (4, [])
