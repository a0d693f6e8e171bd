"""The tables of users, groups, and the roles between them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from migrations.baseline.common import SCHEMA

TABLES = (
    "roles",
    "users",
    "groups",
    "user_roles",
    "group_roles",
)
"""In the order of creation: each table refers only to those before it."""


def create() -> None:
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
