"""The tables of the entity types: genomes, trees, and dumps of repositories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline.common import SCHEMA

TABLES = (
    "pathogen_genomes",
    "uploaded_pathogen_genomes",
    "aligned_pathogen_genome",
    "phylo_trees",
    "phylo_tree_samples",
    "raw_gisaid_dump",
    "processed_gisaid_dump",
    "aligned_gisaid_dump",
    "raw_repository_data",
    "processed_repository_data",
    "aligned_repository_data",
)
"""In the order of creation: each table refers only to those before it."""


def create() -> None:
    """Create the tables."""
    _pathogen_genomes()
    _uploaded_pathogen_genomes()
    _aligned_pathogen_genome()
    _phylo_trees()
    _phylo_tree_samples()
    _raw_gisaid_dump()
    _processed_gisaid_dump()
    _aligned_gisaid_dump()
    _raw_repository_data()
    _processed_repository_data()
    _aligned_repository_data()


def _pathogen_genomes() -> None:
    op.create_table(
        "pathogen_genomes",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.String(), nullable=False),
        sa.Column("num_unambiguous_sites", sa.Integer(), nullable=False),
        sa.Column("num_missing_alleles", sa.Integer(), nullable=False),
        sa.Column("num_mixed", sa.Integer(), nullable=False),
        sa.Column("sequencing_date", sa.Date(), nullable=True),
        sa.PrimaryKeyConstraint("entity_id", name="pk_pathogen_genomes"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_pathogen_genomes_entity_id_entities"
        ),
        schema=SCHEMA,
    )


def _uploaded_pathogen_genomes() -> None:
    op.create_table(
        "uploaded_pathogen_genomes",
        sa.Column("pathogen_genome_id", sa.Integer(), nullable=False),
        sa.Column("sequencing_depth", sa.Double(), nullable=True),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("upload_date", sa.DateTime(), nullable=False, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("pathogen_genome_id", name="pk_uploaded_pathogen_genomes"),
        sa.UniqueConstraint("sample_id", name="uq_uploaded_pathogen_genomes_sample_id"),
        sa.ForeignKeyConstraint(
            ["pathogen_genome_id"],
            ["aspen.pathogen_genomes.entity_id"],
            name="fk_uploaded_pathogen_genomes_pathogen_genome_id_pathoge_d57a",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"],
            ["aspen.samples.id"],
            name="fk_uploaded_pathogen_genomes_sample_id_samples",
        ),
        schema=SCHEMA,
    )


def _aligned_pathogen_genome() -> None:
    op.create_table(
        "aligned_pathogen_genome",
        sa.Column("pathogen_genome_id", sa.Integer(), nullable=False),
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("aligned_date", sa.DateTime(), nullable=False, server_default=sa.text("now()")),
        sa.Column("reference_name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pathogen_genome_id", name="pk_aligned_pathogen_genome"),
        sa.UniqueConstraint("sample_id", name="uq_aligned_pathogen_genome_sample_id"),
        sa.ForeignKeyConstraint(
            ["pathogen_genome_id"],
            ["aspen.pathogen_genomes.entity_id"],
            name="fk_aligned_pathogen_genome_pathogen_genome_id_pathogen_genomes",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_aligned_pathogen_genome_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _phylo_trees() -> None:
    op.create_table(
        "phylo_trees",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("s3_key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column(
            "tree_type",
            sa.String(),
            nullable=False,
            server_default=sa.text("'UNKNOWN'::character varying"),
        ),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("resolved_template_args", postgresql.JSONB(), nullable=True),
        sa.Column("contextual_repository_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_phylo_trees"),
        sa.UniqueConstraint("s3_bucket", "s3_key", name="uq_phylo_trees_s3_bucket_s3_key"),
        sa.ForeignKeyConstraint(
            ["contextual_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_phylo_trees_contextual_repository_id_public_repositories",
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_phylo_trees_entity_id_entities"
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"], ["aspen.pathogens.id"], name="fk_phylo_trees_pathogen_id_pathogens"
        ),
        sa.ForeignKeyConstraint(
            ["tree_type"], ["aspen.tree_types.item_id"], name="fk_phylo_trees_tree_type_tree_types"
        ),
        schema=SCHEMA,
    )


def _phylo_tree_samples() -> None:
    op.create_table(
        "phylo_tree_samples",
        sa.Column("sample_id", sa.Integer(), nullable=False),
        sa.Column("phylo_tree_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sample_id", "phylo_tree_id", name="pk_phylo_tree_samples"),
        sa.ForeignKeyConstraint(
            ["phylo_tree_id"],
            ["aspen.phylo_trees.entity_id"],
            name="fk_phylo_tree_samples_phylo_tree_id_phylo_trees",
        ),
        sa.ForeignKeyConstraint(
            ["sample_id"], ["aspen.samples.id"], name="fk_phylo_tree_samples_sample_id_samples"
        ),
        schema=SCHEMA,
    )


def _raw_gisaid_dump() -> None:
    op.create_table(
        "raw_gisaid_dump",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("download_date", sa.DateTime(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_raw_gisaid_dump"),
        sa.UniqueConstraint("s3_bucket", "s3_key", name="uq_raw_gisaid_dump_s3_bucket_s3_key"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_raw_gisaid_dump_entity_id_entities"
        ),
        schema=SCHEMA,
    )


def _processed_gisaid_dump() -> None:
    op.create_table(
        "processed_gisaid_dump",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("metadata_s3_key", sa.String(), nullable=False),
        sa.Column("sequences_s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_processed_gisaid_dump"),
        sa.UniqueConstraint(
            "s3_bucket", "metadata_s3_key", name="uq_processed_gisaid_dump_s3_bucket_key"
        ),
        sa.UniqueConstraint(
            "s3_bucket", "sequences_s3_key", name="uq_processed_gisaid_dump_s3_bucket_sequences"
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_processed_gisaid_dump_entity_id_entities"
        ),
        schema=SCHEMA,
    )


def _aligned_gisaid_dump() -> None:
    op.create_table(
        "aligned_gisaid_dump",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("sequences_s3_key", sa.String(), nullable=False),
        sa.Column("metadata_s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_aligned_gisaid_dump"),
        sa.UniqueConstraint(
            "s3_bucket", "metadata_s3_key", name="uq_aligned_gisaid_dump_s3_bucket_key"
        ),
        sa.UniqueConstraint(
            "s3_bucket", "sequences_s3_key", name="uq_aligned_gisaid_dump_s3_bucket_sequences"
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_aligned_gisaid_dump_entity_id_entities"
        ),
        schema=SCHEMA,
    )


def _raw_repository_data() -> None:
    op.create_table(
        "raw_repository_data",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.Column("download_date", sa.DateTime(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_raw_repository_data"),
        sa.UniqueConstraint("s3_bucket", "s3_key", name="uq_raw_repository_data_s3_bucket_s3_key"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_raw_repository_data_entity_id_entities"
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_raw_repository_data_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_raw_repository_data_public_repository_id_public_repositories",
        ),
        schema=SCHEMA,
    )


def _processed_repository_data() -> None:
    op.create_table(
        "processed_repository_data",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("sequences_s3_key", sa.String(), nullable=False),
        sa.Column("metadata_s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_processed_repository_data"),
        sa.UniqueConstraint(
            "s3_bucket",
            "metadata_s3_key",
            name="uq_processed_repository_data_s3_bucket_metadata_s3_key",
        ),
        sa.UniqueConstraint(
            "s3_bucket",
            "sequences_s3_key",
            name="uq_processed_repository_data_s3_bucket_sequences_s3_key",
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"],
            ["aspen.entities.id"],
            name="fk_processed_repository_data_entity_id_entities",
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_processed_repository_data_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_processed_repository_data_public_repository_id_publi_6259",
        ),
        schema=SCHEMA,
    )


def _aligned_repository_data() -> None:
    op.create_table(
        "aligned_repository_data",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.Column("s3_bucket", sa.String(), nullable=False),
        sa.Column("sequences_s3_key", sa.String(), nullable=False),
        sa.Column("metadata_s3_key", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", name="pk_aligned_repository_data"),
        sa.UniqueConstraint(
            "s3_bucket",
            "metadata_s3_key",
            name="uq_aligned_repository_data_s3_bucket_metadata_s3_key",
        ),
        sa.UniqueConstraint(
            "s3_bucket",
            "sequences_s3_key",
            name="uq_aligned_repository_data_s3_bucket_sequences_s3_key",
        ),
        sa.ForeignKeyConstraint(
            ["entity_id"],
            ["aspen.entities.id"],
            name="fk_aligned_repository_data_entity_id_entities",
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_aligned_repository_data_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_aligned_repository_data_public_repository_id_public__c31b",
        ),
        schema=SCHEMA,
    )
