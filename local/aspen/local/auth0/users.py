"""Users: search, create, update, and delete."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from sqlite3 import Row
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from aspen.local.auth0.audit import audit
from aspen.local.auth0.management import (
    CONNECTION,
    METADATA,
    Body,
    Document,
    Email,
    Listed,
    ManagementError,
    Metadata,
    PageOf,
    PartsOf,
    bad_query,
    find,
    listed,
    metadata_of,
    needs,
    refused_with,
)
from aspen.local.auth0.organizations import organization_document
from aspen.local.auth0.search import Kind, conditions
from aspen.local.auth0.settings import iso, new_user_id
from aspen.local.auth0.store import ProviderOf, change, insert
from aspen.local.auth0.tickets import mail_verification

router = APIRouter()

_PLAIN = ("given_name", "family_name", "nickname", "picture")
_SEARCHED = {
    "email": ("email", Kind.TEXT),
    "email.raw": ("email", Kind.TEXT),
    "name": ("name", Kind.TEXT),
    "user_id": ("user_id", Kind.TEXT),
    "blocked": ("blocked", Kind.BOOLEAN),
    "email_verified": ("email_verified", Kind.BOOLEAN),
    "created_at": ("created_at", Kind.TIME),
    "updated_at": ("updated_at", Kind.TIME),
    "last_login": ("last_login", Kind.TIME),
}
_SORTED = {"email", "name", "user_id", "created_at", "updated_at", "last_login", "logins_count"}


class _UserFields(Body):
    blocked: bool | None = None
    email_verified: bool | None = None
    given_name: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    family_name: Annotated[str, Field(min_length=1, max_length=150)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    nickname: Annotated[str, Field(min_length=1, max_length=300)] | None = None
    picture: str | None = None
    user_metadata: Metadata | None = None
    app_metadata: Metadata | None = None
    verify_email: bool | None = None
    username: str | None = None


class _NewUser(_UserFields):
    connection: str
    email: Email
    password: Annotated[str, Field(min_length=1)] = Field(repr=False)
    user_id: Annotated[str, Field(max_length=255)] | None = None


class _UserChanges(_UserFields):
    email: Email | None = None
    password: Annotated[str, Field(min_length=1)] | None = Field(default=None, repr=False)
    connection: str | None = None
    client_id: str | None = None


@router.get("/users", dependencies=[needs("read:users")])
def search(
    provider: ProviderOf, page: PageOf, parts: PartsOf, q: str = "", sort: str = ""
) -> Listed:
    """List the users that match a search, or all users."""
    where, values = conditions(q, _SEARCHED)
    with provider.database.reading() as db:
        return listed(
            db,
            page,
            "users",
            f"users WHERE {where}",
            lambda row: parts(user_document(row)),
            order=_ordering(sort),
            values=values,
            length=True,
        )


@router.get("/users-by-email", dependencies=[needs("read:users")])
def by_email(
    provider: ProviderOf, parts: PartsOf, email: Annotated[str, Query()]
) -> list[Document]:
    """List the users with an e-mail address: one or none."""
    with provider.database.reading() as db:
        rows = db.execute("SELECT * FROM users WHERE email = ?", (email,)).fetchall()
    return [parts(user_document(row)) for row in rows]


@router.post("/users", status_code=201, dependencies=[needs("create:users")])
def create(provider: ProviderOf, body: _NewUser) -> Document:
    """Create a user. The password is not stored, since signing in requires none.

    As at Auth0, an address that is not said to be verified gets a verification e-mail, unless the
    request says otherwise.
    """
    if body.connection != CONNECTION:
        raise ManagementError(400, "The connection does not exist.", "inexistent_connection")
    user_id = f"auth0|{body.user_id}" if body.user_id else new_user_id()
    row = {
        "user_id": user_id,
        **_fields({"name": body.email, "details": "{}"}, body),
        **{name: json.dumps(getattr(body, name) or {}) for name in METADATA},
    }
    row["created_at"] = row["updated_at"]
    taken = ManagementError(409, "The user already exists.", "auth0_idp_error")
    with provider.database.writing() as db:
        with refused_with(taken):
            insert(db, "users", row)
        user = find(db, "users", user_id=user_id)
        unverified = not body.email_verified
        if unverified if body.verify_email is None else body.verify_email:
            mail_verification(provider, db, user)
        return user_document(user)


@router.get("/users/{user_id}", dependencies=[needs("read:users")])
def get(provider: ProviderOf, parts: PartsOf, user_id: str) -> Document:
    """Return a user."""
    with provider.database.reading() as db:
        return parts(user_document(find(db, "users", user_id=user_id)))


@router.patch("/users/{user_id}", dependencies=[needs("update:users")])
def update(provider: ProviderOf, user_id: str, body: _UserChanges) -> Document:
    """Update the given fields of a user; metadata is merged, and a null removes a key."""
    taken = ManagementError(400, "The specified new email already exists", "auth0_idp_error")
    with provider.database.writing() as db:
        row = dict(find(db, "users", user_id=user_id))
        merged = {name: _merged(row[name], getattr(body, name)) for name in METADATA}
        with refused_with(taken):
            change(db, "users", "user_id", {**_fields(row, body), **merged, "user_id": user_id})
        user = find(db, "users", user_id=user_id)
        if body.verify_email:
            mail_verification(provider, db, user)
        return user_document(user)


@router.delete("/users/{user_id}", dependencies=[needs("delete:users")])
def delete(provider: ProviderOf, user_id: str) -> Response:
    """Delete a user and everything that belongs to them; an unknown one also returns 204."""
    with provider.database.writing() as db:
        gone = db.execute("DELETE FROM users WHERE user_id = ? RETURNING email", (user_id,))
        deleted = gone.fetchone()
    if deleted is not None:
        audit("user.deleted", user=user_id, email=deleted["email"])
    return Response(status_code=204)


@router.get("/users/{user_id}/organizations", dependencies=[needs("read:organizations")])
def organizations(provider: ProviderOf, user_id: str, page: PageOf) -> Listed:
    """List the organizations that a user belongs to."""
    with provider.database.reading() as db:
        find(db, "users", user_id=user_id)
        return listed(
            db,
            page,
            "organizations",
            "organizations WHERE id IN (SELECT organization_id FROM members WHERE user_id = :user)",
            organization_document,
            order="created_at, id",
            values={"user": user_id},
        )


def user_document(row: Row) -> Document:
    """Return a user in Auth0's format."""
    provider, _, number = row["user_id"].rpartition("|")
    identity = {
        "connection": CONNECTION,
        "user_id": number,
        "provider": provider or "auth0",
        "isSocial": False,
    }
    document: Document = {
        "user_id": row["user_id"],
        "email": row["email"],
        "email_verified": bool(row["email_verified"]),
        "name": row["name"],
        "nickname": row["email"].partition("@")[0],
        **json.loads(row["details"]),
        "identities": [identity],
        "created_at": iso(row["created_at"]),
        "updated_at": iso(row["updated_at"]),
        **metadata_of(row),
    }
    if row["last_login"] is not None:
        document |= {"last_login": iso(row["last_login"]), "logins_count": row["logins_count"]}
    if row["blocked"]:
        document["blocked"] = True
    return document


def _fields(there: Mapping[str, Any], body: _NewUser | _UserChanges) -> dict[str, Any]:
    """Return the columns that a body sets, with what is there for the fields that it omits."""
    details = {name: getattr(body, name) for name in _PLAIN if getattr(body, name) is not None}
    verified, blocked = body.email_verified, body.blocked
    return {
        "email": body.email or there["email"],
        "name": body.name or there["name"],
        "email_verified": there.get("email_verified", False) if verified is None else verified,
        "blocked": there.get("blocked", False) if blocked is None else blocked,
        "details": json.dumps({**json.loads(there["details"]), **details}),
        "updated_at": time.time(),
    }


def _merged(there: str, changes: Metadata | None) -> str:
    merged = {**json.loads(there), **(changes or {})}
    return json.dumps({name: value for name, value in merged.items() if value is not None})


def _ordering(sort: str) -> str:
    """Return the requested order in SQL: ``email:1`` is ascending, ``email:-1`` descending."""
    if not sort:
        return "created_at, user_id"
    name, _, direction = sort.partition(":")
    if name not in _SORTED or direction not in {"1", "-1"}:
        raise bad_query(f"'Invalid sort: {sort}' on property sort.")
    return f"{name} {'ASC' if direction == '1' else 'DESC'}, user_id"
