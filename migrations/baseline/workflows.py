"""The tables of workflows, and of the entities that they read and produce."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline.common import SCHEMA

TABLES = (
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


def create() -> None:
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
