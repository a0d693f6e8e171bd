"""Samples of a public repository, which the service compares a group's own samples with.

A run needs the latest aligned dump of its pathogen's repository; identifiers are looked up in the
repository's metadata. Both contain the same few generated strains.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from aspen.database.models import (
    AlignedRepositoryData,
    Pathogen,
    PublicRepository,
    PublicRepositoryMetadata,
    RepositoryAlignmentWorkflow,
    WorkflowStatus,
)
from aspen.local.seed.samples import DB_BUCKET, Objects, ancestor

SOURCES = (("SC2", "GISAID"), ("SC2", "GenBank"), ("MPX", "GenBank"))
"""The pathogen and repository of each dump."""
_ALIGNED = datetime(2023, 1, 8, 4, 0), datetime(2023, 1, 8, 6, 30)  # noqa: DTZ001 - columns are naive UTC


@dataclass(frozen=True)
class Strain:
    """A generated sample of a public repository."""

    strain: str
    isl: str
    date: datetime
    region: str
    country: str
    division: str | None
    location: str | None
    lineage: str


@cache
def strains() -> tuple[Strain, ...]:
    """Return the seeded strains."""
    text = (files("aspen.local.seed") / "context.csv").read_text(encoding="utf-8")
    return tuple(
        Strain(
            row["strain"],
            row["isl"],
            datetime.fromisoformat(row["date"]),
            row["region"],
            row["country"],
            row["division"] or None,
            row["location"] or None,
            row["lineage"],
        )
        for row in csv.DictReader(text.splitlines())
    )


def add_upstream(session: Session, objects: Objects) -> int:
    """Add the missing dumps, their files, and their metadata; return the number of dumps added."""
    pathogens = dict(session.execute(sa.select(Pathogen.slug, Pathogen.id)).all())
    names = sa.select(PublicRepository.name, PublicRepository.id)
    repositories = dict(session.execute(names).all())
    _add_metadata(session, pathogens["SC2"], repositories["GISAID"])
    added = 0
    for slug, repository in SOURCES:
        keys = _keys(slug, repository)
        there = session.scalar(
            sa.select(AlignedRepositoryData).where(
                AlignedRepositoryData.s3_bucket == DB_BUCKET,
                AlignedRepositoryData.sequences_s3_key == keys[0],
            )
        )
        if there is None:
            session.add(_dump(pathogens[slug], repositories[repository], keys))
            added += 1
        for key, body in zip(keys, (_sequences(), _metadata()), strict=True):
            if not objects.has(DB_BUCKET, key):
                objects.put(DB_BUCKET, key, body)
    session.flush()
    return added


def newest_dump(session: Session, pathogen: int, repository: int) -> AlignedRepositoryData | None:
    """Return the latest dump, which a run of a pathogen starts from."""
    return session.scalar(
        sa.select(AlignedRepositoryData)
        .join(AlignedRepositoryData.producing_workflow)
        .where(
            AlignedRepositoryData.pathogen_id == pathogen,
            AlignedRepositoryData.public_repository_id == repository,
        )
        .order_by(RepositoryAlignmentWorkflow.end_datetime.desc())
        .limit(1)
    )


def _keys(slug: str, repository: str) -> tuple[str, str]:
    folder = f"aligned_repository_data/{slug}/{repository.lower()}"
    return f"{folder}/sequences.fasta", f"{folder}/metadata.tsv"


def _dump(pathogen: int, repository: int, keys: tuple[str, str]) -> AlignedRepositoryData:
    source = {"pathogen_id": pathogen, "public_repository_id": repository}
    workflow = RepositoryAlignmentWorkflow(
        start_datetime=_ALIGNED[0],
        end_datetime=_ALIGNED[1],
        workflow_status=WorkflowStatus.COMPLETED,
        **source,
    )
    return AlignedRepositoryData(
        producing_workflow=workflow,
        s3_bucket=DB_BUCKET,
        sequences_s3_key=keys[0],
        metadata_s3_key=keys[1],
        **source,
    )


def _add_metadata(session: Session, pathogen: int, repository: int) -> None:
    rows = [
        {**vars(strain), "pathogen_id": pathogen, "public_repository_id": repository}
        for strain in strains()
    ]
    session.execute(insert(PublicRepositoryMetadata).values(rows).on_conflict_do_nothing())


def _sequences() -> bytes:
    """Return the sequences, each of which differs from the ancestor at a different site."""
    lines = []
    for number, strain in enumerate(strains()):
        sites = bytearray(ancestor())
        sites[number] = ord("A" if sites[number] != ord("A") else "C")
        lines.append(f">{strain.strain}\n{sites.decode()}\n")
    return "".join(lines).encode()


def _metadata() -> bytes:
    columns = tuple(Strain.__dataclass_fields__)
    lines = ["\t".join(columns)]
    for strain in strains():
        cells = {**vars(strain), "date": f"{strain.date:%Y-%m-%d}"}
        lines.append("\t".join(cells[column] or "" for column in columns))
    return ("\n".join(lines) + "\n").encode()
