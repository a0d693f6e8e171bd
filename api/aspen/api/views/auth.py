"""Browser sign-in and sign-out, and invitations for signed-in users."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.auth import CurrentUser
from aspen.api.deps import AppRuntime, AppSettings, Identity, WritingDb
from aspen.api.errors import ApiError, documented, login_failure, unavailable
from aspen.api.runtime import Runtime
from aspen.api.signin import (
    Attempt,
    InvalidTokenError,
    ProviderUnavailableError,
    read_session,
    write_session,
)
from aspen.database.models import Group, Role, User, UserRole
from aspen.identity.management import Management, ManagementError

router = APIRouter(tags=["auth"])
_log = logging.getLogger(__name__)
_DATABASE_ACCOUNT = "auth0|"
"""The prefix of account IDs that the provider itself stores and has roles for."""
_HOME = "Redirect to the front end"


def _redirects(status: int, description: str = "Redirect", *errors: int) -> dict[str, Any]:
    """Return the options that document a redirect and the possible errors."""
    return {
        "response_class": RedirectResponse,
        "status_code": status,
        "responses": {status: {"description": description}, **documented(*errors)},
    }


@router.get("/login", **_redirects(302))
async def login(
    runtime: AppRuntime,
    organization: str | None = None,
    invitation: str | None = None,
    organization_name: str | None = None,
) -> RedirectResponse:
    """Send the browser to the identity provider."""
    attempt = Attempt.begin()
    address = runtime.sign_in.address(
        attempt,
        organization=organization,
        invitation=invitation,
        organization_name=organization_name,
    )
    answer = RedirectResponse(address, 302)
    write_session(answer, runtime.settings, attempt.as_session())
    return answer


@router.get("/callback", **_redirects(307, _HOME, 401, 403, 409, 503))
async def auth(
    request: Request,
    runtime: AppRuntime,
    db: WritingDb,
    code: str = "",
    state: str = "",
    error_description: str | None = None,
) -> RedirectResponse:
    """Complete a sign-in when the identity provider sends the browser back."""
    if error_description:
        raise ApiError(403, "Invalid token", reason=error_description)
    claims = await _claims(request, runtime, state, code)
    account = str(claims["sub"])
    user = await _find_user(db, account) or await _new_user(db, claims)
    if account.startswith(_DATABASE_ACCOUNT):
        await _sync_roles(db, runtime.identity, user.id, account, also=claims.get("org_id"))
    await db.commit()
    answer = RedirectResponse(runtime.settings.frontend_url, 307)
    profile = {"user_id": account, "name": user.name}
    write_session(answer, runtime.settings, {"profile": profile})
    return answer


@router.get("/process_invitation", **_redirects(307, _HOME, 400, 401, 503))
async def process_invitation(
    organization: str,
    invitation: str,
    user: CurrentUser,
    db: WritingDb,
    settings: AppSettings,
    identity: Identity,
    organization_name: str | None = None,
) -> RedirectResponse:
    """Accept an invitation for the signed-in user."""
    del organization_name  # part of the invitation link
    found = await _invitation(identity, organization, invitation)
    if str(found["invitee"]["email"]).lower() != user.email.lower():
        raise ApiError(400, "email address mismatch")
    await identity.add_member(organization, user.auth0_user_id, found.get("roles", []))
    await _sync_roles(db, identity, user.id, user.auth0_user_id, also=organization)
    await db.commit()
    await identity.delete_invitation(organization, str(found["id"]))
    return RedirectResponse(settings.frontend_url, 307)


@router.get("/logout", **_redirects(307))
async def logout(runtime: AppRuntime) -> RedirectResponse:
    """Sign out here and at the identity provider."""
    answer = RedirectResponse(runtime.sign_in.sign_out_address(), 307)
    write_session(answer, runtime.settings, {})
    return answer


async def _claims(request: Request, runtime: Runtime, state: str, code: str) -> dict[str, Any]:
    attempt = Attempt.of(read_session(request, runtime.settings))
    if attempt is None:
        raise ApiError(403, "Invalid token", reason="no sign-in in progress in this browser")
    try:
        return await runtime.sign_in.redeem(attempt, state, code)
    except InvalidTokenError as error:
        _log.info("Sign-in failed: %s", error)
        raise ApiError(403, "Invalid token") from error
    except ProviderUnavailableError as error:
        raise unavailable("the identity provider") from error


async def _find_user(db: AsyncSession, account: str) -> User | None:
    if "\0" in account:
        return None
    return await db.scalar(sa.select(User).where(User.auth0_user_id == account))


async def _new_user(db: AsyncSession, claims: dict[str, Any]) -> User:
    """Create the user for an invited account that signs in for the first time."""
    organization, email = claims.get("org_id"), claims.get("email")
    known = sa.select(Group.id).where(Group.auth0_org_id == organization)
    if not (organization and email) or await db.scalar(known) is None:
        raise login_failure()
    name = str(claims.get("name") or email)
    user = User(name=name, email=str(email), auth0_user_id=str(claims["sub"]))
    db.add(user)
    try:
        await db.flush()
    except IntegrityError as error:
        # The user may exist already because of a concurrent sign-in.
        await db.rollback()
        if there := await _find_user(db, user.auth0_user_id):
            return there
        raise ApiError(409, "another account has this email address") from error
    return user


async def _invitation(identity: Management, organization: str, ticket: str) -> dict[str, Any]:
    try:
        invitations = await identity.invitations(organization)
    except ManagementError as error:
        if error.absent:
            raise ApiError(400, "Not found") from error
        raise
    for invitation in invitations:
        if invitation.get("ticket_id") == ticket:
            ends = datetime.fromisoformat(str(invitation["expires_at"]))
            if ends > datetime.now(UTC):
                return invitation
            raise ApiError(400, "the invitation has expired")
    raise ApiError(400, "Not found")


async def _sync_roles(
    db: AsyncSession, identity: Management, user_id: int, account: str, *, also: str | None = None
) -> None:
    """Give a user the provider's roles in each group that they are a member of there.

    This includes the group of the organization `also`, which may not list the user yet. Roles stay
    unchanged in groups whose organization does not list the user, and for memberships without a
    role at the provider. Users who were entered by hand have only such groups.
    """
    organizations = {*await identity.organizations_of(account), *([also] if also else [])}
    query = sa.select(Group.id, Group.auth0_org_id).where(Group.auth0_org_id.in_(organizations))
    for group_id, organization in (await db.execute(query)).all():
        names = await identity.member_roles(organization, account)
        await _set_roles(db, user_id, group_id, names)


async def _set_roles(db: AsyncSession, user_id: int, group_id: int, names: Collection[str]) -> None:
    """Replace the user's roles in the group; if no name is known, change nothing."""
    roles = (await db.scalars(sa.select(Role.id).where(Role.name.in_(names)))).all()
    if not roles:
        return
    held = sa.and_(UserRole.user_id == user_id, UserRole.group_id == group_id)
    await db.execute(sa.delete(UserRole).where(held, UserRole.role_id.not_in(roles)))
    rows = [{"user_id": user_id, "group_id": group_id, "role_id": role} for role in roles]
    await db.execute(insert(UserRole).values(rows).on_conflict_do_nothing())
