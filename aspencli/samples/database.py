"""Samples in the database: find them by identifier, and read all their details."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import aliased, joinedload, selectinload

from aspen.database.models import (
    AlignedPathogenGenome,
    Base,
    Group,
    Sample,
    SampleLineage,
    SampleQCMetric,
    UploadedPathogenGenome,
)
from aspen.database.sessions import ReadSession
from aspencli.reference.database import find_group
from aspencli.reference.remote import LOCATION_LEVELS
from aspencli.samples.keys import SampleKey
from aspencli.samples.models import (
    LINEAGE,
    QC_METRIC,
    SITES,
    UPLOADED_GENOME,
    Match,
    SampleDetails,
    settle_keys,
)
from aspencli.text import as_id

_Fields = dict[str, Any]
_GENOMES = {
    UploadedPathogenGenome: (*UPLOADED_GENOME, "sequencing_date", *SITES),
    AlignedPathogenGenome: ("aligned_date", "reference_name", "sequencing_date", *SITES),
}
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
    *("mutations_caller", "substitutions", "insertions", "deletions"),
    *("aa_substitutions", "aa_insertions", "aa_deletions", "reference_sequence_accession"),
)


def match_samples(
    session: ReadSession, keys: Sequence[str], *, group: str | None, by: SampleKey | None
) -> list[Match]:
    """Return the sample that each key names, in the order of the keys, without duplicates.

    Keys are IDs, private identifiers, and public identifiers; ``by`` restricts them to one kind,
    and ``group`` (an ID, name, or prefix) the search to one group.

    Raises:
        NotFoundError: A key matches no sample, or the group does not exist.
        BadInputError: A key matches several samples.
    """
    group_id = find_group(session, group).id if group is not None else None
    kinds = [by] if by else list(SampleKey)
    asked = sa.union_all(*(_matching(kind, keys, group_id) for kind in kinds))
    found = [
        Match(value, sample_id, SampleKey(kind), group)
        for kind, value, sample_id, group in session.execute(asked)
    ]
    found.sort(key=lambda match: (kinds.index(match.by), match.sample_id))
    return settle_keys(keys, found, within=group)


def _matching(
    kind: SampleKey, keys: Sequence[str], group_id: int | None
) -> sa.Select[str, str, int, str]:
    """Return the query for the samples that one of the keys names in this way."""
    column = getattr(Sample, kind.value)
    wanted: Sequence[Any] = keys
    if kind is SampleKey.ID:
        wanted = [id_ for id_ in map(as_id, keys) if id_ is not None]
    # Joined through the groups, because the identifiers' indexes begin with the group.
    return (
        sa.select(sa.literal(kind.value), sa.cast(column, sa.Text), Sample.id, Group.name)
        .join(Group, Group.id == Sample.submitting_group_id)
        .where(column.in_(wanted), Group.id == group_id if group_id is not None else sa.true())
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
    genomes = _genomes(session, ids)
    return [
        _describe(samples[match.sample_id], match.by, *genomes[match.sample_id])
        for match in matches
        if match.sample_id in samples  # It may have been deleted in the meantime.
    ]


def _genomes(
    session: ReadSession, ids: Sequence[int]
) -> defaultdict[int, tuple[_Fields | None, _Fields | None]]:
    """Return each sample's uploaded and aligned genome; the server computes their lengths."""
    statement: sa.Select[Any] = sa.select(Sample.id).where(Sample.id.in_(ids))
    for joined, names in _GENOMES.items():
        kind: Any = aliased(joined, flat=True)  # they have tables in common
        columns = [kind.id, sa.func.length(kind.sequence), *(getattr(kind, name) for name in names)]
        statement = statement.outerjoin(kind, kind.sample_id == Sample.id).add_columns(*columns)
    genomes: defaultdict[int, tuple[_Fields | None, _Fields | None]]
    genomes = defaultdict(lambda: (None, None))
    for row in session.execute(statement):
        sample_id, *values = row
        both = iter(values)
        uploaded, aligned = (_genome(names, both) for names in _GENOMES.values())
        genomes[sample_id] = (uploaded, aligned)
    return genomes


def _genome(names: Sequence[str], values: Iterator[Any]) -> _Fields | None:
    """Take a genome from a row's values: its ID, its length, and these fields."""
    genome_id, *found = islice(values, 2 + len(names))
    if genome_id is None:
        return None
    return dict(zip(("length", *names), map(_plain, found), strict=True))


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
        "location": " / ".join(filter(None, _pick(place, LOCATION_LEVELS).values()))
        if place
        else None,
        "collection_location": _pick(place, ("id", *LOCATION_LEVELS)) if place else None,
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
