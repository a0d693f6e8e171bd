"""The initial state of a provider: its clients, users, organizations, members, and roles.

    from local.identity.store import Client, Member, Organization, Role, Seed, User, seed

    seed(folder, Seed(clients=[...], users=[...], ...))

Seeding works before the provider starts and while it runs, and can be repeated.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aspencli.errors import ConflictError
from local.identity.database import Database
from local.identity.hashing import hashed, new_identifier
from local.identity.keys import ensure_key, rotate
from local.identity.seeds import (
    ALL_MANAGEMENT_SCOPES,
    Client,
    Grant,
    Member,
    Organization,
    Role,
    Seed,
    User,
)

__all__ = [
    "ALL_MANAGEMENT_SCOPES",
    "Client",
    "Grant",
    "Member",
    "Organization",
    "Role",
    "Seed",
    "Seeded",
    "User",
    "rotate_key",
    "seed",
]


@dataclass(frozen=True)
class Seeded:
    """The number of objects of each kind that were added; all zero if everything existed."""

    clients: int
    users: int
    organizations: int
    roles: int
    members: int


def seed(folder: Path, wanted: Seed) -> Seeded:
    """Add what is missing, in one transaction.

    Existing clients are updated to match, since their callback URLs change with the ports. All
    other existing objects are left alone, as people may have changed them.

    Args:
        folder: The provider's folder; created if it does not exist.
        wanted: The objects that should exist.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: The folder belongs to another user.
        ConflictError: Another object has one of the names, addresses, or IDs.
    """
    now = time.time()
    with Database(folder).writing() as db:
        ensure_key(db, now)
        try:
            return Seeded(
                clients=_put_clients(db, wanted.clients),
                users=_add_users(db, wanted.users, now),
                organizations=_add_organizations(db, wanted.organizations, now),
                roles=_add_roles(db, wanted.roles),
                members=sum(_add_member(db, member) for member in wanted.members),
            )
        except sqlite3.IntegrityError as error:
            raise ConflictError(
                f"the identity provider in {folder} holds something else already: {error}",
                hint="Name other ids, names and addresses, or make the deployment anew:"
                " 'aspencli local reset'.",
            ) from error


def rotate_key(folder: Path) -> str:
    """Create a new signing key, used at once even by a running provider; return its ID."""
    with Database(folder).writing() as db:
        return rotate(db, time.time())


def _put_clients(db: sqlite3.Connection, clients: Iterable[Client]) -> int:
    before = _count(db, "clients")
    for client in clients:
        row = {
            "client_id": client.client_id,
            "name": client.name,
            "public": client.public,
            "secret_hash": client.secret and hashed(client.secret),
            "grants": json.dumps(list(client.grants)),
            "callbacks": json.dumps(list(client.callbacks)),
            "logout_urls": json.dumps(list(client.logout_urls)),
            "audiences": json.dumps(list(client.audiences)),
            "login_uri": client.login_uri,
            "management_scopes": json.dumps(list(client.management_scopes)),
        }
        changes = ", ".join(f"{name} = excluded.{name}" for name in row if name != "client_id")
        _insert(db, "clients", row, f"ON CONFLICT (client_id) DO UPDATE SET {changes}")
    return _count(db, "clients") - before


def _add_users(db: sqlite3.Connection, users: Iterable[User], now: float) -> int:
    before = _count(db, "users")
    for user in users:
        row = {
            "user_id": user.user_id,
            "email": user.email,
            "name": user.name,
            "email_verified": user.email_verified,
            "created_at": now,
            "updated_at": now,
        }
        _insert(db, "users", row, "ON CONFLICT (user_id) DO NOTHING")
    return _count(db, "users") - before


def _add_organizations(
    db: sqlite3.Connection, organizations: Iterable[Organization], now: float
) -> int:
    before = _count(db, "organizations")
    for organization in organizations:
        row = {
            "id": organization.id,
            "name": organization.name,
            "display_name": organization.display_name,
            "created_at": now,
        }
        _insert(db, "organizations", row, "ON CONFLICT (id) DO NOTHING")
    return _count(db, "organizations") - before


def _add_roles(db: sqlite3.Connection, roles: Iterable[Role]) -> int:
    before = _count(db, "roles")
    for role in roles:
        row = {
            "id": role.id or new_identifier("rol_"),
            "name": role.name,
            "description": role.description,
        }
        _insert(db, "roles", row, "ON CONFLICT (name) DO NOTHING")
    return _count(db, "roles") - before


def _add_member(db: sqlite3.Connection, member: Member) -> int:
    place = {"organization_id": member.organization_id, "user_id": member.user_id}
    before = _count(db, "members")
    _insert(db, "members", place, "ON CONFLICT DO NOTHING")
    added = _count(db, "members") - before
    for name in member.roles if added else ():
        role = db.execute("SELECT id FROM roles WHERE name = ?", (name,)).fetchone()
        if role is None:
            raise ConflictError(
                f"there is no role named {name!r} for {member.user_id}",
                hint="Name the role in the seed, too.",
            )
        _insert(db, "member_roles", {**place, "role_id": role["id"]}, "ON CONFLICT DO NOTHING")
    return added


def _insert(
    db: sqlite3.Connection, table: str, row: Mapping[str, object], on_conflict: str
) -> None:
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks}) {on_conflict}"  # noqa: S608 - names are ours
    db.execute(statement, row)


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608 - names are ours
