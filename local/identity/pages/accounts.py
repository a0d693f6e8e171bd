"""The accounts on the sign-in page, and the content of invitations."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from local.identity.errors import PageError

_MOST = 24


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
        PageError: There is no such user, or they are blocked.
    """
    row = db.execute("SELECT user_id, blocked FROM users WHERE email = ?", (email,)).fetchone()
    if row is None:
        raise PageError("Nobody has that address", f"There is no user with the address {email}.")
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
            "This invitation does not hold any more",
            "It was used, withdrawn, or has expired. Ask whoever invited you for another one.",
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
