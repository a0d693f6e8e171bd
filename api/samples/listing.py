"""The JSON of samples, made by PostgreSQL: a hundred thousand of them are sent as they come.

Keys, their order and their types are those of `api.schemas.samples.SampleResponse`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.arrays import integers
from db.models import (
    Accession,
    AccessionType,
    Group,
    Location,
    Pathogen,
    PathogenGenome,
    Sample,
    SampleQCMetric,
    UploadedPathogenGenome,
    User,
)

# row_to_json() writes no blanks, and costs a third less than json_build_object().
_SAMPLE = """(
SELECT row_to_json(made)::text FROM (SELECT
    samples.id,
    samples.collection_date,
    place.json AS collection_location,
    {gisaid} AS gisaid,
    pathogen.json AS pathogen,
    samples.private,
    {private_identifier} AS private_identifier,
    samples.public_identifier,
    pathogen_genomes.sequencing_date,
    owner.json AS submitting_group,
    uploader.json AS uploaded_by,
    date_trunc('second', uploaded_pathogen_genomes.upload_date) AT TIME ZONE 'UTC' AS upload_date,
    {lineages} AS lineages,
    -- One at most: to be asked for each sample takes longer than to be joined.
    CASE WHEN metric.id IS NULL THEN '[]' ELSE json_build_array((
        SELECT row_to_json(part) FROM (
            SELECT metric.qc_score, metric.qc_software_version, metric.qc_status, metric.qc_caller,
                metric.reference_dataset_name, metric.reference_sequence_accession,
                metric.reference_dataset_tag
        ) part
    )) END AS qc_metrics
) made)"""
_GISAID = """(
        SELECT row_to_json(part) FROM (
            SELECT accessions.accession AS gisaid_id,
                CASE WHEN accessions.accession IS NULL THEN 'Not Found' ELSE 'Accepted' END
                    AS status
        ) part
    )"""
_NOT_THERE = "json_build_object('gisaid_id', NULL, 'status', 'Not Found')"
_OWN = "CASE WHEN samples.submitting_group_id = :context THEN samples.private_identifier END"

_LINEAGE = """found.lineage_type, found.lineage, found.lineage_software_version,
    -- Nextclade's dataset says when it was made, its run does not.
    CASE WHEN found.lineage_type = 'NEXTCLADE'
        THEN substring(found.reference_dataset_tag from '^[0-9]{4}-[0-9]{2}-[0-9]{2}')
        ELSE found.last_updated::date::text END AS last_updated,
    -- JSON has no infinity, and no NaN (which is the greatest number of all here)
    CASE WHEN abs(found.lineage_probability) < 'Infinity'
        THEN found.lineage_probability END AS lineage_probability,
    found.reference_dataset_name, found.reference_sequence_accession,
    found.reference_dataset_tag,
    CASE WHEN found.lineage_type = 'PANGOLIN'
        THEN found.raw_lineage_output ->> 'scorpio_call' END AS scorpio_call,
    CASE WHEN found.lineage_type = 'PANGOLIN'
        THEN found.raw_lineage_output ->> 'scorpio_support' END AS scorpio_support,
    metric.qc_status"""
_LINEAGES = f"""coalesce((
        SELECT json_agg(row_to_json(part)) FROM (
            SELECT {_LINEAGE}
              FROM aspen.sample_lineages found WHERE found.sample_id = samples.id ORDER BY found.id
        ) part
    ), '[]')"""  # noqa: S608 - ours
# For some samples; for all of them at once, a list could not be sent as it is made.
_LINEAGES_OF = f"""
SELECT found.sample_id, json_agg((
        SELECT row_to_json(part) FROM (SELECT {_LINEAGE}) part
    ) ORDER BY found.id) AS json
  FROM aspen.sample_lineages found
  LEFT JOIN aspen.sample_qc_metrics metric ON metric.sample_id = found.sample_id
 WHERE found.sample_id = ANY(:ids) GROUP BY found.sample_id
"""  # noqa: S608 - ours

# Tables, not models: the ORM would look at each row once more.
_SAMPLES = Sample.__table__
_JOINED = "convert_to(string_agg(made.json, ',' ORDER BY made.id), 'UTF8')"
_TOGETHER = 50_000  # samples of 1 kB; a text of PostgreSQL has 1 GB at most
_UPLOADED = UploadedPathogenGenome.__table__
_GENOME = PathogenGenome.__table__
_METRIC = SampleQCMetric.__table__.alias("metric")
_ACCESSION = sa.and_(
    Accession.sample_id == Sample.id, Accession.accession_type == AccessionType.GISAID_ISL
)


def listed(context: Group) -> sa.Select[tuple[str]]:
    """Samples as the list shows them, in the order of their ids.

    Args:
        context: The group whose path is used; of others' samples no private identifier is shown.
    """
    made = sa.text(_SAMPLE.format(gisaid=_GISAID, private_identifier=_OWN, lineages=_LINEAGES))
    return _of_samples(made.bindparams(context=context.id)).outerjoin(
        Accession.__table__, _ACCESSION
    )


async def read_written(
    db: AsyncSession, ids: Iterable[int], *, created: bool = False
) -> list[bytes]:
    """The answer to a change of samples: as they are now, with both names.

    What GISAID has of them is not looked up: of changed samples nothing is said about it, and new
    ones it cannot have.

    It comes in pieces, for `api.streaming.json_pieces`.

    PostgreSQL joins them, too: to hand over each row costs Python more than to make it.
    """
    ordered = sorted(ids)
    starts = range(0, len(ordered), _TOGETHER)
    parts = [
        await db.scalar(_joined(created), {"ids": ordered[start : start + _TOGETHER]})
        for start in starts
    ]
    commas = itertools.chain.from_iterable((b",", part) for part in parts if part)
    return [b'{"samples":[', *itertools.islice(commas, 1, None), b"]}"]


def _joined(created: bool) -> sa.Select[Any]:
    parts = {
        "gisaid": _NOT_THERE if created else "NULL::json",
        "private_identifier": "samples.private_identifier",
        "lineages": "coalesce(lineages.json, '[]')",
    }
    given = integers("ids")
    lineages = (
        sa.text(_LINEAGES_OF)
        .bindparams(given)
        .columns(sa.column("sample_id", sa.Integer), sa.column("json"))
        .subquery("lineages")
    )
    made = (
        _of_samples(sa.text(f"{_SAMPLE.format(**parts)} AS json"), sa.any_(given))
        .add_columns(Sample.id)
        .outerjoin(lineages, lineages.c.sample_id == Sample.id)
        .subquery("made")
    )
    return sa.select(sa.literal_column(_JOINED, sa.LargeBinary())).select_from(made)


def _of_samples(
    made: sa.TextClause, ids: sa.ColumnElement[Any] | None = None
) -> sa.Select[tuple[str]]:
    def of(column: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        # Each table is told the ids; else those of a hundred thousand rows are read as a whole.
        same = column == Sample.id
        return same if ids is None else sa.and_(same, column == ids)

    location = (
        Location.id,
        sa.func.coalesce(Location.region, "").label("region"),
        *(Location.country, Location.division, Location.location),
    )
    pathogen = (Pathogen.id, Pathogen.slug, Pathogen.name)
    return (
        sa.select(made)
        .select_from(_SAMPLES)
        .where(sa.true() if ids is None else Sample.id == ids)
        .join(_shared("pathogen", pathogen, Sample.pathogen_id), sa.true())
        .join(_shared("owner", (Group.id, Group.name), Sample.submitting_group_id), sa.true())
        .join(_shared("uploader", (User.id, User.name), Sample.uploaded_by_id), sa.true())
        .outerjoin(_shared("place", location, Sample.location_id), sa.true())
        .outerjoin(_UPLOADED, of(_UPLOADED.c.sample_id))
        .outerjoin(_GENOME, _GENOME.c.entity_id == _UPLOADED.c.pathogen_genome_id)
        .outerjoin(_METRIC, of(_METRIC.c.sample_id))
        .order_by(Sample.id)
    )


def _shared(name: str, columns: Sequence[Any], key: Any) -> sa.FromClause:
    """The JSON of what many samples have in common, made once for all of them.

    PostgreSQL remembers it (Memoize), and the OFFSET keeps it from making it for each sample.
    """
    part = sa.select(*columns).where(columns[0] == key).correlate(_SAMPLES).subquery("part")
    made: sa.Select[Any] = sa.select(
        sa.literal_column("row_to_json(part)").label("json")
    ).select_from(part)
    return made.offset(sa.literal_column("0")).lateral(name)
