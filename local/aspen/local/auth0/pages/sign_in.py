"""Sign-in: choose one of the known users, or accept an invitation. There are no passwords."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from aspen.local.auth0.clients import Parameters, required
from aspen.local.auth0.codes import is_member
from aspen.local.auth0.errors import PageError
from aspen.local.auth0.pages.render import onward, page
from aspen.local.auth0.pages.visits import Visit, VisitOf, begin_session, packed, unpacked
from aspen.local.auth0.settings import audit, new_user_id
from aspen.local.auth0.store import Provider

_MOST = 24

router = APIRouter()


@dataclass(frozen=True)
class Account:
    """A user on the sign-in page.

    Attributes:
        user_id: The user's ID.
        name: Their name.
        email: Their e-mail address.
        roles: Their roles, in words, one entry per organization.
        initials: One or two letters for the avatar.
        shade: A number from 0 to 5 that selects the avatar's color.
    """

    user_id: str
    name: str
    email: str
    roles: tuple[str, ...]
    initials: str
    shade: int


@dataclass(frozen=True)
class Invitation:
    """An invitation to join an organization.

    Attributes:
        id: The invitation's ID.
        organization_id: The organization's ID.
        organization: The organization's display name.
        inviter: The name of the person who sent the invitation.
        email: The e-mail address of the person invited.
        roles: The names of the offered roles.
        role_ids: The IDs of those roles.
    """

    id: str
    organization_id: str
    organization: str
    inviter: str
    email: str
    roles: tuple[str, ...]
    role_ids: tuple[str, ...]


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
    """Show the sign-in page."""
    unpacked(visit.provider, state)
    return _sign_in_page(visit, state)


@router.post("/login")
def sign_in(visit: VisitOf, parameters: Parameters) -> Response:
    """Sign in the chosen user, then redirect to the page that required it."""
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
            f"This account is not a member of {organization_name(db, organization_id)}.",
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
    user_id = new_user_id()
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


def accounts(db: sqlite3.Connection, organization_id: str | None) -> tuple[list[Account], int]:
    """Return the users to choose from; if an organization is given, only its members.

    Returns:
        The first users, and the number of further ones.
    """
    rows = db.execute(
        "SELECT user_id, name, email FROM users u WHERE NOT blocked AND (:organization IS NULL OR"
        " EXISTS (SELECT 1 FROM members m WHERE m.user_id = u.user_id"
        " AND m.organization_id = :organization)) ORDER BY created_at, rowid",
        {"organization": organization_id},
    ).fetchall()
    return [_account(db, row) for row in rows[:_MOST]], max(0, len(rows) - _MOST)


def find_user(db: sqlite3.Connection, email: str) -> str:
    """Return the ID of the user with an e-mail address.

    Raises:
        PageError: The user does not exist or is blocked.
    """
    row = db.execute("SELECT user_id, blocked FROM users WHERE email = ?", (email,)).fetchone()
    if row is None:
        raise PageError("Unknown user", f"No user has the e-mail address {email}.")
    if row["blocked"]:
        raise PageError("You cannot sign in", f"The account {email} is blocked.", 403)
    return str(row["user_id"])


def organization_name(db: sqlite3.Connection, organization_id: str | None) -> str | None:
    """Return the display name of an organization; None if there is none."""
    row = db.execute(
        "SELECT display_name FROM organizations WHERE id = ?", (organization_id,)
    ).fetchone()
    return None if row is None else str(row["display_name"])


def find_invitation(
    db: sqlite3.Connection, ticket: str, organization_id: str | None, now: float
) -> Invitation:
    """Return the invitation with a ticket.

    Raises:
        PageError: The organization has no such invitation, or it has expired.
    """
    row = db.execute(
        "SELECT i.*, o.display_name FROM invitations i"
        " JOIN organizations o ON o.id = i.organization_id"
        " WHERE ticket = ? AND expires_at > ? AND organization_id = ?",
        (ticket, now, organization_id),
    ).fetchone()
    if row is None:
        raise PageError(
            "This invitation is no longer valid",
            "It was used or withdrawn, or it has expired. Ask for a new invitation.",
        )
    ids = tuple(json.loads(row["roles"]))
    names = [db.execute("SELECT name FROM roles WHERE id = ?", (i,)).fetchone() for i in ids]
    return Invitation(
        id=row["id"],
        organization_id=row["organization_id"],
        organization=row["display_name"],
        inviter=row["inviter_name"],
        email=row["invitee_email"],
        roles=tuple(name["name"] for name in names if name),
        role_ids=tuple(i for i, name in zip(ids, names, strict=True) if name),
    )


def _account(db: sqlite3.Connection, row: sqlite3.Row) -> Account:
    held = db.execute(
        "SELECT o.display_name, group_concat(r.name, ', ') AS roles FROM members m"
        " JOIN organizations o ON o.id = m.organization_id"
        " LEFT JOIN member_roles mr USING (organization_id, user_id)"
        " LEFT JOIN roles r ON r.id = mr.role_id WHERE user_id = ?"
        " GROUP BY o.id ORDER BY o.created_at, o.rowid",
        (row["user_id"],),
    )
    words = row["name"].split() or [row["email"]]
    return Account(
        user_id=row["user_id"],
        name=row["name"],
        email=row["email"],
        roles=tuple(f"{at['roles'] or 'no role'}, {at['display_name']}" for at in held),
        initials="".join(word[0] for word in (words[0], *words[1:][-1:])).upper(),
        shade=sum(row["user_id"].encode()) % 6,
    )
