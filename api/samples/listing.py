"""The JSON of samples, made by PostgreSQL: a hundred thousand of them are sent as they come.

Keys, their order and their types are those of `api.schemas.samples.SampleResponse`.
"""

from __future__ import annotations

import sqlalchemy as sa

from db.models import (
    Accession,
    AccessionType,
    Group,
    Location,
    Pathogen,
    PathogenGenome,
    Sample,
    UploadedPathogenGenome,
    User,
)

# row_to_json() writes no blanks, and costs a third less than json_build_object().
_SAMPLE = """(
SELECT row_to_json(made)::text FROM (SELECT
    samples.id,
    samples.collection_date,
    CASE WHEN locations.id IS NOT NULL THEN (
        SELECT row_to_json(part) FROM (
            SELECT locations.id, coalesce(locations.region, '') AS region, locations.country,
                locations.division, locations.location
        ) part
    ) END AS collection_location,
    {gisaid} AS gisaid,
    (SELECT row_to_json(part) FROM (SELECT pathogens.id, pathogens.slug, pathogens.name) part)
        AS pathogen,
    samples.private,
    {private_identifier} AS private_identifier,
    samples.public_identifier,
    pathogen_genomes.sequencing_date,
    (SELECT row_to_json(part) FROM (SELECT groups.id, groups.name) part) AS submitting_group,
    (SELECT row_to_json(part) FROM (SELECT users.id, users.name) part) AS uploaded_by,
    date_trunc('second', uploaded_pathogen_genomes.upload_date) AT TIME ZONE 'UTC' AS upload_date,
    coalesce((
        SELECT json_agg(row_to_json(part)) FROM (
            SELECT found.lineage_type, found.lineage, found.lineage_software_version,
                found.last_updated::date AS last_updated,
                -- JSON has no infinity, and no NaN (which is the greatest number of all here)
                CASE WHEN abs(found.lineage_probability) < 'Infinity'
                    THEN found.lineage_probability END AS lineage_probability,
                found.reference_dataset_name, found.reference_sequence_accession,
                found.reference_dataset_tag,
                found.raw_lineage_output ->> 'scorpio_call' AS scorpio_call,
                found.raw_lineage_output ->> 'scorpio_support' AS scorpio_support,
                found.raw_lineage_output ->> 'qc_status' AS qc_status
              FROM aspen.sample_lineages found WHERE found.sample_id = samples.id ORDER BY found.id
        ) part
    ), '[]') AS lineages,
    coalesce((
        SELECT json_agg(row_to_json(part)) FROM (
            SELECT found.qc_score, found.qc_software_version, found.qc_status, found.qc_caller,
                found.reference_dataset_name, found.reference_sequence_accession,
                found.reference_dataset_tag
              FROM aspen.sample_qc_metrics found
             WHERE found.sample_id = samples.id ORDER BY found.id
        ) part
    ), '[]') AS qc_metrics
) made)"""
_GISAID = """(
        SELECT row_to_json(part) FROM (
            SELECT accessions.accession AS gisaid_id,
                CASE WHEN accessions.accession IS NULL THEN 'Not Found' ELSE 'Accepted' END
                    AS status
        ) part
    )"""
_OWN = "CASE WHEN samples.submitting_group_id = :context THEN samples.private_identifier END"

_UPLOADED = UploadedPathogenGenome.__table__
_GENOME = PathogenGenome.__table__
_ACCESSION = sa.and_(
    Accession.sample_id == Sample.id, Accession.accession_type == AccessionType.GISAID_ISL
)


def listed(context: Group) -> sa.Select[tuple[str]]:
    """Samples as the list shows them, in the order of their ids.

    Args:
        context: The group whose path is used; of others' samples no private identifier is shown.
    """
    made = sa.text(_SAMPLE.format(gisaid=_GISAID, private_identifier=_OWN))
    return _of_samples(made.bindparams(context=context.id)).outerjoin(Accession, _ACCESSION)


def written() -> sa.Select[tuple[str]]:
    """Samples as the answer to their change shows them: without GISAID, but with both names."""
    names = {"gisaid": "NULL::json", "private_identifier": "samples.private_identifier"}
    return _of_samples(sa.text(_SAMPLE.format(**names)))


def _of_samples(made: sa.TextClause) -> sa.Select[tuple[str]]:
    return (
        sa.select(made)
        .select_from(Sample)
        .join(Pathogen, Pathogen.id == Sample.pathogen_id)
        .join(Group, Group.id == Sample.submitting_group_id)
        .join(User, User.id == Sample.uploaded_by_id)
        .outerjoin(Location, Location.id == Sample.location_id)
        .outerjoin(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .outerjoin(_GENOME, _GENOME.c.entity_id == _UPLOADED.c.pathogen_genome_id)
        .order_by(Sample.id)
    )
