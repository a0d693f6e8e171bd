"""The identity provider's state: a SQLite file that only its owner can read, and its first content.

    from aspen.local.auth0.store import Client, Member, Organization, Role, Seed, User, seed

    seed(folder, Seed(clients=[...], users=[...], ...))

Seeding works before the provider starts and while it runs, and can be repeated.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from sqlite3 import Connection, Row
from threading import RLock
from typing import Annotated, Any

from fastapi import Depends, Request
from joserfc.jwk import KeySet, RSAKey
from pydantic import TypeAdapter

from aspen.local.auth0 import STATE_FILE
from aspen.local.auth0.settings import (
    Knobs,
    ProviderSettings,
    hashed,
    iso,
    new_identifier,
    new_secret,
)
from aspencli.errors import BadInputError, ConflictError, RefusedError
from aspencli.files import make_folder, open_own

ALGORITHM = "RS256"
_WAIT_SECONDS = 15.0
# Increase this with every change to schema.sql other than a new table.
_VERSION = 1
# The time that a retired key stays published: longer than the life of any token it signed.
_OVERLAP_SECONDS = 2 * 86_400
_KNOBS = TypeAdapter(Knobs)

Values = Mapping[str, object]
"""The values of a row, by column."""


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
        "roles": ("read",),
        "connections": ("read",),
        "organizations": ("read", "create", "update", "delete"),
        "organization_members": ("read", "create", "delete"),
        "organization_member_roles": ("read", "create", "delete"),
        "organization_invitations": ("read", "create", "delete"),
        "signing_keys": ("read", "create", "update"),
        "user_tickets": ("create",),
        "sessions": ("read", "delete"),
        "refresh_tokens": ("read", "delete"),
        "device_credentials": ("read", "delete"),
        "logs": ("read",),
        "logs_users": ("read",),
    }.items()
    for verb in verbs
)
"""Every scope of the Management API."""


@dataclass(frozen=True)
class Client:
    """A program that requests tokens.

    Attributes:
        client_id: The ``aud`` of its id_tokens.
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


LISTS = ("grants", "callbacks", "logout_urls", "audiences", "management_scopes")
"""The fields of a client that the database stores as JSON."""


@dataclass(frozen=True)
class User:
    """A user who may sign in.

    Attributes:
        user_id: The ID, such as ``auth0|member``.
        email: The address to sign in with; unique, ignoring case.
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
    """

    id: str
    name: str
    display_name: str


@dataclass(frozen=True)
class Role:
    """A role that members of organizations can have; without an ID, it gets a new one."""

    name: str
    description: str = ""
    id: str | None = None


@dataclass(frozen=True)
class Member:
    """A user's membership in an organization, with the names of their roles there."""

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


@dataclass(frozen=True)
class AddedAccounts:
    """The number of objects of each kind that were added; all zero if everything existed."""

    clients: int
    users: int
    organizations: int
    roles: int
    members: int


def seed(folder: Path, wanted: Seed) -> AddedAccounts:
    """Add what is missing to a provider's folder, which is created if needed, in one transaction.

    Existing clients are updated to match, since their callback URLs change with the ports. All
    other existing objects stay unchanged, as people may have edited them.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: The folder belongs to another user.
        ConflictError: Another object has one of the names, addresses, or IDs.
    """
    now = time.time()
    users = [asdict(one) | {"created_at": now, "updated_at": now} for one in wanted.users]
    groups = [asdict(one) | {"created_at": now} for one in wanted.organizations]
    roles = [asdict(one) | {"id": one.id or new_identifier("rol_")} for one in wanted.roles]
    with ProviderStore(folder).writing() as db:
        ensure_key(db)
        with _conflicts_explained(folder):
            return AddedAccounts(
                clients=_add(db, "clients", "client_id", map(_row, wanted.clients), update=True),
                users=_add(db, "users", "user_id", users),
                organizations=_add(db, "organizations", "id", groups),
                roles=_add(db, "roles", "name", roles),
                members=sum(_add_member(db, member) for member in wanted.members),
            )


@contextmanager
def _conflicts_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise ConflictError(
            f"Conflicting data in the identity provider in {folder}: {error}",
            hint="Choose other IDs, names, and addresses, or start over: aspencli local reset",
        ) from error


def _row(client: Client) -> dict[str, object]:
    row = asdict(client)
    secret = row.pop("secret")
    row |= {name: json.dumps(row[name]) for name in LISTS}
    return row | {"secret_hash": secret and hashed(secret)}


def _add(
    db: Connection, table: str, key: str, rows: Iterable[Values], *, update: bool = False
) -> int:
    """Add the rows whose key is new; return their number. Other rows stay, or are updated."""
    count = 0
    for row in rows:
        added = insert(db, table, row, f"ON CONFLICT ({key}) DO NOTHING")
        if update and not added:
            change(db, table, key, row)
        count += added
    return count


def _add_member(db: Connection, member: Member) -> int:
    place = {"organization_id": member.organization_id, "user_id": member.user_id}
    added = insert(db, "members", place, "ON CONFLICT DO NOTHING")
    for name in member.roles if added else ():
        role = db.execute("SELECT id FROM roles WHERE name = ?", (name,)).fetchone()
        if role is None:
            raise ConflictError(
                f"Unknown role for {member.user_id}: {name!r}",
                hint="Add the role to the seed data.",
            )
        insert(db, "member_roles", {**place, "role_id": role["id"]}, "ON CONFLICT DO NOTHING")
    return added


def insert(db: Connection, table: str, row: Values, on_conflict: str = "") -> int:
    """Insert a row; return 1, or 0 if there was a conflict that ``on_conflict`` ignores."""
    names, marks = ", ".join(row), ", ".join(f":{name}" for name in row)
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks}) {on_conflict}"  # noqa: S608 - names are ours
    return db.execute(statement, row).rowcount


def change(db: Connection, table: str, key: str, row: Values) -> None:
    """Set the given columns of the row whose key is in ``row``."""
    changes = ", ".join(f"{name} = :{name}" for name in row)
    db.execute(f"UPDATE {table} SET {changes} WHERE {key} = :{key}", row)  # noqa: S608 - names are ours


class LocalProvider:
    """The identity provider, as the endpoints use it.

    Raises:
        BadInputError: The folder cannot be used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, settings: ProviderSettings):
        self.settings, self.issuer = settings, settings.issuer
        self.database = ProviderStore(settings.folder)
        self.knobs = self._usual = Knobs(dialect=settings.dialect)
        self._lock = RLock()
        with self.database.writing() as db:
            ensure_key(db)
            self.form_secret = _kept_secret(db, "forms")

    def change(self, changes: Mapping[str, Any]) -> Knobs:
        """Change some of the knobs.

        Raises:
            pydantic.ValidationError: A value is invalid, or the knob does not exist.
        """
        with self._lock:
            self.knobs = _KNOBS.validate_python({**asdict(self.knobs), **changes})
            return self.knobs

    def reset(self) -> Knobs:
        """Restore the normal values of the knobs."""
        with self._lock:
            self.knobs = self._usual
            return self.knobs

    def take(self, name: str) -> bool:
        """Decrement a knob that counts down; return False if it was already 0."""
        with self._lock:
            left: int = getattr(self.knobs, name)
            if left > 0:
                self.change({name: left - 1})
            return left > 0


def _of(request: Request) -> LocalProvider:
    provider: LocalProvider = request.app.state.provider
    return provider


ProviderOf = Annotated[LocalProvider, Depends(_of)]
"""An endpoint parameter: the provider."""


class ProviderStore:
    """The state in a folder, which is created if it does not exist.

    Raises:
        BadInputError: The folder cannot be created or used.
        RefusedError: The folder belongs to another user.
    """

    def __init__(self, folder: Path):
        self._path = folder / STATE_FILE
        self._idle: list[Connection] = []
        self._keeps = False
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

    def reading(self) -> AbstractContextManager[Connection]:
        """Open a read transaction, with one consistent view of the state."""
        return self._transaction("BEGIN")

    def writing(self) -> AbstractContextManager[Connection]:
        """Open a write transaction, exclusive across processes; roll back if the block raises."""
        return self._transaction("BEGIN IMMEDIATE")

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep connections open: SQLite cleans up whenever the last one closes."""
        with self._connected() as connection:
            connection.execute("SELECT count(*) FROM secrets").fetchone()
            self._keeps = True
            try:
                yield
            finally:
                self._keeps = False
                while self._idle:
                    self._idle.pop().close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        with self._connected() as connection:
            connection.execute(begin)
            with connection:
                yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._opened()
        try:
            yield connection
        finally:
            if self._keeps and not connection.in_transaction:
                self._idle.append(connection)
            else:
                connection.close()

    def _opened(self) -> Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=_WAIT_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # one thread at a time uses it
        )
        connection.row_factory = Row
        connection.create_function("iso", 1, _iso, deterministic=True)
        connection.execute("PRAGMA foreign_keys = ON")
        # If the machine crashes, the latest changes may be lost; if only the provider does,
        # none. Waiting for the disk took 18 ms per change.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection


def _iso(moment: float | None) -> str | None:
    """Return a time as an SQL function does: nothing for nothing."""
    return None if moment is None else iso(moment)


def _kept_secret(db: Connection, name: str) -> str:
    """Return one of the provider's own secrets, creating it on first use."""
    insert(db, "secrets", {"name": name, "value": new_secret()}, "ON CONFLICT DO NOTHING")
    row = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return str(row["value"])


def _make_tables(connection: Connection) -> None:
    made_by = connection.execute("PRAGMA user_version").fetchone()[0]
    if made_by not in {0, _VERSION}:
        raise sqlite3.DatabaseError("created by another version of this program")
    connection.execute("PRAGMA journal_mode = WAL")
    schema = (files("aspen.local.auth0") / "schema.sql").read_text(encoding="utf-8")
    connection.executescript(
        f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {_VERSION};\nCOMMIT;"
    )


def rotate_key(folder: Path) -> str:
    """Create a new signing key, used at once even by a running provider; return its ID."""
    with ProviderStore(folder).writing() as db:
        return rotate(db)


def ensure_key(db: Connection) -> None:
    """Create the first signing key if there is none."""
    if not db.execute("SELECT 1 FROM signing_keys WHERE retired_at IS NULL").fetchone():
        rotate(db)


def rotate(db: Connection) -> str:
    """Create a new signing key, retire the current one, and return the new key's ID."""
    key, now = make_key(), time.time()
    db.execute("UPDATE signing_keys SET retired_at = ? WHERE retired_at IS NULL", (now,))
    db.execute("DELETE FROM signing_keys WHERE retired_at < ?", (now - _OVERLAP_SECONDS,))
    private_key = json.dumps(key.as_dict(private=True))
    insert(db, "signing_keys", {"kid": key.kid, "private_key": private_key, "made_at": now})
    return str(key.kid)


def revoke_key(db: Connection, kid: str) -> bool:
    """Stop publishing a key, even if it signed valid tokens; return False if it does not exist."""
    row = db.execute("SELECT retired_at FROM signing_keys WHERE kid = ?", (kid,)).fetchone()
    if row is None:
        return False
    if row["retired_at"] is None:
        rotate(db)
    db.execute(
        "UPDATE signing_keys SET revoked_at = coalesce(revoked_at, ?) WHERE kid = ?",
        (time.time(), kid),
    )
    return True


def signing_key(db: Connection) -> RSAKey:
    """Return the current signing key."""
    row = db.execute("SELECT private_key FROM signing_keys WHERE retired_at IS NULL").fetchone()
    return _imported(row["private_key"])


def published_keys(db: Connection) -> KeySet:
    """Return the keys that may have signed a valid token: the current and recently retired ones."""
    rows = db.execute(
        "SELECT private_key FROM signing_keys WHERE revoked_at IS NULL"
        " AND (retired_at IS NULL OR retired_at > ?) ORDER BY made_at DESC, rowid DESC",
        (time.time() - _OVERLAP_SECONDS,),
    )
    return KeySet([_imported(row["private_key"]) for row in rows])


def make_key() -> RSAKey:
    """Create a key."""
    return RSAKey.generate_key(2048, {"use": "sig", "alg": ALGORITHM}, auto_kid=True)


@lru_cache(maxsize=16)
def _imported(private_key: str) -> RSAKey:
    return RSAKey.import_key(json.loads(private_key))
