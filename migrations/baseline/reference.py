"""The tables that all groups share: places, pathogens, repositories, lineages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations.baseline.common import SCHEMA

TABLES = (
    "locations",
    "pathogens",
    "public_repositories",
    "pathogen_repo_configs",
    "pango_lineages",
    "pathogen_lineages",
    "usher_options",
    "gisaid_metadata",
    "public_repository_metadata",
)
"""In the order of creation: each table refers only to those before it."""


def create() -> None:
    """Create the tables."""
    _locations()
    _pathogens()
    _public_repositories()
    _pathogen_repo_configs()
    _pango_lineages()
    _pathogen_lineages()
    _usher_options()
    _gisaid_metadata()
    _public_repository_metadata()


def _locations() -> None:
    op.create_table(
        "locations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("country", sa.String(), nullable=True),
        sa.Column("division", sa.String(), nullable=True),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("latitude", sa.Double(), nullable=True),
        sa.Column("longitude", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_locations"),
        sa.UniqueConstraint("region", "country", "division", "location", name="uq_locations_cols"),
        schema=SCHEMA,
    )


def _pathogens() -> None:
    op.create_table(
        "pathogens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("nextclade_dataset_name", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_pathogens"),
        sa.UniqueConstraint("name", name="uq_pathogens_name"),
        sa.UniqueConstraint("slug", name="uq_pathogens_slug"),
        schema=SCHEMA,
    )


def _public_repositories() -> None:
    op.create_table(
        "public_repositories",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_public_repositories"),
        sa.UniqueConstraint("name", name="uq_public_repositories_name"),
        schema=SCHEMA,
    )


def _pathogen_repo_configs() -> None:
    op.create_table(
        "pathogen_repo_configs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pathogen_repo_configs"),
        sa.UniqueConstraint(
            "public_repository_id",
            "pathogen_id",
            name="uq_pathogen_repo_configs_public_repository_id_pathogen_id",
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_pathogen_repo_configs_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_pathogen_repo_configs_public_repository_id_public_re_35fe",
        ),
        schema=SCHEMA,
    )


def _pango_lineages() -> None:
    op.create_table(
        "pango_lineages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("lineage", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pango_lineages"),
        sa.UniqueConstraint("lineage", name="uq_pango_lineages_lineage"),
        schema=SCHEMA,
    )


def _pathogen_lineages() -> None:
    op.create_table(
        "pathogen_lineages",
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("lineage", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("pathogen_id", "lineage", name="pk_pathogen_lineages"),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_pathogen_lineages_pathogen_id_pathogens",
        ),
        schema=SCHEMA,
    )


def _usher_options() -> None:
    op.create_table(
        "usher_options",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("value", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usher_options"),
        sa.UniqueConstraint("description", name="uq_usher_options_description"),
        sa.UniqueConstraint(
            "pathogen_id", "priority", name="uq_usher_options_pathogen_id_priority"
        ),
        sa.UniqueConstraint("value", name="uq_usher_options_value"),
        sa.ForeignKeyConstraint(
            ["pathogen_id"], ["aspen.pathogens.id"], name="fk_usher_options_pathogen_id_pathogens"
        ),
        schema=SCHEMA,
    )


def _gisaid_metadata() -> None:
    op.create_table(
        "gisaid_metadata",
        sa.Column("strain", sa.String(), nullable=False),
        sa.Column("pango_lineage", sa.String(), nullable=True),
        sa.Column("gisaid_clade", sa.String(), nullable=True),
        sa.Column("date", sa.DateTime(), nullable=True),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("division", sa.String(), nullable=True),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("gisaid_epi_isl", sa.String(), nullable=True),
        sa.Column("country", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("strain", name="pk_gisaid_metadata"),
        schema=SCHEMA,
    )


def _public_repository_metadata() -> None:
    op.create_table(
        "public_repository_metadata",
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.Column("strain", sa.String(), nullable=False),
        sa.Column("lineage", sa.String(), nullable=True),
        sa.Column("isl", sa.String(), nullable=True),
        sa.Column("date", sa.DateTime(), nullable=True),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("country", sa.String(), nullable=True),
        sa.Column("division", sa.String(), nullable=True),
        sa.Column("location", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint(
            "pathogen_id", "strain", "public_repository_id", name="pk_public_repository_metadata"
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_public_repository_metadata_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_public_repository_metadata_public_repository_id_publ_ec4a",
        ),
        schema=SCHEMA,
    )
