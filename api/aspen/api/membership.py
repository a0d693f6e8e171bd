"""Synchronization of roles from the identity provider to the database."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.management import Management
from aspen.database.models import Group, Role, UserRole


async def sync_roles(
    db: AsyncSession, identity: Management, user_id: int, account: str, *, also: str | None = None
) -> None:
    """Give a user the provider's roles in each group that they are a member of there.

    Roles stay unchanged in groups whose organization does not list the user, and for memberships
    without a role at the provider. Users who were entered by hand have only such groups.

    Args:
        db: A writable session; the caller commits.
        identity: The Management API of the provider.
        user_id: The user's ID.
        account: The user's account ID at the provider.
        also: An organization to include even if the user is not (yet) listed there.
    """
    organizations = {*await identity.organizations_of(account), *([also] if also else [])}
    query = sa.select(Group.id, Group.auth0_org_id).where(Group.auth0_org_id.in_(organizations))
    for group_id, organization in (await db.execute(query)).all():
        names = await identity.member_roles(organization, account)
        await set_roles(db, user_id, group_id, names)


async def set_roles(db: AsyncSession, user_id: int, group_id: int, names: Collection[str]) -> None:
    """Replace the user's roles in the group; if no name is known, change nothing."""
    roles = (await db.scalars(sa.select(Role.id).where(Role.name.in_(names)))).all()
    if not roles:
        return
    held = sa.and_(UserRole.user_id == user_id, UserRole.group_id == group_id)
    await db.execute(sa.delete(UserRole).where(held, UserRole.role_id.not_in(roles)))
    rows = [{"user_id": user_id, "group_id": group_id, "role_id": role} for role in roles]
    await db.execute(insert(UserRole).values(rows).on_conflict_do_nothing())
