"""The initial state of a provider: its clients, users, organizations, members, and roles.

    from aspen.local.auth0.store import Client, Member, Organization, Role, Seed, User, seed

    seed(folder, Seed(clients=[...], users=[...], ...))

Seeding works before the provider starts and while it runs, and can be repeated.

An identity provider: the settings, state, and clock that every endpoint receives.

The objects that a provider can be seeded with: clients, users, organizations, roles, members.

The identity provider's state: a SQLite file that only its owner can read.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from aspen.local.auth0.keys import ensure_key, rotate
from aspen.local.auth0.settings import Knobs, Settings, Trial, hashed, new_identifier, new_secret
from aspencli.errors import BadInputError, ConflictError, RefusedError
from aspencli.files import make_folder, open_own

_FILE = "identity.sqlite3"
_WAIT_SECONDS = 15.0
# Increase this with every change to schema.sql other than a new table.
_VERSION = 1


class Database:
    """The state in a folder, which is created if it does not exist.

    Args:
        folder: The provider's folder.

    Raises:
        BadInputError: The folder cannot be created or used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, folder: Path):
        self._path = folder / _FILE
        try:
            make_folder(folder)
            if folder.stat().st_uid != os.geteuid():
                raise RefusedError(
                    f"The identity provider's folder {folder} belongs to another user.",
                    hint="Run the command as that user, or choose another folder.",
                )
            folder.chmod(0o700)
            # SQLite creates its other files with the mode of this one.
            os.close(open_own(self._path))
            with self._connected() as connection:
                _make_tables(connection)
        except (OSError, sqlite3.DatabaseError) as error:
            raise BadInputError(
                f"Cannot open the identity provider's data in {folder}: {error}",
                hint="Fix the permissions, or start over: aspencli local reset",
            ) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open a read transaction, with one consistent view of the state."""
        with self._connected() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.rollback()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Open a write transaction, exclusive across processes; roll back if the block raises."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep a connection open, as SQLite cleans up whenever the last one closes."""
        with self._connected() as connection:
            connection.execute("SELECT count(*) FROM secrets").fetchone()
            yield

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=_WAIT_SECONDS, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            yield connection
        finally:
            connection.close()


def kept_secret(db: sqlite3.Connection, name: str) -> str:
    """Return one of the provider's own secrets, creating it on first use."""
    db.execute("INSERT INTO secrets VALUES (?, ?) ON CONFLICT DO NOTHING", (name, new_secret()))
    row = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return str(row["value"])


def _make_tables(connection: sqlite3.Connection) -> None:
    made_by = connection.execute("PRAGMA user_version").fetchone()[0]
    if made_by not in {0, _VERSION}:
        raise sqlite3.DatabaseError("created by another version of this program")
    connection.execute("PRAGMA journal_mode = WAL")
    schema = (files("aspen.local.auth0") / "schema.sql").read_text(encoding="utf-8")
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {_VERSION};\nCOMMIT;"
    )


class Provider:
    """The identity provider, as the endpoints use it.

    Args:
        settings: The settings to start with.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.database = Database(settings.folder)
        self.trial = Trial(Knobs(dialect=settings.dialect))
        with self.database.writing() as db:
            ensure_key(db, self.now())
            self.form_secret = kept_secret(db, "forms")

    @property
    def knobs(self) -> Knobs:
        """Return the current values of the knobs."""
        return self.trial.knobs

    @property
    def issuer(self) -> str:
        """Return the provider's URL, ending in a slash."""
        return self.settings.issuer

    def now(self) -> float:
        """Return the current time, in seconds since 1970."""
        return time.time()


def _of(request: Request) -> Provider:
    provider: Provider = request.app.state.provider
    return provider


ProviderOf = Annotated[Provider, Depends(_of)]
"""An endpoint parameter: the provider."""


class Grant(StrEnum):
    """The OAuth grant types that a client may be allowed."""

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
"""Every scope of the Management API."""


@dataclass(frozen=True)
class Client:
    """A program that requests tokens.

    Attributes:
        client_id: The client's ID, the ``aud`` of its id_tokens.
        name: The name that its users see.
        grants: The grant types that it may use.
        public: True if it may omit the secret, as a command-line tool must; its authorization codes
            then require PKCE.
        secret: The secret, of which only a hash is stored; None if there is none.
        callbacks: The URLs that an authorization code may be sent to. A URL without a port on
            ``http://127.0.0.1`` or ``http://localhost`` allows any port.
        logout_urls: The URLs that signing out may redirect to, by the same rule.
        audiences: Additional APIs that its users' access tokens may be for.
        login_uri: The URL where its sign-in starts, for invitation links.
        management_scopes: Its scopes at the Management API, such as ``read:users``.
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
    """A user who may sign in.

    Attributes:
        user_id: The ID, such as ``auth0|member``.
        email: The address to sign in with; unique, ignoring case.
        name: Their full name.
        email_verified: True if the address is verified.
    """

    user_id: str
    email: str
    name: str
    email_verified: bool = True


@dataclass(frozen=True)
class Organization:
    """An organization, which the service calls a group.

    Attributes:
        id: ``org_`` and 16 letters and digits: the group's ``auth0_org_id``.
        name: The unique name, in lowercase.
        display_name: The name that people see.
    """

    id: str
    name: str
    display_name: str


@dataclass(frozen=True)
class Role:
    """A role that members of organizations can have.

    Attributes:
        name: The name, such as ``admin``.
        description: A description for people.
        id: The ID; generated by the provider if None.
    """

    name: str
    description: str = ""
    id: str | None = None


@dataclass(frozen=True)
class Member:
    """A user's membership in an organization.

    Attributes:
        organization_id: The organization's ID.
        user_id: The user's ID.
        roles: The names of the member's roles.
    """

    organization_id: str
    user_id: str
    roles: Sequence[str] = ()


@dataclass(frozen=True)
class Seed:
    """The objects that a provider should have."""

    clients: Sequence[Client] = ()
    users: Sequence[User] = ()
    organizations: Sequence[Organization] = ()
    roles: Sequence[Role] = ()
    members: Sequence[Member] = ()


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
    other existing objects stay unchanged, as people may have edited them.

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
                f"Conflicting data in the identity provider in {folder}: {error}",
                hint="Choose other IDs, names, and addresses, or start over: aspencli local reset",
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
                f"Unknown role for {member.user_id}: {name!r}",
                hint="Add the role to the seed data.",
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
