"""The tables of samples and their details."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline.common import SCHEMA

TABLES = (
    "samples",
    "accessions",
    "sample_lineages",
    "sample_qc_metrics",
    "sample_mutations",
    "aligned_peptides",
)
"""In the order of creation: each table refers only to those before it."""


def create() -> None:
    """Create the tables."""
    _samples()
    _accessions()
    _sample_lineages()
    _sample_qc_metrics()
    _sample_mutations()
    _aligned_peptides()


def _samples() -> None:
    op.create_table(
        "samples",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("submitting_group_id", sa.Integer(), nullable=False),
        sa.Column("private_identifier", sa.String(), nullable=False),
        sa.Column("original_submission", sa.JSON(), nullable=False),
        sa.Column("public_identifier", sa.String(), nullable=False),
        sa.Column("sample_collected_by", sa.String(), nullable=False),
        sa.Column("sample_collector_contact_email", sa.String(), nullable=True),
        sa.Column("sample_collector_contact_address", sa.String(), nullable=True),
        sa.Column(
            "authors", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")
        ),
        sa.Column("collection_date", sa.Date(), nullable=False),
        sa.Column("organism", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("purpose_of_sampling", sa.String(), nullable=True),
        sa.Column("specimen_processing", sa.String(), nullable=True),
        sa.Column("private", sa.Boolean(), nullable=False),
        sa.Column("uploaded_by_id", sa.Integer(), nullable=False),
        sa.Column("location_id", sa.Integer(), nullable=True),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint(
            "submitting_group_id",
            "private_identifier",
            name="uq_samples_submitting_group_id_private_identifier",
        ),
        sa.UniqueConstraint(
            "submitting_group_id",
            "public_identifier",
            name="uq_samples_submitting_group_id_public_identifier",
        ),
        sa.ForeignKeyConstraint(
            ["location_id"], ["aspen.locations.id"], name="fk_samples_locations"
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"], ["aspen.pathogens.id"], name="fk_samples_pathogen_id_pathogens"
        ),
        sa.ForeignKeyConstraint(
            ["submitting_group_id"],
            ["aspen.groups.id"],
            name="fk_samples_submitting_group_id_groups",
        ),
        sa.ForeignKeyConstraint(
            ["uploaded_by_id"], ["aspen.users.id"], name="fk_samples_uploaded_by_id_users"
        ),
        schema=SCHEMA,
    )


def _accessions() -> None:
    op.create_table(
        "accessions",
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("accession_type", sa.String(), nullable=False),
        sa.Column("accession", sa.String(), nullable=False),
        sa.UniqueConstraint(
            "sample_id", "accession_type", name="uq_accessions_sample_id_accession_type"
        ),
        sa.ForeignKeyConstraint(
            ["accession_type"],
            ["aspen.accession_types.item_id"],
            name="fk_accessions_accession_type_accession_types",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_accessions_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _sample_lineages() -> None:
    op.create_table(
        "sample_lineages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=True),
        sa.Column("lineage_type", sa.String(), nullable=False),
        sa.Column("lineage_software_version", sa.String(), nullable=False),
        sa.Column("lineage", sa.String(), nullable=False),
        sa.Column("lineage_probability", sa.Double(), nullable=True),
        sa.Column("raw_lineage_output", postgresql.JSONB(), nullable=True),
        sa.Column("reference_dataset_name", sa.String(), nullable=True),
        sa.Column("reference_sequence_accession", sa.String(), nullable=True),
        sa.Column("reference_dataset_tag", sa.String(), nullable=True),
        sa.Column("last_updated", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sample_lineages"),
        sa.UniqueConstraint(
            "sample_id", "lineage_type", name="uq_sample_lineages_sample_id_lineage_type"
        ),
        sa.ForeignKeyConstraint(
            ["lineage_type"],
            ["aspen.lineage_types.item_id"],
            name="fk_sample_lineages_lineage_type_lineage_types",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_sample_lineages_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _sample_qc_metrics() -> None:
    op.create_table(
        "sample_qc_metrics",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("qc_score", sa.String(), nullable=True),
        sa.Column("qc_software_version", sa.String(), nullable=False),
        sa.Column("qc_status", sa.String(), nullable=False),
        sa.Column("raw_qc_output", postgresql.JSONB(), nullable=True),
        sa.Column("reference_dataset_name", sa.String(), nullable=True),
        sa.Column("reference_sequence_accession", sa.String(), nullable=True),
        sa.Column("reference_dataset_tag", sa.String(), nullable=True),
        sa.Column("qc_caller", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sample_qc_metrics"),
        sa.UniqueConstraint("sample_id", name="uq_sample_qc_metrics_sample_id"),
        sa.UniqueConstraint(
            "sample_id", "qc_caller", name="uq_sample_qc_metrics_sample_id_qc_caller"
        ),
        sa.ForeignKeyConstraint(
            ["qc_caller"],
            ["aspen.qc_metric_callers.item_id"],
            name="fk_sample_qc_metrics_qc_caller_qc_metric_callers",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_sample_qc_metrics_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _sample_mutations() -> None:
    op.create_table(
        "sample_mutations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("substitutions", sa.String(), nullable=True),
        sa.Column("insertions", sa.String(), nullable=True),
        sa.Column("deletions", sa.String(), nullable=True),
        sa.Column("aa_substitutions", sa.String(), nullable=True),
        sa.Column("aa_insertions", sa.String(), nullable=True),
        sa.Column("aa_deletions", sa.String(), nullable=True),
        sa.Column("reference_sequence_accession", sa.String(), nullable=True),
        sa.Column("mutations_caller", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sample_mutations"),
        sa.UniqueConstraint("sample_id", name="uq_sample_mutations_sample_id"),
        sa.UniqueConstraint(
            "sample_id", "mutations_caller", name="uq_sample_mutations_sample_id_mutations_caller"
        ),
        sa.ForeignKeyConstraint(
            ["mutations_caller"],
            ["aspen.mutations_callers.item_id"],
            name="fk_sample_mutations_mutations_caller_mutations_callers",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_sample_mutations_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _aligned_peptides() -> None:
    op.create_table(
        "aligned_peptides",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=True),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("s3_key", sa.String(), nullable=False),
        sa.UniqueConstraint("s3_bucket", "s3_key", name="uq_aligned_peptides_s3_bucket_key"),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_aligned_peptides_sample_id_samples"
        ),
        schema=SCHEMA,
    )
