"""Browser sign-in and sign-out, and invitations for signed-in users."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.auth import CurrentUser, find_user
from aspen.api.cookies import read_session, write_session
from aspen.api.deps import AppRuntime, AppSettings, Identity, WritingDb
from aspen.api.errors import ApiError, documented, login_failure, unavailable
from aspen.api.keys import InvalidTokenError, ProviderUnavailableError
from aspen.api.management import Management, ManagementError
from aspen.api.runtime import Runtime
from aspen.api.signin import Attempt, sync_roles
from aspen.database.models import Group, User

router = APIRouter(tags=["auth"])
_log = logging.getLogger(__name__)
_DATABASE_ACCOUNT = "auth0|"
"""The prefix of account IDs that the provider itself stores and has roles for."""


def _redirects(status: int) -> dict[str, Any]:
    """Return the options that document a redirect."""
    return {
        "response_class": RedirectResponse,
        "status_code": status,
        "responses": {status: {"description": "Redirect"}},
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


@router.get(
    "/callback",
    response_class=RedirectResponse,
    status_code=307,
    responses={307: {"description": "Redirect to the front end"}, **documented(401, 403, 409, 503)},
)
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
    user = await find_user(db, account) or await _new_user(db, claims)
    if account.startswith(_DATABASE_ACCOUNT):
        await sync_roles(db, runtime.identity, user.id, account, also=claims.get("org_id"))
    await db.commit()
    answer = RedirectResponse(runtime.settings.frontend_url, 307)
    profile = {"user_id": account, "name": user.name}
    write_session(answer, runtime.settings, {"profile": profile})
    return answer


@router.get(
    "/process_invitation",
    response_class=RedirectResponse,
    status_code=307,
    responses={307: {"description": "Redirect to the front end"}, **documented(400, 401, 503)},
)
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
    await sync_roles(db, identity, user.id, user.auth0_user_id, also=organization)
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
        if there := await find_user(db, user.auth0_user_id):
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
