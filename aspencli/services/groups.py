"""Groups, straight from the database: who they are, who works in them, how much they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from aspencli.services.group_rows import ROLES, GroupDetails, GroupSummary, Member
from aspencli.services.lookups import PLACE, find_group
from db.models import Group, Location, Role, Sample, User, UserRole
from db.sessions import ReadSession


def list_groups(session: ReadSession) -> Iterator[GroupSummary]:
    """Every group, in ascending id."""
    for row in session.execute(_summaries().order_by(Group.id)):
        yield GroupSummary(*row)


def show_group(session: ReadSession, key: str) -> GroupDetails:
    """The group of that id, name or prefix, with its members.

    Raises:
        NotFoundError: There is none.
        BadInputError: There are several.
    """
    group = find_group(session, key)
    summary = GroupSummary(*session.execute(_summaries().where(Group.id == group.id)).one())
    return GroupDetails(
        **vars(summary),
        address=group.address,
        division=group.division,
        location=group.location,
        submitting_lab=group.submitting_lab,
        auth0_org_id=group.auth0_org_id,
        tree_parameters=group.tree_parameters,
        members=_members(session, group.id),
    )


def list_members(session: ReadSession, key: str) -> Iterator[dict[str, Any]]:
    """The members of a group as the API tells of them: of several roles, the strongest.

    Raises:
        NotFoundError: There is no such group.
        BadInputError: There are several.
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
    for row in rows.mappings():
        yield {**row, "role": ROLES[row["role"]]}


def _summaries() -> sa.Select[Any]:
    users = (
        sa.select(sa.func.count(sa.distinct(UserRole.user_id)))
        .where(UserRole.group_id == Group.id)
        .scalar_subquery()
    )
    samples = (
        sa.select(sa.func.count()).where(Sample.submitting_group_id == Group.id).scalar_subquery()
    )
    return sa.select(Group.id, Group.name, Group.prefix, PLACE, users, samples).outerjoin(
        Location, Location.id == Group.default_tree_location_id
    )


def _members(session: ReadSession, group_id: int) -> tuple[Member, ...]:
    rows = session.execute(
        sa.select(User.id, User.name, User.email, sa.func.array_agg(Role.name))
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(UserRole.group_id == group_id)
        .group_by(User.id)
        .order_by(User.name, User.id)
    )
    return tuple(Member(id_, name, email, tuple(sorted(roles))) for id_, name, email, roles in rows)
