"""Users: search, create, update, and delete.

A search uses a subset of Auth0's query language: terms such as ``email:"a@example.org"``,
``name:Mor*``, or ``blocked:true``, joined by AND or by OR.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from aspen.local.auth0.documents import (
    Document,
    Listing,
    ManagementError,
    PageOf,
    bad_query,
    iso,
    listed,
    needs,
    no_user,
    parts,
)
from aspen.local.auth0.organizations import organization_document
from aspen.local.auth0.schemas import Metadata, NewUser, UserChanges
from aspen.local.auth0.settings import new_user_id
from aspen.local.auth0.store import ProviderOf

router = APIRouter()

CONNECTION = "Username-Password-Authentication"
_PLAIN = ("given_name", "family_name", "nickname", "picture")

_COLUMNS = {
    "email": "email",
    "email.raw": "email",
    "name": "name",
    "user_id": "user_id",
    "blocked": "blocked",
    "email_verified": "email_verified",
}
_SORTED = {
    "email": "email",
    "name": "name",
    "user_id": "user_id",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "last_login": "last_login",
    "logins_count": "logins_count",
}
_TRUTH = {"true": 1, "false": 0}
_TERM = re.compile(r'\s*([\w.]+):(?:"((?:[^"\\]|\\.)*)"|([^\s"()]+))\s*')
_JOINT = re.compile(r"(AND|OR)\b")


@router.get("/users", dependencies=[needs("read:users")])
def search(
    provider: ProviderOf,
    page: PageOf,
    q: str = "",
    sort: str = "",
    fields: str = "",
    include_fields: bool = True,
) -> list[Document] | Document:
    """List the users that match a search, or all users."""
    where, values = conditions(q)
    listing = Listing(
        "users",
        f"users WHERE {where}",
        lambda row: parts(user_document(row), fields, include_fields),
        order=ordering(sort),
        values=values,
        length=True,
    )
    with provider.database.reading() as db:
        return listed(db, listing, page)


@router.get("/users-by-email", dependencies=[needs("read:users")])
def by_email(
    provider: ProviderOf,
    email: Annotated[str, Query()],
    fields: str = "",
    include_fields: bool = True,
) -> list[Document]:
    """List the users with an e-mail address: one or none."""
    with provider.database.reading() as db:
        rows = db.execute("SELECT * FROM users WHERE email = ?", (email,)).fetchall()
    return [parts(user_document(row), fields, include_fields) for row in rows]


@router.post("/users", status_code=201, dependencies=[needs("create:users")])
def create(provider: ProviderOf, body: NewUser) -> Document:
    """Create a user. The password is not stored, since signing in requires none."""
    if body.connection != CONNECTION:
        raise ManagementError(400, "The connection does not exist.", "inexistent_connection")
    now = provider.now()
    user_id = f"auth0|{body.user_id}" if body.user_id else new_user_id()
    with provider.database.writing() as db:
        try:
            db.execute(
                "INSERT INTO users (user_id, email, name, email_verified, blocked, details,"
                " user_metadata, app_metadata, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    user_id,
                    body.email,
                    body.name or body.email,
                    bool(body.email_verified),
                    bool(body.blocked),
                    json.dumps(_details({}, body)),
                    json.dumps(body.user_metadata or {}),
                    json.dumps(body.app_metadata or {}),
                    now,
                    now,
                ),
            )
        except sqlite3.IntegrityError as error:
            raise ManagementError(409, "The user already exists.", "auth0_idp_error") from error
        return user_document(find_user(db, user_id))


@router.get("/users/{user_id}", dependencies=[needs("read:users")])
def get(
    provider: ProviderOf,
    user_id: str,
    fields: str = "",
    include_fields: bool = True,
) -> Document:
    """Return a user."""
    with provider.database.reading() as db:
        return parts(user_document(find_user(db, user_id)), fields, include_fields)


@router.patch("/users/{user_id}", dependencies=[needs("update:users")])
def change(provider: ProviderOf, user_id: str, body: UserChanges) -> Document:
    """Update the given fields of a user; metadata is merged, and a null removes a key."""
    with provider.database.writing() as db:
        row = find_user(db, user_id)
        values = {
            "user_id": user_id,
            "email": body.email or row["email"],
            "name": body.name or row["name"],
            "email_verified": _either(body.email_verified, row["email_verified"]),
            "blocked": _either(body.blocked, row["blocked"]),
            "details": json.dumps(_details(json.loads(row["details"]), body)),
            "user_metadata": _merged(row["user_metadata"], body.user_metadata),
            "app_metadata": _merged(row["app_metadata"], body.app_metadata),
            "now": provider.now(),
        }
        try:
            db.execute(
                "UPDATE users SET email = :email, name = :name, email_verified = :email_verified,"
                " blocked = :blocked, details = :details, user_metadata = :user_metadata,"
                " app_metadata = :app_metadata, updated_at = :now WHERE user_id = :user_id",
                values,
            )
        except sqlite3.IntegrityError as error:
            raise ManagementError(
                400, "The specified new email already exists", "auth0_idp_error"
            ) from error
        return user_document(find_user(db, user_id))


@router.delete("/users/{user_id}", status_code=204, dependencies=[needs("delete:users")])
def delete(provider: ProviderOf, user_id: str) -> Response:
    """Delete a user and everything that belongs to them; an unknown one also returns 204."""
    with provider.database.writing() as db:
        db.execute("DELETE FROM users WHERE user_id = ?", (user_id,))
    return Response(status_code=204)


@router.get("/users/{user_id}/organizations", dependencies=[needs("read:organizations")])
def organizations(provider: ProviderOf, user_id: str, page: PageOf) -> list[Document] | Document:
    """List the organizations that a user belongs to."""
    listing = Listing(
        "organizations",
        "organizations WHERE id IN (SELECT organization_id FROM members WHERE user_id = :user)",
        organization_document,
        order="created_at, id",
        values={"user": user_id},
    )
    with provider.database.reading() as db:
        find_user(db, user_id)
        return listed(db, listing, page)


def find_user(db: sqlite3.Connection, user_id: str) -> sqlite3.Row:
    """Return the row of a user.

    Raises:
        ManagementError: The user does not exist.
    """
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM users WHERE user_id = ?", (user_id,)
    ).fetchone()
    if row is None:
        raise no_user()
    return row


def user_document(row: sqlite3.Row) -> Document:
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
    }
    for name in ("user_metadata", "app_metadata"):
        if row[name] != "{}":
            document[name] = json.loads(row[name])
    if row["last_login"] is not None:
        document |= {"last_login": iso(row["last_login"]), "logins_count": row["logins_count"]}
    if row["blocked"]:
        document["blocked"] = True
    return document


def _details(there: Metadata, body: NewUser | UserChanges) -> Metadata:
    told = {name: getattr(body, name) for name in _PLAIN}
    return {**there, **{name: value for name, value in told.items() if value is not None}}


def _merged(there: str, changes: Metadata | None) -> str:
    merged = {**json.loads(there), **(changes or {})}
    return json.dumps({name: value for name, value in merged.items() if value is not None})


def _either(told: bool | None, there: Any) -> bool:
    return bool(there) if told is None else told


def conditions(query: str) -> tuple[str, Mapping[str, object]]:
    """Return a query as an SQL condition, and its parameters.

    Raises:
        ManagementError: The query is invalid.
    """
    terms: list[str] = []
    joints: set[str] = set()
    values: dict[str, object] = {}
    position = 0
    while position < len(query.rstrip()):
        if terms:
            joint = _JOINT.match(query, position)
            if not joint:
                raise _unclear(query)
            joints.add(joint[1])
            position = joint.end()
        term = _TERM.match(query, position)
        if not term:
            raise _unclear(query)
        position = term.end()
        name = f"value{len(values)}"
        condition, values[name] = _condition(query, term, name)
        terms.append(condition)
    if len(joints) > 1:
        raise _unclear(query)
    return f" {''.join(joints)} ".join(terms) or "true", values


def ordering(sort: str) -> str:
    """Return the requested order in SQL: ``email:1`` is ascending, ``email:-1`` descending.

    Raises:
        ManagementError: The order is invalid.
    """
    if not sort:
        return "created_at, user_id"
    name, _, direction = sort.partition(":")
    if name not in _SORTED or direction not in {"1", "-1"}:
        raise bad_query(f"Query validation error: 'Invalid sort: {sort}' on property sort.")
    return f"{_SORTED[name]} {'ASC' if direction == '1' else 'DESC'}, user_id"


def _condition(query: str, term: re.Match[str], name: str) -> tuple[str, object]:
    field, quoted, bare = term.groups()
    column = _COLUMNS.get(field)
    if column is None:
        raise _unclear(query)
    if column in {"blocked", "email_verified"}:
        if bare not in _TRUTH:
            raise _unclear(query)
        return f"{column} = :{name}", _TRUTH[bare]
    if quoted is not None:
        return f"{column} = :{name} COLLATE NOCASE", re.sub(r"\\(.)", r"\1", quoted)
    escaped = re.sub(r"([%_\\])", r"\\\1", bare).replace("*", "%")
    return f"{column} LIKE :{name} ESCAPE '\\'", escaped


def _unclear(query: str) -> Exception:
    return bad_query(
        f"Query validation error: 'Object didn't pass validation for format lucene: {query}'"
        " on property q."
    )
