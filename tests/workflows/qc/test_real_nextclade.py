"""The quality job with the real Nextclade 0.14.4, which npm installs.

``npm install --prefix ~/.cache/aspen-tests @nextstrain/nextclade@0.14.4`` makes these tests run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.seed import seed_metadata
from aspen.workflows.qc.nextclade import BUNDLED
from tests.workflows.jobs_rig import (
    SHARED,
    needs_shared_data,
    new_job,
    seconds_of_children,
    surroundings_of,
)

STEPS = ("qc-prepare", "qc-nextclade", "qc-save")
VERSION = "0.14.4"
_CACHED = Path("~/.cache/aspen-tests/node_modules/.bin").expanduser()
_PATH = os.pathsep.join((os.environ.get("PATH", ""), str(_CACHED)))


def _is_installed() -> bool:
    program = shutil.which("nextclade", path=_PATH)
    if program is None or shutil.which("node", path=_PATH) is None:
        return False
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return VERSION in done.stdout


_GENOMES = """
SELECT one.sequence AS uploaded, other.sequence AS aligned, reference_name
  FROM aspen.uploaded_pathogen_genomes uploaded
  JOIN aspen.pathogen_genomes one ON one.entity_id = uploaded.pathogen_genome_id
  JOIN aspen.aligned_pathogen_genome aligned USING (sample_id)
  JOIN aspen.pathogen_genomes other ON other.entity_id = aligned.pathogen_genome_id
 WHERE sample_id = :id
"""
_CHANGE = """
UPDATE aspen.pathogen_genomes SET sequence = :text WHERE entity_id =
    (SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :id)
"""
pytestmark = [
    needs_shared_data,
    pytest.mark.skipif(not _is_installed(), reason=f"nextclade {VERSION} is not installed"),
]


@pytest.fixture
def real(seeded: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Return a database with the 418 real genomes."""
    monkeypatch.setenv("PATH", _PATH)
    seed_metadata(
        seeded,
        SHARED / "ncov_genbank_metadata.tsv",
        sequences=SHARED / "ncov_genbank_sequences.fasta.gz",
    )
    return seeded


def rows(database: Database, query: str, **values: Any) -> list[Any]:
    with database.reading() as session:
        return [*session.execute(sa.text(query), values).mappings()]


def sample_of(database: Database, name: str) -> int:
    query = "SELECT id FROM aspen.samples WHERE public_identifier = :name"
    (found,) = rows(database, query, name=f"hCoV-19/{name}")
    return int(found["id"])


def test_new_sample_has_quality_and_mutations_within_30_s(real: Database, tmp_path: Path) -> None:
    sample = sample_of(real, "Australia/VIC05/2020")
    job = new_job(tmp_path / "job", surroundings_of(real), pathogen="SC2", sample_ids=[sample])
    began = seconds_of_children()
    for step in STEPS:
        process = job.start(step)
        _, log = process.communicate()
        assert process.returncode == 0, log
    assert seconds_of_children() - began < 30
    (found,) = rows(
        real,
        "SELECT * FROM aspen.sample_qc_metrics JOIN aspen.sample_mutations USING (sample_id)"
        " WHERE sample_id = :id",
        id=sample,
    )
    assert (found["qc_software_version"], found["qc_status"]) == (VERSION, "good")
    assert found["reference_dataset_name"] == BUNDLED
    assert found["reference_dataset_tag"] == f"{VERSION}: clades end in 2021"
    assert "C8782T" in found["substitutions"].split(",")
    (genome,) = rows(real, _GENOMES, id=sample)
    # It has no insertions and no deletions.
    assert genome["aligned"].strip("-") == genome["uploaded"]
    assert (len(genome["aligned"]), genome["reference_name"]) == (29_903, "MN908947")


def test_genomes_that_cannot_be_read_are_invalid(real: Database, tmp_path: Path) -> None:
    first = sample_of(real, "Australia/VIC05/2020")
    others = [
        row["id"]
        for row in rows(real, "SELECT id FROM aspen.samples WHERE id <> :id LIMIT 2", id=first)
    ]
    with real.begin() as session:
        for sample, text in zip(others, ("N" * 29_000, "ACGT" * 500), strict=True):
            session.execute(sa.text(_CHANGE), {"text": text, "id": sample})
    ids = [first, *others]
    job = new_job(tmp_path / "job", surroundings_of(real), pathogen="SC2", sample_ids=ids)
    job.run(*STEPS)
    query = "SELECT qc_status FROM aspen.sample_qc_metrics WHERE sample_id = :id"
    assert [rows(real, query, id=one)[0]["qc_status"] for one in ids] == [
        "good",
        "invalid",
        "invalid",
    ]


def test_other_pathogen_is_refused(real: Database, tmp_path: Path) -> None:
    job = new_job(tmp_path / "job", surroundings_of(real), pathogen="MPX", sample_ids=[1])
    assert job.fails("qc-prepare").startswith("nextclade 0.14.4 knows SARS-CoV-2 only, not MPX")
