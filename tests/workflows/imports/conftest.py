"""Files to import."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.imports.dump import REFERENCE_LENGTHS
from tests.local.test_aws import StandIn
from tests.workflows.jobs_rig import Job, new_job, surroundings_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PLACES = ("region", "country", "division", "location")
GISAID = ["strain", "gisaid_epi_isl", "date", *_PLACES, "pango_lineage"]
GENBANK = ["accession", "genbank_accession_rev", "strain", "date", *_PLACES, "lineage"]
PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
}
LENGTH = REFERENCE_LENGTHS["SC2"]

NewJob = Callable[..., Job]


def row(number: int, **changes: str) -> dict[str, str]:
    """Return a row of metadata; every value is found by the name of its column."""
    return {
        "strain": f"USA/CA-X{number}/2021",
        "accession": f"OX{number:06}",
        "genbank_accession_rev": f"OX{number:06}.1",
        "gisaid_epi_isl": f"EPI_ISL_{number}",
        "date": "2021-03-05",
        "region": "North America",
        "country": "USA",
        "division": "California",
        "location": "Marin County",
        "pango_lineage": "B.1.429",
        "lineage": "B.1.7",
        **changes,
    }


def table(columns: list[str], rows: list[dict[str, str]]) -> str:
    lines = [columns, *([one.get(column, "") for column in columns] for one in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def fasta(names: list[str], length: int = LENGTH) -> str:
    return "".join(f">{name}\n{'ACGT' * (length // 4)}{'A' * (length % 4)}\n" for name in names)


def write(path: Path, text: str) -> Path:
    """Write a file, packed as its name says."""
    path.write_bytes(PACKERS[path.suffix if path.suffix in PACKERS else ""](text.encode()))
    return path


def rows(database: Database, query: str, **values: Any) -> list[dict[str, Any]]:
    with database.reading() as session:
        return [dict(one) for one in session.execute(sa.text(query), values).mappings()]


def execute(database: Database, statement: str, **values: Any) -> None:
    with database.begin() as session:
        session.execute(sa.text(statement), values)


@pytest.fixture
def new(seeded: Database, tmp_path: Path, aws: StandIn) -> NewJob:
    count = iter(range(100))

    def make(**parameters: Any) -> Job:
        given = {"pathogen": "SC2", **parameters}
        return new_job(tmp_path / f"job-{next(count)}", surroundings_of(seeded, aws), **given)

    return make
