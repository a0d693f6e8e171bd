"""The roles that members can have."""

from __future__ import annotations

import sqlite3

from fastapi import APIRouter, Response

from local.identity.hashing import new_identifier
from local.identity.management.access import needs
from local.identity.management.bodies import NewRole
from local.identity.management.errors import ManagementError, no_role
from local.identity.management.listing import Document, Listing, PageOf, listed
from local.identity.provider import ProviderOf

router = APIRouter(prefix="/roles")


@router.get("", dependencies=[needs("read:roles")])
def list_(provider: ProviderOf, page: PageOf, name_filter: str = "") -> list[Document] | Document:
    """The roles, those with some text in their name only."""
    listing = Listing(
        "roles",
        "roles WHERE instr(lower(name), lower(:text))",
        role_document,
        order="name",
        values={"text": name_filter},
    )
    with provider.database.reading() as db:
        return listed(db, listing, page)


@router.post("", dependencies=[needs("create:roles")])
def create(provider: ProviderOf, body: NewRole) -> Document:
    """Make a role."""
    role_id = new_identifier("rol_")
    with provider.database.writing() as db:
        try:
            db.execute(
                "INSERT INTO roles VALUES (?, ?, ?)",
                (role_id, body.name, body.description or body.name),
            )
        except sqlite3.IntegrityError as error:
            raise ManagementError(
                409, "A role with this name already exists.", "role_conflict"
            ) from error
        return role_document(_find_role(db, role_id))


@router.get("/{role_id}", dependencies=[needs("read:roles")])
def get(provider: ProviderOf, role_id: str) -> Document:
    """One role."""
    with provider.database.reading() as db:
        return role_document(_find_role(db, role_id))


@router.delete("/{role_id}", dependencies=[needs("delete:roles")])
def delete(provider: ProviderOf, role_id: str) -> Response:
    """Delete a role; nobody has it any more."""
    with provider.database.writing() as db:
        db.execute("DELETE FROM roles WHERE id = ?", (role_id,))
    return Response(status_code=204)


def role_document(row: sqlite3.Row) -> Document:
    """Return a role in Auth0's format."""
    return {name: row[name] for name in ("id", "name", "description")}


def _find_role(db: sqlite3.Connection, role_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM roles WHERE id = ?", (role_id,)).fetchone()
    if row is None:
        raise no_role()
    return row
