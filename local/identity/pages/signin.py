"""Sign-in: choose one of the known users, or accept an invitation. There are no passwords."""

from __future__ import annotations

import sqlite3
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from local.identity.audit import audit
from local.identity.errors import PageError
from local.identity.hashing import new_identifier
from local.identity.oauth.parameters import Parameters, required
from local.identity.oauth.requests import is_member
from local.identity.pages.accounts import (
    Invitation,
    accounts,
    find_invitation,
    find_user,
    organization_name,
)
from local.identity.pages.rendering import onward, page
from local.identity.pages.visits import Visit, VisitOf, begin_session, packed, unpacked
from local.identity.provider import Provider

router = APIRouter()


def sign_in_address(
    provider: Provider,
    then: str,
    *,
    program: str,
    leads_to: str = "",
    organization_id: str | None = None,
    invitation: str | None = None,
    hint: str | None = None,
) -> str:
    """Return the URL of the sign-in page.

    Args:
        provider: The provider.
        then: The provider's page to go to afterwards.
        program: The name of the client that requests the sign-in.
        leads_to: The external URL that this page finally redirects to.
        organization_id: Only members of this organization can be chosen.
        invitation: The ticket of an invitation to accept.
        hint: The e-mail address to fill in.
    """
    state = {"then": then, "leads_to": leads_to, "organization": organization_id}
    state |= {"invitation": invitation, "hint": hint, "program": program}
    return f"/login?{urlencode({'state': packed(provider, state)})}"


@router.get("/login")
def choose(visit: VisitOf, state: str = "") -> Response:
    """The page with the users to choose from."""
    unpacked(visit.provider, state)
    return _sign_in_page(visit, state)


@router.post("/login")
def sign_in(visit: VisitOf, parameters: Parameters) -> Response:
    """Sign in as the chosen one, and go on to where it was needed."""
    visit.check(parameters)
    state = required(parameters, "state")
    wanted = unpacked(visit.provider, state)
    response = onward(wanted["then"])
    try:
        with visit.provider.database.writing() as db:
            if wanted["invitation"]:
                user_id = _accept(visit.provider, db, wanted)
            else:
                user_id = find_user(db, parameters.get("email", "").strip())
                _check_membership(db, wanted["organization"], user_id)
            begin_session(visit.provider, db, response, user_id)
    except PageError as error:
        return _sign_in_page(visit, state, error, parameters.get("email", ""))
    audit("user.signed_in", user=user_id, organization=wanted["organization"])
    return response


def _sign_in_page(
    visit: Visit, state: str, error: PageError | None = None, typed: str = ""
) -> Response:
    wanted = unpacked(visit.provider, state)
    with visit.provider.database.reading() as db:
        invitation = None
        if wanted["invitation"]:
            invitation = find_invitation(
                db, wanted["invitation"], wanted["organization"], visit.provider.now()
            )
        listed, more = accounts(db, wanted["organization"])
        organization = organization_name(db, wanted["organization"])
    return page(
        "invitation" if invitation else "sign_in",
        visit,
        status=error.status if error else 200,
        leads_to=wanted["leads_to"],
        state=state,
        invitation=invitation,
        accounts=listed,
        more=more,
        organization=organization,
        program=wanted["program"],
        current=visit.person.user_id if visit.person else None,
        email=typed or wanted["hint"] or "",
        error=error,
    )


def _check_membership(db: sqlite3.Connection, organization_id: str | None, user_id: str) -> None:
    if organization_id and not is_member(db, organization_id, user_id):
        raise PageError(
            "Not a member",
            f"That account does not belong to {organization_name(db, organization_id)}.",
            403,
        )


def _accept(provider: Provider, db: sqlite3.Connection, wanted: dict[str, str]) -> str:
    """Make the invited person a member, adding them as a user if needed; return their user ID."""
    now = provider.now()
    offer = find_invitation(db, wanted["invitation"], wanted["organization"], now)
    row = db.execute("SELECT user_id FROM users WHERE email = ?", (offer.email,)).fetchone()
    user_id = row["user_id"] if row else _add_user(db, offer, now)
    place = (offer.organization_id, user_id)
    db.execute("INSERT INTO members VALUES (?, ?) ON CONFLICT DO NOTHING", place)
    for role_id in offer.role_ids:
        db.execute(
            "INSERT INTO member_roles VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (*place, role_id)
        )
    db.execute("DELETE FROM invitations WHERE id = ?", (offer.id,))
    audit("invitation.accepted", user=user_id, organization=offer.organization_id)
    return str(find_user(db, offer.email))


def _add_user(db: sqlite3.Connection, offer: Invitation, now: float) -> str:
    user_id = new_identifier("auth0|", 24).lower()
    invited = db.execute("SELECT * FROM invitations WHERE id = ?", (offer.id,)).fetchone()
    db.execute(
        "INSERT INTO users (user_id, email, name, email_verified, user_metadata, app_metadata,"
        " created_at, updated_at) VALUES (?, ?, ?, 1, ?, ?, ?, ?)",
        (
            user_id,
            offer.email,
            offer.email,  # as in Auth0, until they change it
            invited["user_metadata"],
            invited["app_metadata"],
            now,
            now,
        ),
    )
    return user_id
