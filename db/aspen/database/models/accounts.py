"""Users of the service, their groups, and their roles in them."""

from __future__ import annotations

import secrets
import string
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from aspen.database.models.base import Base, dependents

if TYPE_CHECKING:
    from aspen.database.models.reference import Location
    from aspen.database.models.samples import Sample
    from aspen.database.models.workflows import Entity, PhyloRun, PhyloTree, Workflow

_ID_ALPHABET = string.ascii_lowercase + string.digits
_ID_LENGTH = 20


def random_identifier() -> str:
    """Return 20 random lowercase letters and digits, for `User.split_id` and `analytics_id`."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


class User(Base):
    """A person who may sign in; `auth0_user_id` identifies them to the identity provider."""

    __tablename__ = "users"
    __table_args__ = (sa.Index("uq_users_split_id", "split_id", unique=True),)
    repr_fields = {"name": "name", "email": "email"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str] = mapped_column(unique=True)
    auth0_user_id: Mapped[str] = mapped_column(unique=True)
    system_admin: Mapped[bool] = mapped_column(default=False)
    agreed_to_tos: Mapped[bool] = mapped_column(default=False)
    acknowledged_policy_version: Mapped[date | None]
    split_id: Mapped[str | None] = mapped_column(default=random_identifier)
    """Identifies the user to the feature-flag service without revealing who they are."""
    analytics_id: Mapped[str] = mapped_column(unique=True, default=random_identifier)
    """Identifies the user to the web analytics service without revealing who they are."""
    gisaid_submitter_id: Mapped[str | None]
    created_at: Mapped[datetime | None] = mapped_column(server_default=sa.func.now())

    roles: Mapped[list[UserRole]] = dependents("user")
    groups: Mapped[list[Group]] = relationship(
        secondary="aspen.user_roles", back_populates="members", viewonly=True
    )
    """The groups in which the user has a role; to change them, change `roles`."""
    uploaded_samples: Mapped[list[Sample]] = dependents("uploaded_by")
    workflows: Mapped[list[Workflow]] = dependents("user")


class Group(Base):
    """A public health laboratory or department (the API's ``org``), which owns its samples."""

    __tablename__ = "groups"
    repr_fields = {"name": "name", "prefix": "prefix"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    address: Mapped[str | None]
    prefix: Mapped[str] = mapped_column(unique=True)
    division: Mapped[str | None]
    location: Mapped[str | None]
    default_tree_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("locations.id", name="fk_groups_default_tree_locations")
    )
    tree_parameters: Mapped[dict[str, Any] | None] = mapped_column(
        default=dict, server_default=sa.text("'{}'::jsonb")
    )
    auth0_org_id: Mapped[str] = mapped_column(unique=True)
    submitting_lab: Mapped[str | None]

    default_tree_location: Mapped[Location] = relationship(back_populates="default_for_groups")
    user_roles: Mapped[list[UserRole]] = dependents("group")
    members: Mapped[list[User]] = relationship(
        secondary="aspen.user_roles", back_populates="groups", viewonly=True
    )
    """The users who have a role in the group; to change them, change `user_roles`."""
    granted_roles: Mapped[list[GroupRole]] = dependents(
        "grantor_group", foreign_keys="GroupRole.grantor_group_id"
    )
    """The roles that other groups have over this group's data."""
    received_roles: Mapped[list[GroupRole]] = dependents(
        "grantee_group", foreign_keys="GroupRole.grantee_group_id"
    )
    """The roles that this group has over other groups' data."""
    samples: Mapped[list[Sample]] = dependents("submitting_group")
    entities: Mapped[list[Entity]] = dependents("group")
    phylo_runs: Mapped[list[PhyloRun]] = dependents("group")
    phylo_trees: Mapped[list[PhyloTree]] = relationship(viewonly=True)
    """The `entities` that are trees."""


class Role(Base):
    """A level of access: ``admin``, ``member`` or ``viewer``."""

    __tablename__ = "roles"
    __table_args__ = (sa.PrimaryKeyConstraint("id", name="roles_pkey"),)
    repr_fields = {"name": "name"}

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)

    user_roles: Mapped[list[UserRole]] = dependents("role")
    group_roles: Mapped[list[GroupRole]] = dependents("role")


class UserRole(Base):
    """A role that a user has in a group."""

    __tablename__ = "user_roles"
    __table_args__ = (
        sa.PrimaryKeyConstraint("role_id", "user_id", "group_id", name="user_roles_pkey"),
        sa.UniqueConstraint("user_id", "group_id", "role_id", name="uq_user_roles_user_group_role"),
    )
    repr_fields = {"user": "user_id", "group": "group_id", "role": "role_id"}

    role_id: Mapped[int] = mapped_column(
        sa.ForeignKey("roles.id", name="user_roles_role_id_fkey"), primary_key=True, index=True
    )
    user_id: Mapped[int] = mapped_column(
        sa.ForeignKey("users.id", name="user_roles_user_id_fkey"), primary_key=True, index=True
    )
    group_id: Mapped[int] = mapped_column(
        sa.ForeignKey("groups.id", name="user_roles_group_id_fkey"), primary_key=True, index=True
    )

    role: Mapped[Role] = relationship(back_populates="user_roles")
    user: Mapped[User] = relationship(back_populates="roles")
    group: Mapped[Group] = relationship(back_populates="user_roles")


class GroupRole(Base):
    """A role that one group (the grantee) has over another group's (the grantor's) data."""

    __tablename__ = "group_roles"
    __table_args__ = (
        sa.PrimaryKeyConstraint(
            "role_id", "grantor_group_id", "grantee_group_id", name="group_roles_pkey"
        ),
        sa.UniqueConstraint(
            "grantee_group_id",
            "grantor_group_id",
            "role_id",
            name="uq_group_roles_grantee_grantor_role",
        ),
    )
    repr_fields = {"grantor": "grantor_group_id", "grantee": "grantee_group_id", "role": "role_id"}

    role_id: Mapped[int] = mapped_column(
        sa.ForeignKey("roles.id", name="group_roles_role_id_fkey"), primary_key=True, index=True
    )
    grantor_group_id: Mapped[int] = mapped_column(
        sa.ForeignKey("groups.id", name="group_roles_grantor_group_id_fkey"),
        primary_key=True,
        index=True,
    )
    grantee_group_id: Mapped[int] = mapped_column(
        sa.ForeignKey("groups.id", name="group_roles_grantee_group_id_fkey"),
        primary_key=True,
        index=True,
    )

    role: Mapped[Role] = relationship(back_populates="group_roles")
    grantor_group: Mapped[Group] = relationship(
        back_populates="granted_roles", foreign_keys=[grantor_group_id]
    )
    grantee_group: Mapped[Group] = relationship(
        back_populates="received_roles", foreign_keys=[grantee_group_id]
    )
