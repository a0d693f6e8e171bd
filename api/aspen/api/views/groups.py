"""Groups, their members, and invitations to them."""

from __future__ import annotations

import logging
import uuid

import sqlalchemy as sa
from fastapi import APIRouter
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from aspen.api.auth import AdminUser, CurrentUser
from aspen.api.authz import ROLES, Access, Action, load_access
from aspen.api.deps import AppRuntime, Db, Identity
from aspen.api.errors import ApiError, documented
from aspen.api.runtime import Runtime
from aspen.api.schemas.base import RowId
from aspen.api.schemas.groups import (
    GroupCreationRequest,
    GroupInfoResponse,
    GroupInvitationResponse,
    GroupInvitationsRequest,
    GroupInvitationsResponse,
    GroupMembersResponse,
    InvitationsResponse,
)
from aspen.database.models import Group, Location, Role, User, UserRole
from aspen.identity.management import (
    Management,
    ManagementError,
    ManagementUnavailableError,
    organization_name,
)

router = APIRouter(tags=["groups"])
_log = logging.getLogger(__name__)


@router.post("/", responses=documented(400, 403, 409))
async def create_group(
    wanted: GroupCreationRequest, db: Db, identity: Identity, runtime: AppRuntime, _: AdminUser
) -> GroupInfoResponse:
    """Create a group and its organization at the identity provider: both or neither."""
    if await db.get(Location, wanted.default_tree_location_id) is None:
        raise ApiError(400, f"default_tree_location_id {wanted.default_tree_location_id} not found")
    await _refuse_known(db, wanted)
    # Insert the row first, with a temporary organization ID: what the database rejects never
    # reaches the provider, and a concurrent request for the same name waits for this one.
    fields = {**wanted.model_dump(), "submitting_lab": wanted.submitting_lab or wanted.name}
    group = Group(**fields, auth0_org_id=f"pending-{uuid.uuid4()}")
    db.add(group)
    try:
        await db.flush()
    except IntegrityError:
        await db.rollback()
        await _refuse_known(db, wanted)
        raise
    group.auth0_org_id = await _new_organization(identity, wanted)
    try:
        await db.commit()
    except BaseException:
        # Even a canceled request must not leave an organization behind.
        await _take_back(identity, runtime, group.auth0_org_id)
        raise
    return await _described(db, group.id)


@router.get("/{group_id}/", responses=documented(400))
async def get_group_info(group_id: RowId, db: Db, user: CurrentUser) -> GroupInfoResponse:
    """Return a group, for its admins and members."""
    await _reader(db, user, group_id, ApiError(400, "Not found"))
    return await _described(db, group_id)


@router.get("/{group_id}/members/", responses=documented(403))
async def get_group_members(group_id: RowId, db: Db, user: CurrentUser) -> GroupMembersResponse:
    """List the members of a group in ID order, for its admins and members."""
    await _reader(db, user, group_id, ApiError(403, "unauthorized"))
    strongest = sa.func.min(
        sa.case({str(name): rank for rank, name in enumerate(ROLES)}, value=Role.name, else_=9)
    )
    query = (
        sa.select(
            *(User.id, User.name, User.agreed_to_tos, User.acknowledged_policy_version),
            *(User.email, strongest.label("rank")),
        )
        .join(UserRole, UserRole.user_id == User.id)
        .join(Role, Role.id == UserRole.role_id)
        .where(UserRole.group_id == group_id, Role.name.in_(ROLES))
        .group_by(User.id)
        .order_by(User.id)
    )
    members = [{**row._asdict(), "role": ROLES[row.rank]} for row in await db.execute(query)]
    return GroupMembersResponse.model_validate({"members": members})


@router.get("/{group_id}/invitations/", responses=documented(400, 403))
async def get_group_invitations(
    group_id: RowId, db: Db, user: CurrentUser, identity: Identity
) -> InvitationsResponse:
    """List the invitations to a group, as stored at the identity provider."""
    access = await _reader(db, user, group_id, ApiError(403, "unauthorized"))
    await db.give_back()
    try:
        found = await identity.invitations(access.group.auth0_org_id)
    except ManagementError as error:
        if error.absent:
            raise ApiError(400, "Not found") from error
        raise
    return InvitationsResponse.model_validate({"invitations": found})


@router.post(
    "/{group_id}/invitations/", responses=documented(400, 403), response_model_exclude_none=True
)
async def invite_group_members(
    group_id: RowId, wanted: GroupInvitationsRequest, db: Db, user: CurrentUser, identity: Identity
) -> GroupInvitationsResponse:
    """Invite people, and return the result for each address."""
    access = await load_access(db, user, group_id)
    if access is None or not (access.may(Action.INVITE_MEMBERS) or user.system_admin):
        raise ApiError(403, "unauthorized")
    await db.give_back()  # each address requires a call to the identity provider
    roles = await identity.role_ids()
    known = [str(name) for name in ROLES if name in roles]
    if wanted.role not in known:
        raise ApiError(400, "role is invalid", role=wanted.role, roles=known)
    answers = [
        await _invited(identity, access, email, roles[wanted.role])
        for email in dict.fromkeys(wanted.emails)
    ]
    return GroupInvitationsResponse(invitations=answers)


async def _invited(
    identity: Management, access: Access, email: str, role: str
) -> GroupInvitationResponse:
    """Send an invitation; return a failure as its outcome, since earlier ones cannot be unsent."""
    inviter = access.user.name or access.user.email
    try:
        await identity.invite(access.group.auth0_org_id, email, inviter, role)
    except (ManagementError, ManagementUnavailableError) as error:
        _log.warning("Invitation to group %s failed: %s", access.group.id, error)
        return GroupInvitationResponse(email=email, success=False, error=str(error))
    return GroupInvitationResponse(email=email, success=True)


async def _reader(db: AsyncSession, user: User, group_id: int, refusal: ApiError) -> Access:
    access = await load_access(db, user, group_id)
    if access is None or not access.may(Action.READ):
        raise refusal
    return access


async def _refuse_known(db: AsyncSession, wanted: GroupCreationRequest) -> None:
    same = (
        sa.func.bool_or(Group.name == wanted.name),
        sa.func.bool_or(Group.prefix == wanted.prefix),
    )
    found = (await db.execute(sa.select(*same))).one()
    taken = [name for name, is_taken in zip(("name", "prefix"), found, strict=True) if is_taken]
    if taken:
        raise ApiError(409, "a group with this name or prefix already exists", fields=taken)


async def _new_organization(identity: Management, wanted: GroupCreationRequest) -> str:
    name = organization_name(wanted.prefix)
    try:
        return await identity.create_organization(name, wanted.name)
    except ManagementError as error:
        if error.taken:
            raise ApiError(
                409, "an organization with this name already exists", organization=name
            ) from error
        raise ApiError(
            400, "the identity provider rejected the organization", reason=error.message
        ) from error


async def _take_back(identity: Management, runtime: Runtime, organization: str) -> None:
    """Delete the organization, unless the commit succeeded and only its response was lost."""
    try:
        async with runtime.sessions() as session:
            query = sa.select(Group.id).where(Group.auth0_org_id == organization)
            if await session.scalar(query) is None:
                await identity.delete_organization(organization)
    except (ManagementError, ManagementUnavailableError, SQLAlchemyError, OSError):
        _log.exception("Cleanup failed. Delete organization %s if no group uses it.", organization)


async def _described(db: AsyncSession, group_id: int) -> GroupInfoResponse:
    query = sa.select(Group).options(selectinload(Group.default_tree_location))
    return GroupInfoResponse.model_validate(
        (await db.scalars(query.where(Group.id == group_id))).one()
    )
