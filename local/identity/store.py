"""What a provider knows from the start: its clients, users, organizations, members and roles.

    from local.identity.store import Client, Member, Organization, Role, Seed, User, seed

    seed(folder, Seed(clients=[...], users=[...], ...))

This may be done before the provider starts, while it runs, and any number of times.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from aspencli.errors import ConflictError
from local.identity.database import Database
from local.identity.hashing import hashed, new_identifier
from local.identity.keys import ensure_key, rotate


class Grant(StrEnum):
    """The ways to a token that a client may be allowed."""

    AUTHORIZATION_CODE = "authorization_code"
    CLIENT_CREDENTIALS = "client_credentials"
    DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant


ALL_MANAGEMENT_SCOPES = tuple(
    f"{verb}:{noun}"
    for noun, verbs in {
        "users": ("read", "create", "update", "delete"),
        "users_app_metadata": ("read", "create", "update", "delete"),
        "roles": ("read", "create", "update", "delete"),
        "connections": ("read",),
        "organizations": ("read", "create", "update", "delete"),
        "organization_members": ("read", "create", "delete"),
        "organization_member_roles": ("read", "create", "delete"),
        "organization_invitations": ("read", "create", "delete"),
        "signing_keys": ("read", "create", "update"),
    }.items()
    for verb in verbs
)
"""Everything that can be done at the Management API."""


@dataclass(frozen=True)
class Client:
    """A program that asks for tokens.

    Attributes:
        client_id: What it calls itself, the ``aud`` of its id_tokens.
        name: What its users know it as.
        grants: What it may ask for.
        public: Whether it may do without a secret, as a command line must; its authorization
            codes then need PKCE.
        secret: Its secret, kept as a hash only; None where it has none.
        callbacks: The addresses that an authorization code may be sent to. One of
            ``http://127.0.0.1`` or ``http://localhost`` without a port allows every port.
        logout_urls: The addresses that signing out may lead to, by the same rule.
        audiences: The further APIs that its users' access tokens may be for.
        login_uri: Where its sign-in begins, for the links of invitations.
        management_scopes: What it may do at the Management API, such as ``read:users``.
    """

    client_id: str
    name: str
    grants: Sequence[Grant]
    public: bool = False
    secret: str | None = field(default=None, repr=False)
    callbacks: Sequence[str] = ()
    logout_urls: Sequence[str] = ()
    audiences: Sequence[str] = ()
    login_uri: str = ""
    management_scopes: Sequence[str] = ()


@dataclass(frozen=True)
class User:
    """Somebody who may sign in.

    Attributes:
        user_id: Such as ``auth0|member``.
        email: What they sign in with; unique, whatever the case.
        name: Their full name.
        email_verified: Whether the address is known to be theirs.
    """

    user_id: str
    email: str
    name: str
    email_verified: bool = True


@dataclass(frozen=True)
class Organization:
    """What the service knows as a group.

    Attributes:
        id: Such as ``org_`` and 16 letters and digits: the group's ``auth0_org_id``.
        name: Its unique name, in lower case.
        display_name: What people know it as.
    """

    id: str
    name: str
    display_name: str


@dataclass(frozen=True)
class Role:
    """A role that members of organizations can have.

    Attributes:
        name: Such as ``admin``.
        description: For people.
        id: Given by the provider when left out.
    """

    name: str
    description: str = ""
    id: str | None = None


@dataclass(frozen=True)
class Member:
    """A user's belonging to an organization.

    Attributes:
        organization_id: Which organization.
        user_id: Which user.
        roles: The names of the roles there.
    """

    organization_id: str
    user_id: str
    roles: Sequence[str] = ()


@dataclass(frozen=True)
class Seed:
    """What is to be there."""

    clients: Sequence[Client] = ()
    users: Sequence[User] = ()
    organizations: Sequence[Organization] = ()
    roles: Sequence[Role] = ()
    members: Sequence[Member] = ()


@dataclass(frozen=True)
class Seeded:
    """How many of each were added; all zero when everything was there."""

    clients: int
    users: int
    organizations: int
    roles: int
    members: int


def seed(folder: Path, wanted: Seed) -> Seeded:
    """Add what is missing, in one transaction.

    Clients are made to be as described here, since the addresses of their callbacks change with
    the ports. Whatever else is there already stays as it is: people may have changed it.

    Args:
        folder: The provider's folder; made when it is not there.
        wanted: What is to be there.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: It belongs to another user.
        ConflictError: Something else has one of the names, addresses or ids.
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
    """Have tokens signed with a new key, at once where the provider runs; returns its id."""
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
