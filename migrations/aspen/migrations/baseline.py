"""The live schema, written out for revision 20230321_232555.

It does not use the models, which change with later revisions: this revision must not change.

Constants shared by the parts of the baseline.

The tables of users, groups, and the roles between them.

The tables of the entity types: genomes, trees, and dumps of repositories.

The schema itself, and the PostgreSQL extensions that the service's queries use.

The lookup tables, and their rows: the values that columns in other tables may have.

The tables that all groups share: places, pathogens, repositories, lineages.

The tables of samples and their details.

The rows that every deployment starts with, under the live service's IDs.

The tables of workflows, and of the entities that they read and produce.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from aspen.database.errors import MigrationError, MigrationPermissionError

SCHEMA = "aspen"


ACCOUNT_TABLES = (
    "roles",
    "users",
    "groups",
    "user_roles",
    "group_roles",
)
"""In the order of creation: each table refers only to those before it."""


def create_accounts() -> None:
    """Create the tables."""
    _roles()
    _users()
    _groups()
    _user_roles()
    _group_roles()


def _roles() -> None:
    op.create_table(
        "roles",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="roles_pkey"),
        sa.UniqueConstraint("name", name="uq_roles_name"),
        schema=SCHEMA,
    )


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("auth0_user_id", sa.String(), nullable=False),
        sa.Column("system_admin", sa.Boolean(), nullable=False),
        sa.Column("agreed_to_tos", sa.Boolean(), nullable=False),
        sa.Column("acknowledged_policy_version", sa.Date(), nullable=True),
        sa.Column("split_id", sa.String(), nullable=True),
        sa.Column("analytics_id", sa.String(), nullable=False),
        sa.Column("gisaid_submitter_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=True, server_default=sa.text("now()")),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("analytics_id", name="uq_users_analytics_id"),
        sa.UniqueConstraint("auth0_user_id", name="uq_users_auth0_user_id"),
        sa.UniqueConstraint("email", name="uq_users_email"),
        schema=SCHEMA,
    )
    op.create_index("uq_users_split_id", "users", ["split_id"], schema=SCHEMA, unique=True)


def _groups() -> None:
    op.create_table(
        "groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("division", sa.String(), nullable=True),
        sa.Column("location", sa.String(), nullable=True),
        sa.Column("default_tree_location_id", sa.Integer(), nullable=False),
        sa.Column(
            "tree_parameters",
            postgresql.JSONB(),
            nullable=True,
            server_default=sa.text("'{}'::jsonb"),
        ),
        sa.Column("auth0_org_id", sa.String(), nullable=False),
        sa.Column("submitting_lab", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_groups"),
        sa.UniqueConstraint("auth0_org_id", name="uq_groups_auth0_org_id"),
        sa.UniqueConstraint("name", name="uq_groups_name"),
        sa.UniqueConstraint("prefix", name="uq_groups_prefix"),
        sa.ForeignKeyConstraint(
            ["default_tree_location_id"],
            ["aspen.locations.id"],
            name="fk_groups_default_tree_locations",
        ),
        schema=SCHEMA,
    )


def _user_roles() -> None:
    op.create_table(
        "user_roles",
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("role_id", "user_id", "group_id", name="user_roles_pkey"),
        sa.UniqueConstraint("user_id", "group_id", "role_id", name="uq_user_roles_user_group_role"),
        sa.ForeignKeyConstraint(["group_id"], ["aspen.groups.id"], name="user_roles_group_id_fkey"),
        sa.ForeignKeyConstraint(["role_id"], ["aspen.roles.id"], name="user_roles_role_id_fkey"),
        sa.ForeignKeyConstraint(["user_id"], ["aspen.users.id"], name="user_roles_user_id_fkey"),
        schema=SCHEMA,
    )
    op.create_index("ix_aspen_user_roles_group_id", "user_roles", ["group_id"], schema=SCHEMA)
    op.create_index("ix_aspen_user_roles_role_id", "user_roles", ["role_id"], schema=SCHEMA)
    op.create_index("ix_aspen_user_roles_user_id", "user_roles", ["user_id"], schema=SCHEMA)


def _group_roles() -> None:
    op.create_table(
        "group_roles",
        sa.Column("role_id", sa.Integer(), nullable=False),
        sa.Column("grantor_group_id", sa.Integer(), nullable=False),
        sa.Column("grantee_group_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "role_id", "grantor_group_id", "grantee_group_id", name="group_roles_pkey"
        ),
        sa.UniqueConstraint(
            "grantee_group_id",
            "grantor_group_id",
            "role_id",
            name="uq_group_roles_grantee_grantor_role",
        ),
        sa.ForeignKeyConstraint(
            ["grantee_group_id"], ["aspen.groups.id"], name="group_roles_grantee_group_id_fkey"
        ),
        sa.ForeignKeyConstraint(
            ["grantor_group_id"], ["aspen.groups.id"], name="group_roles_grantor_group_id_fkey"
        ),
        sa.ForeignKeyConstraint(["role_id"], ["aspen.roles.id"], name="group_roles_role_id_fkey"),
        schema=SCHEMA,
    )
    op.create_index(
        "ix_aspen_group_roles_grantee_group_id", "group_roles", ["grantee_group_id"], schema=SCHEMA
    )
    op.create_index(
        "ix_aspen_group_roles_grantor_group_id", "group_roles", ["grantor_group_id"], schema=SCHEMA
    )
    op.create_index("ix_aspen_group_roles_role_id", "group_roles", ["role_id"], schema=SCHEMA)


ENTITY_TABLES = (
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


def create_entities() -> None:
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


EXTENSIONS = ("cube", "earthdistance", "fuzzystrmatch")
"""For distances between places (`earthdistance` needs `cube`), and between spellings."""

_INSUFFICIENT_PRIVILEGE = "42501"
_NOT_INSTALLED = frozenset({"0A000", "58P01"})  # feature_not_supported, undefined_file


def create_extensions() -> None:
    """Create the schema and the extensions if they do not exist."""
    _create_schema()
    for name in EXTENSIONS:
        _create_extension(name)


def _create_schema() -> None:
    # CREATE SCHEMA IF NOT EXISTS requires the privilege even if there is nothing to create.
    if context.is_offline_mode() or not _exists("pg_namespace", "nspname", SCHEMA):
        op.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")


def _create_extension(name: str) -> None:
    try:
        op.execute(f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public")
    except DBAPIError as error:
        code = getattr(error.orig, "pgcode", None)
        if code == _INSUFFICIENT_PRIVILEGE:
            raise MigrationPermissionError(
                f"this role may not create the extension {name}",
                hint="Let a superuser run, in this database: "
                + " ".join(f"CREATE EXTENSION {each} SCHEMA public;" for each in EXTENSIONS),
            ) from error
        if code in _NOT_INSTALLED:
            raise MigrationError(
                f"this server does not have the extension {name}",
                hint="Install PostgreSQL's contrib modules on the server "
                "(on Debian they come with postgresql, elsewhere as postgresql-contrib).",
            ) from error
        raise


def _exists(catalog: str, column: str, name: str) -> bool:
    query = f"SELECT 1 FROM pg_catalog.{catalog} WHERE {column} = '{name}'"  # noqa: S608 - constants
    return op.get_bind().exec_driver_sql(query).first() is not None


ROWS: Mapping[str, tuple[str, ...]] = {
    "accession_types": ("GENBANK", "GISAID_ISL"),
    "entity_types": (
        "ALIGNED_GISAID_DUMP",
        "ALIGNED_PATHOGEN_GENOME",
        "ALIGNED_PUBLIC_REPOSITORY_DATA",
        "PHYLO_TREE",
        "PROCESSED_GISAID_DUMP",
        "PROCESSED_PUBLIC_REPOSITORY_DATA",
        "RAW_GISAID_DUMP",
        "RAW_PUBLIC_REPOSITORY_DATA",
        "UPLOADED_PATHOGEN_GENOME",
    ),
    "lineage_types": ("NEXTCLADE", "PANGOLIN"),
    "mutations_callers": ("NEXTCLADE",),
    "qc_metric_callers": ("NEXTCLADE",),
    "tree_types": ("NON_CONTEXTUALIZED", "OVERVIEW", "TARGETED", "UNKNOWN"),
    "workflow_status_types": ("COMPLETED", "FAILED", "STARTED"),
    "workflow_types": (
        "ALIGN_GISAID_DUMP",
        "ALIGN_PUBLIC_REPOSITORY_DATA",
        "DOWNLOAD_PUBLIC_REPOSITORY_DATA",
        "PHYLO_RUN",
        "PROCESS_GISAID_DUMP",
    ),
}

LOOKUP_TABLES = tuple(ROWS)


def create_lookups() -> None:
    """Create the tables, and fill them."""
    for name, values in ROWS.items():
        table = op.create_table(
            name,
            sa.Column("item_id", sa.String(), nullable=False),
            sa.PrimaryKeyConstraint("item_id", name=f"pk_{name}"),
            schema=SCHEMA,
        )
        op.bulk_insert(table, [{"item_id": value} for value in values])


REFERENCE_TABLES = (
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


def create_reference() -> None:
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


SAMPLE_TABLES = (
    "samples",
    "accessions",
    "sample_lineages",
    "sample_qc_metrics",
    "sample_mutations",
    "aligned_peptides",
)
"""In the order of creation: each table refers only to those before it."""


def create_samples() -> None:
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


ROLES = (
    {"id": 1, "name": "admin"},
    {"id": 2, "name": "viewer"},
    {"id": 3, "name": "member"},
)

PATHOGENS = (
    {"id": 1, "slug": "SC2", "name": "SARS-CoV-2", "nextclade_dataset_name": "sars-cov-2"},
    {"id": 2, "slug": "MPX", "name": "Monkeypox", "nextclade_dataset_name": "hMPXV"},
    {"id": 3, "slug": "HCV", "name": "Hepatitis C", "nextclade_dataset_name": None},
)

PUBLIC_REPOSITORIES = (
    {"id": 1, "name": "GISAID"},
    {"id": 2, "name": "GenBank"},
)

# The live service used ID 3 for a row that it has since removed.
PATHOGEN_REPO_CONFIGS = (
    {"id": 1, "prefix": "hCoV-19", "public_repository_id": 1, "pathogen_id": 1},
    {"id": 2, "prefix": "SARS-CoV-2/human", "public_repository_id": 2, "pathogen_id": 1},
    {"id": 4, "prefix": "hcv", "public_repository_id": 2, "pathogen_id": 3},
    {"id": 5, "prefix": "MPXV", "public_repository_id": 2, "pathogen_id": 2},
)


def insert() -> None:
    """Insert the rows, and set each sequence to continue after them."""
    _insert("roles", ROLES)
    _insert("pathogens", PATHOGENS)
    _insert("public_repositories", PUBLIC_REPOSITORIES)
    _insert("pathogen_repo_configs", PATHOGEN_REPO_CONFIGS)


def _insert(name: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = [
        sa.column(column, sa.Integer() if isinstance(value, int) else sa.String())
        for column, value in rows[0].items()
    ]
    op.bulk_insert(sa.table(name, *columns, schema=SCHEMA), list(rows))
    last = max(row["id"] for row in rows)
    op.execute(f"SELECT pg_catalog.setval('{SCHEMA}.{name}_id_seq', {last})")


WORKFLOW_TABLES = (
    "workflows",
    "entities",
    "workflow_inputs",
    "gisaid_workflows",
    "gisaid_alignment_workflows",
    "repository_download_workflows",
    "repository_alignment_workflows",
    "phylo_runs",
)
"""In the order of creation: each table refers only to those before it."""


def create_workflows() -> None:
    """Create the tables."""
    _workflows()
    _entities()
    _workflow_inputs()
    _gisaid_workflows()
    _gisaid_alignment_workflows()
    _repository_download_workflows()
    _repository_alignment_workflows()
    _phylo_runs()


def _workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("workflow_type", sa.String(), nullable=False),
        sa.Column("software_versions", sa.JSON(), nullable=False),
        sa.Column("end_datetime", sa.DateTime(), nullable=True),
        sa.Column("start_datetime", sa.DateTime(), nullable=True),
        sa.Column("workflow_status", sa.String(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
        sa.ForeignKeyConstraint(["user_id"], ["aspen.users.id"], name="fk_workflows_user_id"),
        sa.ForeignKeyConstraint(
            ["workflow_status"],
            ["aspen.workflow_status_types.item_id"],
            name="fk_workflows_workflow_status_workflow_status_types",
        ),
        sa.ForeignKeyConstraint(
            ["workflow_type"],
            ["aspen.workflow_types.item_id"],
            name="fk_workflows_workflow_type_workflow_types",
        ),
        schema=SCHEMA,
    )


def _entities() -> None:
    op.create_table(
        "entities",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("entity_type", sa.String(), nullable=False),
        sa.Column("producing_workflow_id", sa.Integer(), nullable=True),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_entities"),
        sa.ForeignKeyConstraint(
            ["entity_type"],
            ["aspen.entity_types.item_id"],
            name="fk_entities_entity_type_entity_types",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["aspen.groups.id"], name="fk_entities_group_id_groups"
        ),
        sa.ForeignKeyConstraint(
            ["producing_workflow_id"],
            ["aspen.workflows.id"],
            name="fk_entities_producing_workflow_id_workflows",
        ),
        schema=SCHEMA,
    )


def _workflow_inputs() -> None:
    op.create_table(
        "workflow_inputs",
        sa.Column("entity_id", sa.Integer(), nullable=False),
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", "workflow_id", name="pk_workflow_inputs"),
        sa.ForeignKeyConstraint(
            ["entity_id"], ["aspen.entities.id"], name="fk_workflow_inputs_entity_id_entities"
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["aspen.workflows.id"], name="fk_workflow_inputs_workflow_id_workflows"
        ),
        schema=SCHEMA,
    )


def _gisaid_workflows() -> None:
    op.create_table(
        "gisaid_workflows",
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name="pk_gisaid_workflows"),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["aspen.workflows.id"],
            name="fk_gisaid_workflows_workflow_id_workflows",
        ),
        schema=SCHEMA,
    )


def _gisaid_alignment_workflows() -> None:
    op.create_table(
        "gisaid_alignment_workflows",
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name="pk_gisaid_alignment_workflows"),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["aspen.workflows.id"],
            name="fk_gisaid_alignment_workflows_workflow_id_workflows",
        ),
        schema=SCHEMA,
    )


def _repository_download_workflows() -> None:
    op.create_table(
        "repository_download_workflows",
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name="pk_repository_download_workflows"),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_repository_download_workflows_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_repository_download_workflows_public_repository_id_p_4ab3",
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["aspen.workflows.id"],
            name="fk_repository_download_workflows_workflow_id_workflows",
        ),
        schema=SCHEMA,
    )


def _repository_alignment_workflows() -> None:
    op.create_table(
        "repository_alignment_workflows",
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("public_repository_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name="pk_repository_alignment_workflows"),
        sa.ForeignKeyConstraint(
            ["pathogen_id"],
            ["aspen.pathogens.id"],
            name="fk_repository_alignment_workflows_pathogen_id_pathogens",
        ),
        sa.ForeignKeyConstraint(
            ["public_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_repository_alignment_workflows_public_repository_id__6ed2",
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"],
            ["aspen.workflows.id"],
            name="fk_repository_alignment_workflows_workflow_id_workflows",
        ),
        schema=SCHEMA,
    )


def _phylo_runs() -> None:
    op.create_table(
        "phylo_runs",
        sa.Column("workflow_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column(
            "template_args",
            postgresql.JSONB(),
            nullable=False,
            server_default=sa.text("'{}'::jsonb"),
        ),
        sa.Column("template_file_path", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=True),
        sa.Column(
            "gisaid_ids", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")
        ),
        sa.Column(
            "tree_type",
            sa.String(),
            nullable=False,
            server_default=sa.text("'UNKNOWN'::character varying"),
        ),
        sa.Column("pathogen_id", sa.Integer(), nullable=False),
        sa.Column("contextual_repository_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("workflow_id", name="pk_phylo_runs"),
        sa.ForeignKeyConstraint(
            ["contextual_repository_id"],
            ["aspen.public_repositories.id"],
            name="fk_phylo_runs_contextual_repository_id_public_repositories",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["aspen.groups.id"], name="fk_phylo_runs_group_id_groups"
        ),
        sa.ForeignKeyConstraint(
            ["pathogen_id"], ["aspen.pathogens.id"], name="fk_phylo_runs_pathogen_id_pathogens"
        ),
        sa.ForeignKeyConstraint(
            ["tree_type"], ["aspen.tree_types.item_id"], name="fk_phylo_runs_tree_type_tree_types"
        ),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["aspen.workflows.id"], name="fk_phylo_runs_workflow_id_workflows"
        ),
        schema=SCHEMA,
    )
