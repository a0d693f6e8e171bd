"""Read samples with all related data from the database."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import joinedload, selectinload

from aspencli.services.sample_fields import SampleKey
from aspencli.services.sample_matching import Match
from aspencli.services.sample_rows import (
    LINEAGE,
    PLACE,
    QC_METRIC,
    SITES,
    UPLOADED_GENOME,
    SampleDetails,
)
from db.models import (
    AlignedPathogenGenome,
    Base,
    Sample,
    SampleLineage,
    SampleQCMetric,
    UploadedPathogenGenome,
)
from db.sessions import ReadSession

_Fields = dict[str, Any]
_RELATED = (
    joinedload(Sample.submitting_group),
    joinedload(Sample.pathogen),
    joinedload(Sample.uploaded_by),
    joinedload(Sample.collection_location),
    selectinload(Sample.accessions),
    selectinload(Sample.lineages).defer(SampleLineage.raw_lineage_output),
    selectinload(Sample.qc_metrics).defer(SampleQCMetric.raw_qc_output),
    selectinload(Sample.mutations),
)
_MUTATION = (
    "mutations_caller",
    "substitutions",
    "insertions",
    "deletions",
    "aa_substitutions",
    "aa_insertions",
    "aa_deletions",
    "reference_sequence_accession",
)


def describe_samples(session: ReadSession, matches: Sequence[Match]) -> list[SampleDetails]:
    """Return full details of the matched samples, in the same order."""
    ids = [match.sample_id for match in matches]
    samples = {
        sample.id: sample
        for sample in session.scalars(
            sa.select(Sample).where(Sample.id.in_(ids)).options(*_RELATED)
        )
    }
    uploaded = _genomes(session, UploadedPathogenGenome, ids, UPLOADED_GENOME)
    aligned = _genomes(session, AlignedPathogenGenome, ids, ("aligned_date", "reference_name"))
    return [
        _describe(
            samples[match.sample_id],
            match.by,
            uploaded.get(match.sample_id),
            aligned.get(match.sample_id),
        )
        for match in matches
        if match.sample_id in samples  # It may have been deleted in the meantime.
    ]


def _genomes(
    session: ReadSession,
    kind: type[UploadedPathogenGenome | AlignedPathogenGenome],
    ids: Sequence[int],
    names: tuple[str, ...],
) -> dict[int, _Fields]:
    """Return the genome of each sample that has one; the server computes the sequence length."""
    columns = [getattr(kind, name) for name in (*names, "sequencing_date", *SITES)]
    statement = sa.select(kind.sample_id, sa.func.length(kind.sequence).label("length"), *columns)
    genomes = {}
    for row in session.execute(statement.where(kind.sample_id.in_(ids))).mappings():
        genomes[row["sample_id"]] = {key: _plain(row[key]) for key in row if key != "sample_id"}
    return genomes


def _describe(
    sample: Sample, by: SampleKey, genome: _Fields | None, aligned: _Fields | None
) -> SampleDetails:
    place = sample.collection_location
    own = {
        field.name: getattr(sample, field.name)
        for field in dataclasses.fields(SampleDetails)
        if field.name in sample.__mapper__.columns
    }
    related: _Fields = {
        "matched_by": by,
        "group": _pick(sample.submitting_group, ("id", "name", "prefix")),
        "pathogen": _pick(sample.pathogen, ("id", "slug", "name")),
        "location": " / ".join(filter(None, _pick(place, PLACE).values())) if place else None,
        "collection_location": _pick(place, ("id", *PLACE)) if place else None,
        "uploaded_by": _pick(sample.uploaded_by, ("id", "name", "email")),
        "genome": genome,
        "aligned_genome": aligned,
        "accessions": _each(sample.accessions, ("accession_type", "accession")),
        "lineages": [_lineage(row) for row in _each(sample.lineages, LINEAGE)],
        "qc_metrics": _each(sample.qc_metrics, QC_METRIC),
        "mutations": _each(sample.mutations, _MUTATION),
    }
    return SampleDetails(**own, **related)


def _each(rows: Sequence[Base], names: Sequence[str]) -> list[_Fields]:
    # The first column is the tool or the repository, and there is one row for each.
    return [_pick(row, names) for row in sorted(rows, key=lambda row: str(getattr(row, names[0])))]


def _lineage(row: _Fields) -> _Fields:
    day = row["last_updated"]
    return {**row, "last_updated": day and day.date()}


def _pick(row: Base, names: Iterable[str]) -> _Fields:
    return {name: getattr(row, name) for name in names}


def _plain(value: Any) -> Any:
    """Convert a value to what the API returns: times in UTC, to the second."""
    if isinstance(value, dt.datetime):
        return value.replace(microsecond=0, tzinfo=dt.UTC)
    return value
