"""Roles as the identity provider has them, brought into the database."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from api.management import Management
from db.models import Group, Role, UserRole


async def sync_roles(
    db: AsyncSession, identity: Management, user_id: int, account: str, *, also: str | None = None
) -> None:
    """Give a user, in each group that they are a member of at the provider, the roles from there.

    What the provider knows nothing of stays: groups whose organization does not list the user, and
    memberships without any role. Users who were entered by hand have only those.

    Args:
        db: A session that may write; the caller commits.
        identity: The provider.
        user_id: The user.
        account: Their id at the provider.
        also: An organization to look into even when the user is not listed there (yet).
    """
    organizations = {*await identity.organizations_of(account), *([also] if also else [])}
    query = sa.select(Group.id, Group.auth0_org_id).where(Group.auth0_org_id.in_(organizations))
    for group_id, organization in (await db.execute(query)).all():
        names = await identity.member_roles(organization, account)
        await set_roles(db, user_id, group_id, names)


async def set_roles(db: AsyncSession, user_id: int, group_id: int, names: Collection[str]) -> None:
    """Make those the user's roles in the group; where none is known, nothing changes."""
    roles = (await db.scalars(sa.select(Role.id).where(Role.name.in_(names)))).all()
    if not roles:
        return
    held = sa.and_(UserRole.user_id == user_id, UserRole.group_id == group_id)
    await db.execute(sa.delete(UserRole).where(held, UserRole.role_id.not_in(roles)))
    rows = [{"user_id": user_id, "group_id": group_id, "role_id": role} for role in roles]
    await db.execute(insert(UserRole).values(rows).on_conflict_do_nothing())
