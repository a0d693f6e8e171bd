"""Groups read from the database, with their members and sample counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from aspen.database.tables import GROUPS, LOCATIONS, PLACE, ROLES, SAMPLES, USER_ROLES, USERS
from aspencli.groups.remote import ROLES as API_ROLES
from aspencli.reference.database import find_group

if TYPE_CHECKING:
    from aspen.database.sessions import Reader

_DETAILS = ("address", "division", "location", "submitting_lab", "auth0_org_id", "tree_parameters")


def list_groups(reader: Reader) -> Iterator[dict[str, Any]]:
    """Return every group, ordered by ID."""
    rows = reader.execute(_summaries().order_by(GROUPS.c.id))
    return (dict(row) for row in rows.mappings())


def show_group(reader: Reader, key: str) -> dict[str, Any]:
    """Return the group with this ID, name, or prefix, and its members.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match.
    """
    group = find_group(reader, key)
    details = _summaries().add_columns(*(GROUPS.c[name] for name in _DETAILS))
    found = reader.execute(details.where(GROUPS.c.id == group.id)).mappings().one()
    return {**found, "members": _members(reader, group.id)}


def list_members(reader: Reader, key: str) -> Iterator[dict[str, Any]]:
    """Return the members of a group as the API does, each with the strongest of their roles.

    Raises:
        NotFoundError: No group matches.
        BadInputError: Several groups match.
    """
    ranks = {name: rank for rank, name in enumerate(API_ROLES)}
    strongest = sa.func.min(sa.case(ranks, value=ROLES.c.name))
    rows = reader.execute(
        sa.select(
            USERS.c.id,
            USERS.c.name,
            USERS.c.email,
            USERS.c.agreed_to_tos,
            USERS.c.acknowledged_policy_version,
            strongest.label("role"),
        )
        .select_from(USERS)
        .join(USER_ROLES, USER_ROLES.c.user_id == USERS.c.id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(USER_ROLES.c.group_id == find_group(reader, key).id, ROLES.c.name.in_(API_ROLES))
        .group_by(USERS.c.id)
        .order_by(USERS.c.id)
    )
    return ({**row, "role": API_ROLES[row["role"]]} for row in rows.mappings())


def _summaries() -> sa.Select[Any]:
    users = (
        sa.select(sa.func.count(sa.distinct(USER_ROLES.c.user_id)))
        .where(USER_ROLES.c.group_id == GROUPS.c.id)
        .scalar_subquery()
    )
    samples = (
        sa.select(sa.func.count())
        .where(SAMPLES.c.submitting_group_id == GROUPS.c.id)
        .scalar_subquery()
    )
    return (
        sa.select(
            GROUPS.c.id,
            GROUPS.c.name,
            GROUPS.c.prefix,
            PLACE.label("default_tree_location"),
            users.label("users"),
            samples.label("samples"),
        )
        .select_from(GROUPS)
        .outerjoin(LOCATIONS, LOCATIONS.c.id == GROUPS.c.default_tree_location_id)
    )


def _members(reader: Reader, group_id: int) -> list[dict[str, Any]]:
    rows = reader.execute(
        sa.select(
            USERS.c.id, USERS.c.name, USERS.c.email, sa.func.array_agg(ROLES.c.name).label("roles")
        )
        .select_from(USERS)
        .join(USER_ROLES, USER_ROLES.c.user_id == USERS.c.id)
        .join(ROLES, ROLES.c.id == USER_ROLES.c.role_id)
        .where(USER_ROLES.c.group_id == group_id)
        .group_by(USERS.c.id)
        .order_by(USERS.c.name, USERS.c.id)
    )
    return [{**row, "roles": sorted(row["roles"])} for row in rows.mappings()]
