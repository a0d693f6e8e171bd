"""The current user, and the creation of users."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.auth import AdminUser, CurrentUser
from aspen.api.authz import RoleName
from aspen.api.deps import Db, Identity
from aspen.api.errors import ApiError, documented
from aspen.api.schemas.users import UserMeResponse, UserPostRequest, UserUpdateRequest
from aspen.database.models import Group, Role, User, UserRole
from aspen.identity.management import ManagementError

router = APIRouter(tags=["users"])


@router.get("/me")
async def get_current_user(db: Db, user: CurrentUser) -> UserMeResponse:
    """Return the current user."""
    return await _described(db, user)


@router.put("/me", responses=documented(400))
async def update_user_info(
    changes: UserUpdateRequest, db: Db, user: CurrentUser, identity: Identity
) -> UserMeResponse:
    """Update the current user; a new name is also sent to the identity provider."""
    given = changes.model_dump(exclude_none=True)
    renamed = given.get("name") not in {None, "", user.name}
    for name, value in given.items():
        setattr(user, name, value)
    await db.flush()
    if renamed:
        # Before the commit: if the provider rejects the name, nothing changes.
        try:
            await identity.rename_user(user.auth0_user_id, user.name)
        except ManagementError as error:
            raise ApiError(400, "name is invalid", reason=error.message) from error
    await db.commit()
    return await _described(db, user)


@router.post("/", responses=documented(400, 403, 409))
async def post_user(wanted: UserPostRequest, db: Db, _: AdminUser) -> UserMeResponse:
    """Create a user as a member of a group; the identity provider must have the account."""
    group = await db.get(Group, wanted.group_id)
    if group is None:
        raise ApiError(400, f"group_id {wanted.group_id} not found")
    await _refuse_known(db, wanted)
    role = (await db.scalars(sa.select(Role).where(Role.name == RoleName.MEMBER))).one()
    user = User(**wanted.model_dump(exclude={"group_id"}))
    user.roles = [UserRole(group=group, role=role)]
    db.add(user)
    try:
        await db.commit()
    except IntegrityError:
        # If a concurrent request created the user, report that; otherwise, re-raise the error.
        await db.rollback()
        await _refuse_known(db, wanted)
        raise
    return await _described(db, user)


async def _refuse_known(db: AsyncSession, wanted: UserPostRequest) -> None:
    same = {
        "email": sa.func.lower(User.email) == sa.func.lower(wanted.email),
        "auth0_user_id": User.auth0_user_id == wanted.auth0_user_id,
    }
    query = sa.select(*(sa.func.bool_or(condition).label(name) for name, condition in same.items()))
    found = (await db.execute(query)).one()._asdict()
    taken = [name for name, is_taken in found.items() if is_taken]
    if taken:
        raise ApiError(409, "a user with this email or auth0_user_id already exists", fields=taken)


async def _described(db: AsyncSession, user: User) -> UserMeResponse:
    query = (
        sa.select(Group.id, Group.name, sa.func.array_agg(sa.distinct(Role.name)).label("roles"))
        .join(UserRole, UserRole.group_id == Group.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(UserRole.user_id == user.id)
        .group_by(Group.id)
        .order_by(Group.id)
    )
    groups = [row._asdict() for row in await db.execute(query)]
    fields = {name: getattr(user, name) for name in UserMeResponse.model_fields if name != "groups"}
    return UserMeResponse.model_validate({**fields, "groups": groups})
