"""Organizations, which the service calls groups, with their members, roles, and invitations.

Invitations send no e-mail; the response contains the invitation URL.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from aspen.local.auth0.documents import (
    AnyPageOf,
    Document,
    Listing,
    ManagementError,
    PageOf,
    bad_body,
    iso,
    listed,
    needs,
    no_organization,
    no_role,
    no_user,
    parts,
)
from aspen.local.auth0.schemas import (
    Members,
    NewInvitation,
    NewOrganization,
    NewRole,
    OrganizationChanges,
    Roles,
)
from aspen.local.auth0.settings import new_identifier
from aspen.local.auth0.store import ProviderOf

organizations_router = APIRouter(prefix="/organizations")
members_router = APIRouter(prefix="/organizations/{organization_id}/members")
invitations_router = APIRouter(prefix="/organizations/{organization_id}/invitations")
roles_router = APIRouter(prefix="/roles")
_READS = needs("read:organizations")
_ALL_BUT_ROLES = "user_id,email,name,picture"

_INVITATION_SECONDS = 604_800
_INVITATIONS = (
    "invitations i JOIN organizations o ON o.id = i.organization_id"
    " JOIN clients c USING (client_id) WHERE i.organization_id = :organization"
)
_INVITATION_COLUMNS = "i.*, o.name AS organization_name, c.login_uri"
_INVITATION_ORDERS = {
    "created_at:-1": "i.created_at DESC, i.id",
    "created_at:1": "i.created_at, i.id",
}


@organizations_router.get("", dependencies=[_READS])
def list_organizations(provider: ProviderOf, page: AnyPageOf) -> list[Document] | Document:
    """List all organizations."""
    listing = Listing(
        "organizations", "organizations WHERE true", organization_document, "created_at, id"
    )
    with provider.database.reading() as db:
        return listed(db, listing, page)


@organizations_router.post("", status_code=201, dependencies=[needs("create:organizations")])
def create_organization(provider: ProviderOf, body: NewOrganization) -> Document:
    """Create an organization."""
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


@organizations_router.get("/name/{name}", dependencies=[_READS])
def get_organization_by_name(provider: ProviderOf, name: str) -> Document:
    """Return the organization with a name."""
    with provider.database.reading() as db:
        row = db.execute("SELECT * FROM organizations WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise no_organization()
    return organization_document(row)


@organizations_router.get("/{organization_id}", dependencies=[_READS])
def get_organization(provider: ProviderOf, organization_id: str) -> Document:
    """Return an organization."""
    with provider.database.reading() as db:
        return organization_document(find_organization(db, organization_id))


@organizations_router.patch("/{organization_id}", dependencies=[needs("update:organizations")])
def change_organization(
    provider: ProviderOf, organization_id: str, body: OrganizationChanges
) -> Document:
    """Update the given fields of an organization."""
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


@organizations_router.delete(
    "/{organization_id}", status_code=204, dependencies=[needs("delete:organizations")]
)
def delete_organization(provider: ProviderOf, organization_id: str) -> Response:
    """Delete an organization with its memberships and invitations, but not its users."""
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


@roles_router.get("", dependencies=[needs("read:roles")])
def list_roles(
    provider: ProviderOf, page: PageOf, name_filter: str = ""
) -> list[Document] | Document:
    """List the roles, optionally only those whose name contains a text."""
    listing = Listing(
        "roles",
        "roles WHERE instr(lower(name), lower(:text))",
        role_document,
        order="name",
        values={"text": name_filter},
    )
    with provider.database.reading() as db:
        return listed(db, listing, page)


@roles_router.post("", dependencies=[needs("create:roles")])
def create_role(provider: ProviderOf, body: NewRole) -> Document:
    """Create a role."""
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


@roles_router.get("/{role_id}", dependencies=[needs("read:roles")])
def get_role(provider: ProviderOf, role_id: str) -> Document:
    """Return a role."""
    with provider.database.reading() as db:
        return role_document(_find_role(db, role_id))


@roles_router.delete("/{role_id}", dependencies=[needs("delete:roles")])
def delete_role(provider: ProviderOf, role_id: str) -> Response:
    """Delete a role, and remove it from all members."""
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


@members_router.get("", dependencies=[needs("read:organization_members")])
def list_members(
    provider: ProviderOf,
    organization_id: str,
    page: AnyPageOf,
    fields: str = _ALL_BUT_ROLES,
    include_fields: bool = True,
) -> list[Document] | Document:
    """List the members; their roles are included only if requested in ``fields``."""
    listing = Listing(
        "members",
        "members m JOIN users u USING (user_id) WHERE m.organization_id = :organization",
        lambda row: parts(_member_document(row), fields, include_fields),
        order="u.created_at, user_id",
        key="user_id",
        columns="u.*, (SELECT json_group_array(json_object('id', r.id, 'name', r.name))"
        " FROM member_roles mr JOIN roles r ON r.id = mr.role_id"
        " WHERE mr.organization_id = m.organization_id AND mr.user_id = m.user_id) AS roles",
        values={"organization": organization_id},
    )
    with provider.database.reading() as db:
        find_organization(db, organization_id)
        return listed(db, listing, page)


@members_router.post("", status_code=204, dependencies=[needs("create:organization_members")])
def add_members(provider: ProviderOf, organization_id: str, body: Members) -> Response:
    """Add users to an organization; existing members stay unchanged."""
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        for user_id in body.members:
            try:
                db.execute(
                    "INSERT INTO members VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (organization_id, user_id),
                )
            except sqlite3.IntegrityError as error:
                raise no_user() from error
    return Response(status_code=204)


@members_router.delete("", status_code=204, dependencies=[needs("delete:organization_members")])
def remove_members(provider: ProviderOf, organization_id: str, body: Members) -> Response:
    """Remove members from an organization, with their roles."""
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        for user_id in body.members:
            db.execute(
                "DELETE FROM members WHERE organization_id = ? AND user_id = ?",
                (organization_id, user_id),
            )
    return Response(status_code=204)


@members_router.get("/{user_id}/roles", dependencies=[needs("read:organization_member_roles")])
def list_member_roles(
    provider: ProviderOf, organization_id: str, user_id: str, page: PageOf
) -> list[Document] | Document:
    """List a member's roles."""
    listing = Listing(
        "roles",
        "roles WHERE id IN (SELECT role_id FROM member_roles"
        " WHERE organization_id = :organization AND user_id = :user)",
        role_document,
        order="name",
        values={"organization": organization_id, "user": user_id},
    )
    with provider.database.reading() as db:
        _check_member(db, organization_id, user_id)
        return listed(db, listing, page)


@members_router.post(
    "/{user_id}/roles", status_code=204, dependencies=[needs("create:organization_member_roles")]
)
def add_roles(provider: ProviderOf, organization_id: str, user_id: str, body: Roles) -> Response:
    """Assign roles to a member."""
    with provider.database.writing() as db:
        _check_member(db, organization_id, user_id)
        for role_id in body.roles:
            try:
                db.execute(
                    "INSERT INTO member_roles VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (organization_id, user_id, role_id),
                )
            except sqlite3.IntegrityError as error:
                raise no_role() from error
    return Response(status_code=204)


@members_router.delete(
    "/{user_id}/roles", status_code=204, dependencies=[needs("delete:organization_member_roles")]
)
def remove_roles(provider: ProviderOf, organization_id: str, user_id: str, body: Roles) -> Response:
    """Remove roles from a member."""
    with provider.database.writing() as db:
        _check_member(db, organization_id, user_id)
        for role_id in body.roles:
            db.execute(
                "DELETE FROM member_roles"
                " WHERE organization_id = ? AND user_id = ? AND role_id = ?",
                (organization_id, user_id, role_id),
            )
    return Response(status_code=204)


def _check_member(db: sqlite3.Connection, organization_id: str, user_id: str) -> None:
    find_organization(db, organization_id)
    found = db.execute(
        "SELECT 1 FROM members WHERE organization_id = ? AND user_id = ?",
        (organization_id, user_id),
    ).fetchone()
    if not found:
        raise ManagementError(
            400, "The user is not a member of the organization.", "invalid_membership"
        )


def _member_document(row: sqlite3.Row) -> Document:
    document: Document = {name: row[name] for name in ("user_id", "email", "name")}
    picture = json.loads(row["details"]).get("picture")
    if picture:
        document["picture"] = picture
    return {**document, "roles": json.loads(row["roles"])}


@invitations_router.get("", dependencies=[needs("read:organization_invitations")])
def list_invitations(
    provider: ProviderOf,
    organization_id: str,
    page: PageOf,
    sort: Literal["created_at:-1", "created_at:1"] = "created_at:-1",
    fields: str = "",
    include_fields: bool = True,
) -> list[Document] | Document:
    """List the invitations, newest first by default, including expired ones."""
    listing = Listing(
        "invitations",
        _INVITATIONS,
        lambda row: parts(_invitation_document(row), fields, include_fields),
        order=_INVITATION_ORDERS[sort],
        columns=_INVITATION_COLUMNS,
        values={"organization": organization_id},
        counted=False,
    )
    with provider.database.reading() as db:
        find_organization(db, organization_id)
        return listed(db, listing, page)


@invitations_router.post("", dependencies=[needs("create:organization_invitations")])
def create_invitation(provider: ProviderOf, organization_id: str, body: NewInvitation) -> Document:
    """Create an invitation."""
    now = provider.now()
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        _check_invitation(db, body)
        invitation_id = new_identifier("uinv_")
        db.execute(
            "INSERT INTO invitations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                invitation_id,
                organization_id,
                body.client_id,
                new_identifier("", 32),
                body.inviter.name,
                body.invitee.email,
                json.dumps(body.roles or []),
                json.dumps(body.user_metadata or {}),
                json.dumps(body.app_metadata or {}),
                body.connection_id,
                now,
                now + (body.ttl_sec or _INVITATION_SECONDS),
            ),
        )
        return _invitation_document(_find_invitation(db, organization_id, invitation_id))


@invitations_router.get("/{invitation_id}", dependencies=[needs("read:organization_invitations")])
def get_invitation(
    provider: ProviderOf,
    organization_id: str,
    invitation_id: str,
    fields: str = "",
    include_fields: bool = True,
) -> Document:
    """Return an invitation."""
    with provider.database.reading() as db:
        find_organization(db, organization_id)
        row = _find_invitation(db, organization_id, invitation_id)
        return parts(_invitation_document(row), fields, include_fields)


@invitations_router.delete(
    "/{invitation_id}", status_code=204, dependencies=[needs("delete:organization_invitations")]
)
def delete_invitation(provider: ProviderOf, organization_id: str, invitation_id: str) -> Response:
    """Delete an invitation."""
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        _find_invitation(db, organization_id, invitation_id)
        db.execute("DELETE FROM invitations WHERE id = ?", (invitation_id,))
    return Response(status_code=204)


def _check_invitation(db: sqlite3.Connection, body: NewInvitation) -> None:
    client = db.execute(
        "SELECT login_uri FROM clients WHERE client_id = ?", (body.client_id,)
    ).fetchone()
    if client is None:
        raise ManagementError(404, "The client does not exist.", "inexistent_client")
    if not client["login_uri"]:
        raise bad_body("A default login route is required to generate the invitation url.")
    for role_id in body.roles or ():
        if not db.execute("SELECT 1 FROM roles WHERE id = ?", (role_id,)).fetchone():
            raise no_role()


def _find_invitation(
    db: sqlite3.Connection, organization_id: str, invitation_id: str
) -> sqlite3.Row:
    statement = f"SELECT {_INVITATION_COLUMNS} FROM {_INVITATIONS} AND i.id = :id"  # noqa: S608
    values = {"organization": organization_id, "id": invitation_id}
    row: sqlite3.Row | None = db.execute(statement, values).fetchone()
    if row is None:
        raise ManagementError(404, "The invitation does not exist.", "inexistent_invitation")
    return row


def _invitation_document(row: sqlite3.Row) -> Document:
    ticket = {
        "invitation": row["ticket"],
        "organization": row["organization_id"],
        "organization_name": row["organization_name"],
    }
    joint = "&" if "?" in row["login_uri"] else "?"
    document: Document = {
        "id": row["id"],
        "organization_id": row["organization_id"],
        "inviter": {"name": row["inviter_name"]},
        "invitee": {"email": row["invitee_email"]},
        "invitation_url": f"{row['login_uri']}{joint}{urlencode(ticket)}",
        "ticket_id": row["ticket"],
        "client_id": row["client_id"],
        "created_at": iso(row["created_at"]),
        "expires_at": iso(row["expires_at"]),
        "roles": json.loads(row["roles"]),
    }
    if row["connection_id"] is not None:
        document["connection_id"] = row["connection_id"]
    for name in ("user_metadata", "app_metadata"):
        if row[name] != "{}":
            document[name] = json.loads(row[name])
    return document
