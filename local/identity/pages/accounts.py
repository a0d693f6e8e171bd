"""Who can be chosen on the sign-in page, and what invitations offer."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from local.identity.errors import PageError

_MOST = 24


@dataclass(frozen=True)
class Account:
    """Somebody on the list.

    Attributes:
        user_id: Who.
        name: Their name.
        email: Their address.
        roles: What they are where, in words, one for each organization.
        initials: Two letters for the picture.
        shade: A number from 0 to 5 that the picture's colour comes from.
    """

    user_id: str
    name: str
    email: str
    roles: tuple[str, ...]
    initials: str
    shade: int


@dataclass(frozen=True)
class Invitation:
    """An offer to join an organization.

    Attributes:
        id: Its id.
        organization_id: Which organization.
        organization: What people know it as.
        inviter: Who invites.
        email: Who is invited.
        roles: The names of the roles on offer.
        role_ids: Their ids.
    """

    id: str
    organization_id: str
    organization: str
    inviter: str
    email: str
    roles: tuple[str, ...]
    role_ids: tuple[str, ...]


def accounts(db: sqlite3.Connection, organization_id: str | None) -> tuple[list[Account], int]:
    """The users to choose from, the members of an organization only if one is given.

    Returns:
        The first of them, and how many more there are.
    """
    rows = db.execute(
        "SELECT user_id, name, email FROM users u WHERE NOT blocked AND (:organization IS NULL OR"
        " EXISTS (SELECT 1 FROM members m WHERE m.user_id = u.user_id"
        " AND m.organization_id = :organization)) ORDER BY created_at, rowid",
        {"organization": organization_id},
    ).fetchall()
    return [_account(db, row) for row in rows[:_MOST]], max(0, len(rows) - _MOST)


def find_user(db: sqlite3.Connection, email: str) -> str:
    """The id of the user with an address.

    Raises:
        PageError: There is none, or they may not sign in.
    """
    row = db.execute("SELECT user_id, blocked FROM users WHERE email = ?", (email,)).fetchone()
    if row is None:
        raise PageError("Nobody has that address", f"There is no user with the address {email}.")
    if row["blocked"]:
        raise PageError("You cannot sign in", f"The account {email} is blocked.", 403)
    return str(row["user_id"])


def organization_name(db: sqlite3.Connection, organization_id: str | None) -> str | None:
    """What people know an organization as."""
    row = db.execute(
        "SELECT display_name FROM organizations WHERE id = ?", (organization_id,)
    ).fetchone()
    return None if row is None else str(row["display_name"])


def find_invitation(
    db: sqlite3.Connection, ticket: str, organization_id: str | None, now: float
) -> Invitation:
    """The invitation of a ticket.

    Raises:
        PageError: There is none (any more) for that organization.
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
