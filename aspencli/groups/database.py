"""Groups read from the database, with their members and sample counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspen.database.models import Group, Location, Role, Sample, User, UserRole
from aspencli.groups.remote import ROLES
from aspencli.reference.database import PLACE, find_group

_DETAILS = ("address", "division", "location", "submitting_lab", "auth0_org_id", "tree_parameters")


def list_groups(session: ReadSession) -> Iterator[dict[str, Any]]:
    """Return every group, ordered by ID."""
    rows = session.execute(_summaries().order_by(Group.id))
    return (dict(row) for row in rows.mappings())


def show_group(session: ReadSession, key: str) -> dict[str, Any]:
    """Return the group with this ID, name, or prefix, and its members.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match.
    """
    group = find_group(session, key)
    summary = session.execute(_summaries().where(Group.id == group.id)).mappings().one()
    details = {key: getattr(group, key) for key in _DETAILS}
    return {**summary, **details, "members": _members(session, group.id)}


def list_members(session: ReadSession, key: str) -> Iterator[dict[str, Any]]:
    """Return the members of a group as the API does, each with the strongest of their roles.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match.
    """
    ranks = {name: rank for rank, name in enumerate(ROLES)}
    strongest = sa.func.min(sa.case(ranks, value=Role.name))
    rows = session.execute(
        sa.select(
            User.id,
            User.name,
            User.email,
            User.agreed_to_tos,
            User.acknowledged_policy_version,
            strongest.label("role"),
        )
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(UserRole.group_id == find_group(session, key).id, Role.name.in_(ROLES))
        .group_by(User.id)
        .order_by(User.id)
    )
    return ({**row, "role": ROLES[row["role"]]} for row in rows.mappings())


def _summaries() -> sa.Select[Any]:
    users = (
        sa.select(sa.func.count(sa.distinct(UserRole.user_id)))
        .where(UserRole.group_id == Group.id)
        .scalar_subquery()
    )
    samples = (
        sa.select(sa.func.count()).where(Sample.submitting_group_id == Group.id).scalar_subquery()
    )
    return sa.select(
        Group.id,
        Group.name,
        Group.prefix,
        PLACE.label("default_tree_location"),
        users.label("users"),
        samples.label("samples"),
    ).outerjoin(Location, Location.id == Group.default_tree_location_id)


def _members(session: ReadSession, group_id: int) -> list[dict[str, Any]]:
    rows = session.execute(
        sa.select(User.id, User.name, User.email, sa.func.array_agg(Role.name).label("roles"))
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(UserRole.group_id == group_id)
        .group_by(User.id)
        .order_by(User.name, User.id)
    )
    return [{**row, "roles": sorted(row["roles"])} for row in rows.mappings()]
