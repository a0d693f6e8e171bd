"""Organizations, which the service calls groups."""

from __future__ import annotations

import json
import sqlite3

from fastapi import APIRouter, Response

from local.identity.hashing import new_identifier
from local.identity.management.access import needs
from local.identity.management.bodies import NewOrganization, OrganizationChanges
from local.identity.management.errors import ManagementError, no_organization
from local.identity.management.listing import AnyPageOf, Document, Listing, listed
from local.identity.provider import ProviderOf

router = APIRouter(prefix="/organizations")
_READS = needs("read:organizations")


@router.get("", dependencies=[_READS])
def list_(provider: ProviderOf, page: AnyPageOf) -> list[Document] | Document:
    """All organizations."""
    listing = Listing(
        "organizations", "organizations WHERE true", organization_document, "created_at, id"
    )
    with provider.database.reading() as db:
        return listed(db, listing, page)


@router.post("", status_code=201, dependencies=[needs("create:organizations")])
def create(provider: ProviderOf, body: NewOrganization) -> Document:
    """Make an organization."""
    organization_id = new_identifier("org_")
    with provider.database.writing() as db:
        try:
            db.execute(
                "INSERT INTO organizations VALUES (?, ?, ?, ?, ?, ?)",
                (
                    organization_id,
                    body.name,
                    body.display_name or body.name,
                    json.dumps(body.branding) if body.branding else None,
                    json.dumps(body.metadata) if body.metadata else None,
                    provider.now(),
                ),
            )
        except sqlite3.IntegrityError as error:
            raise _name_taken() from error
        document = organization_document(find_organization(db, organization_id))
    if body.enabled_connections is not None:
        document["enabled_connections"] = body.enabled_connections
    return document


@router.get("/name/{name}", dependencies=[_READS])
def by_name(provider: ProviderOf, name: str) -> Document:
    """The organization of a name."""
    with provider.database.reading() as db:
        row = db.execute("SELECT * FROM organizations WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise no_organization()
    return organization_document(row)


@router.get("/{organization_id}", dependencies=[_READS])
def get(provider: ProviderOf, organization_id: str) -> Document:
    """One organization."""
    with provider.database.reading() as db:
        return organization_document(find_organization(db, organization_id))


@router.patch("/{organization_id}", dependencies=[needs("update:organizations")])
def change(provider: ProviderOf, organization_id: str, body: OrganizationChanges) -> Document:
    """Change what is named."""
    with provider.database.writing() as db:
        row = find_organization(db, organization_id)
        changes = {
            "name": body.name or row["name"],
            "display_name": body.display_name or row["display_name"],
            "branding": json.dumps(body.branding) if body.branding else row["branding"],
            "metadata": json.dumps(body.metadata) if body.metadata else row["metadata"],
            "id": organization_id,
        }
        try:
            db.execute(
                "UPDATE organizations SET name = :name, display_name = :display_name,"
                " branding = :branding, metadata = :metadata WHERE id = :id",
                changes,
            )
        except sqlite3.IntegrityError as error:
            raise _name_taken() from error
        return organization_document(find_organization(db, organization_id))


@router.delete("/{organization_id}", status_code=204, dependencies=[needs("delete:organizations")])
def delete(provider: ProviderOf, organization_id: str) -> Response:
    """Delete an organization with its memberships and invitations; its users stay."""
    with provider.database.writing() as db:
        db.execute("DELETE FROM organizations WHERE id = ?", (organization_id,))
    return Response(status_code=204)


def find_organization(db: sqlite3.Connection, organization_id: str) -> sqlite3.Row:
    """Return the row of an organization.

    Raises:
        ManagementError: The organization does not exist.
    """
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM organizations WHERE id = ?", (organization_id,)
    ).fetchone()
    if row is None:
        raise no_organization()
    return row


def organization_document(row: sqlite3.Row) -> Document:
    """Return an organization in Auth0's format."""
    document = {name: row[name] for name in ("id", "name", "display_name")}
    for name in ("branding", "metadata"):
        if row[name] is not None:
            document[name] = json.loads(row[name])
    return document


def _name_taken() -> ManagementError:
    return ManagementError(
        409, "An organization with this name already exists.", "organization_conflict"
    )
