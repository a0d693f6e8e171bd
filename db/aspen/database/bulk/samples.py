"""Columns of samples that bulk runs may change, and how samples are found."""

from __future__ import annotations

from aspen.database.bulk.spec import Column, Reference, Side, Spec, Table

SAMPLES = Table(
    name="aspen.samples",
    noun="sample",
    lacks="the group has no sample",
    scope="submitting_group_id",
    label="private_identifier",
)
ID = Column("id", "id", type="bigint")
PRIVATE = Column("private_identifier", "private_identifier", unique=True)
PUBLIC = Column("public_identifier", "public_identifier", unique=True, verb="is now named")

COLLECTION_DATE = Column("collection_date", "collection_date", type="date")
SEQUENCING_DATE = Column(
    "sequencing_date",
    "sequencing_date",
    type="date",
    nullable=True,
    side=Side(
        table="aspen.pathogen_genomes",
        id="entity_id",
        joins="LEFT JOIN aspen.uploaded_pathogen_genomes {t}u ON {t}u.sample_id = {s}.id "
        "LEFT JOIN aspen.pathogen_genomes {t} ON {t}.entity_id = {t}u.pathogen_genome_id",
        owner="EXISTS (SELECT FROM aspen.uploaded_pathogen_genomes {t}u "
        "WHERE {t}u.pathogen_genome_id = {t}.entity_id AND {t}u.sample_id = p.id)",
        lacks="has no genome, which would hold the sequencing date",
    ),
)
PRIVACY = Column("private", "private", type="boolean")
LOCATION = Column(
    "location",
    "location_id",
    type="integer",
    nullable=True,
    reference=Reference(
        table="aspen.locations",
        noun="location",
        text="concat_ws(' / ', r.region, r.country, r.division, r.location)",
        is_path=True,
    ),
)
COLUMNS = {
    column.name: column
    for column in (PRIVATE, PUBLIC, COLLECTION_DATE, SEQUENCING_DATE, PRIVACY, LOCATION)
}
"""The columns of samples that a bulk run may change, by name."""

RENAME = Spec(SAMPLES, key=PRIVATE, columns=(PUBLIC,))
"""New public identifiers for samples found by their private ones."""
