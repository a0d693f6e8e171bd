"""Organizations, which the service calls groups, with their members, roles, and invitations."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from sqlite3 import Connection, Row
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from aspen.local.auth0.clients import with_query
from aspen.local.auth0.management import (
    AnyPageOf,
    Body,
    Document,
    Email,
    Listed,
    ManagementError,
    Metadata,
    PageOf,
    PartsOf,
    find,
    listed,
    metadata_of,
    missing,
    needs,
    parts,
    refused_with,
)
from aspen.local.auth0.outbox import in_words, send
from aspen.local.auth0.settings import iso, new_identifier
from aspen.local.auth0.store import ProviderOf, change, insert

router = APIRouter()

_MEMBERS = "/organizations/{organization_id}/members"
_MEMBER_ROLES = f"{_MEMBERS}/{{user_id}}/roles"
_INVITATIONS = "/organizations/{organization_id}/invitations"
_INVITATION = f"{_INVITATIONS}/{{invitation_id}}"

_READS = needs("read:organizations")
_ALL_BUT_ROLES = "user_id,email,name,picture"
_NAME_TAKEN = (409, "An organization with this name already exists.", "organization_conflict")
_INVITATION_SECONDS = 604_800
# The invitations, with what their URLs contain.
_INVITED = (
    "(SELECT i.*, o.name AS organization_name, c.login_uri FROM invitations i"
    " JOIN organizations o ON o.id = i.organization_id JOIN clients c USING (client_id))"
)

Name = Annotated[str, Field(max_length=50, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Text = Annotated[str, Field(min_length=1, max_length=255)]


class _OrganizationFields(Body):
    display_name: Text | None = None
    branding: Metadata | None = None
    metadata: dict[str, str | None] | None = None


class _NewOrganization(_OrganizationFields):
    name: Name
    enabled_connections: list[Metadata] | None = None


class _OrganizationChanges(_OrganizationFields):
    name: Name | None = None


class _Members(Body):
    members: Annotated[list[str], Field(min_length=1)]


class _Roles(Body):
    roles: Annotated[list[str], Field(min_length=1, max_length=50)]


class _Inviter(Body):
    name: Annotated[str, Field(min_length=1, max_length=300)]


class _Invitee(Body):
    email: Email


class _NewInvitation(Body):
    inviter: _Inviter
    invitee: _Invitee
    client_id: str
    connection_id: str | None = None
    app_metadata: Metadata | None = None
    user_metadata: Metadata | None = None
    ttl_sec: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    roles: list[str] | None = None
    send_invitation_email: bool | None = None


@router.get("/organizations", dependencies=[_READS])
def list_organizations(provider: ProviderOf, page: AnyPageOf) -> Listed:
    """List all organizations."""
    source, order = "organizations WHERE true", "created_at, id"
    with provider.database.reading() as db:
        return listed(db, page, "organizations", source, organization_document, order=order)


@router.post("/organizations", status_code=201, dependencies=[needs("create:organizations")])
def create_organization(provider: ProviderOf, body: _NewOrganization) -> Document:
    """Create an organization."""
    organization_id = new_identifier("org_")
    there = {"display_name": body.name, "branding": None, "metadata": None}
    row = {"id": organization_id, **_fields(there, body), "created_at": time.time()}
    with provider.database.writing() as db:
        with refused_with(ManagementError(*_NAME_TAKEN)):
            insert(db, "organizations", row)
        document = organization_document(find(db, "organizations", id=organization_id))
    if body.enabled_connections is not None:
        document["enabled_connections"] = body.enabled_connections
    return document


@router.get("/organizations/name/{name}", dependencies=[_READS])
def get_organization_by_name(provider: ProviderOf, name: str) -> Document:
    """Return the organization with a name."""
    with provider.database.reading() as db:
        return organization_document(find(db, "organizations", name=name))


@router.get("/organizations/{organization_id}", dependencies=[_READS])
def get_organization(provider: ProviderOf, organization_id: str) -> Document:
    """Return an organization."""
    with provider.database.reading() as db:
        return organization_document(find(db, "organizations", id=organization_id))


@router.patch("/organizations/{organization_id}", dependencies=[needs("update:organizations")])
def change_organization(
    provider: ProviderOf, organization_id: str, body: _OrganizationChanges
) -> Document:
    """Update the given fields of an organization."""
    with provider.database.writing() as db:
        there = dict(find(db, "organizations", id=organization_id))
        with refused_with(ManagementError(*_NAME_TAKEN)):
            change(db, "organizations", "id", {**there, **_fields(there, body)})
        return organization_document(find(db, "organizations", id=organization_id))


@router.delete("/organizations/{organization_id}", dependencies=[needs("delete:organizations")])
def delete_organization(provider: ProviderOf, organization_id: str) -> Response:
    """Delete an organization with its memberships and invitations, but not its users."""
    with provider.database.writing() as db:
        db.execute("DELETE FROM organizations WHERE id = ?", (organization_id,))
    return Response(status_code=204)


def organization_document(row: Row) -> Document:
    """Return an organization in Auth0's format."""
    document = {name: row[name] for name in ("id", "name", "display_name")}
    for name in ("branding", "metadata"):
        if row[name] is not None:
            document[name] = json.loads(row[name])
    return document


def _fields(
    there: Mapping[str, Any], body: _NewOrganization | _OrganizationChanges
) -> dict[str, Any]:
    """Return the columns that a body sets, with what is there for the fields that it omits."""
    return {
        "name": body.name or there["name"],
        "display_name": body.display_name or there["display_name"],
        "branding": json.dumps(body.branding) if body.branding else there["branding"],
        "metadata": json.dumps(body.metadata) if body.metadata else there["metadata"],
    }


@router.get("/roles", dependencies=[needs("read:roles")])
def list_roles(provider: ProviderOf, page: PageOf, name_filter: str = "") -> Listed:
    """List the roles, optionally only those whose name contains a text."""
    source, values = "roles WHERE instr(lower(name), lower(:text))", {"text": name_filter}
    with provider.database.reading() as db:
        return listed(db, page, "roles", source, dict, order="name", values=values)


@router.get(_MEMBERS, dependencies=[needs("read:organization_members")])
def list_members(
    provider: ProviderOf,
    organization_id: str,
    page: AnyPageOf,
    fields: str = _ALL_BUT_ROLES,
    include_fields: bool = True,
) -> Listed:
    """List the members; their roles are included only if requested in ``fields``."""
    chosen = parts(fields, include_fields)
    with provider.database.reading() as db:
        find(db, "organizations", id=organization_id)
        return listed(
            db,
            page,
            "members",
            "members m JOIN users u USING (user_id) WHERE m.organization_id = :organization",
            lambda row: chosen(_member_document(row)),
            order="u.created_at, user_id",
            key="user_id",
            columns="u.*, (SELECT json_group_array(json_object('id', r.id, 'name', r.name))"
            " FROM member_roles mr JOIN roles r ON r.id = mr.role_id"
            " WHERE mr.organization_id = m.organization_id AND mr.user_id = m.user_id) AS roles",
            values={"organization": organization_id},
        )


@router.post(_MEMBERS, dependencies=[needs("create:organization_members")])
def add_members(provider: ProviderOf, organization_id: str, body: _Members) -> Response:
    """Add users to an organization; existing members stay unchanged."""
    statement = "INSERT INTO members VALUES (?, ?) ON CONFLICT DO NOTHING"
    return _for_each(provider, statement, body.members, "users", organization_id)


@router.delete(_MEMBERS, dependencies=[needs("delete:organization_members")])
def remove_members(provider: ProviderOf, organization_id: str, body: _Members) -> Response:
    """Remove members from an organization, with their roles."""
    statement = "DELETE FROM members WHERE organization_id = ? AND user_id = ?"
    return _for_each(provider, statement, body.members, "users", organization_id)


@router.get(_MEMBER_ROLES, dependencies=[needs("read:organization_member_roles")])
def list_member_roles(
    provider: ProviderOf, organization_id: str, user_id: str, page: PageOf
) -> Listed:
    """List a member's roles."""
    with provider.database.reading() as db:
        _check_place(db, organization_id, user_id)
        return listed(
            db,
            page,
            "roles",
            "roles WHERE id IN (SELECT role_id FROM member_roles"
            " WHERE organization_id = :organization AND user_id = :user)",
            dict,
            order="name",
            values={"organization": organization_id, "user": user_id},
        )


@router.post(_MEMBER_ROLES, dependencies=[needs("create:organization_member_roles")])
def add_roles(provider: ProviderOf, organization_id: str, user_id: str, body: _Roles) -> Response:
    """Assign roles to a member."""
    statement = "INSERT INTO member_roles VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
    return _for_each(provider, statement, body.roles, "roles", organization_id, user_id)


@router.delete(_MEMBER_ROLES, dependencies=[needs("delete:organization_member_roles")])
def remove_roles(
    provider: ProviderOf, organization_id: str, user_id: str, body: _Roles
) -> Response:
    """Remove roles from a member."""
    statement = "DELETE FROM member_roles WHERE organization_id = ? AND user_id = ? AND role_id = ?"
    return _for_each(provider, statement, body.roles, "roles", organization_id, user_id)


def _for_each(
    provider: ProviderOf, statement: str, ids: Iterable[str], table: str, *place: str
) -> Response:
    """Run a statement for each ID of a table, in an organization or for one of its members."""
    with provider.database.writing() as db:
        _check_place(db, *place)
        with refused_with(missing(table)):
            db.executemany(statement, [(*place, one) for one in ids])
    return Response(status_code=204)


def _check_place(db: Connection, organization_id: str, user_id: str | None = None) -> None:
    find(db, "organizations", id=organization_id)
    if user_id is not None:
        find(db, "members", organization_id=organization_id, user_id=user_id)


def _member_document(row: Row) -> Document:
    document: Document = {name: row[name] for name in ("user_id", "email", "name")}
    picture = json.loads(row["details"]).get("picture")
    if picture:
        document["picture"] = picture
    return {**document, "roles": json.loads(row["roles"])}


@router.get(_INVITATIONS, dependencies=[needs("read:organization_invitations")])
def list_invitations(
    provider: ProviderOf,
    organization_id: str,
    page: PageOf,
    parts: PartsOf,
    sort: Literal["created_at:-1", "created_at:1"] = "created_at:-1",
) -> Listed:
    """List the invitations, newest first by default, including expired ones."""
    with provider.database.reading() as db:
        find(db, "organizations", id=organization_id)
        return listed(
            db,
            page,
            "invitations",
            f"{_INVITED} WHERE organization_id = :organization",
            lambda row: parts(_invitation_document(row)),
            order="created_at DESC, id" if sort == "created_at:-1" else "created_at, id",
            values={"organization": organization_id},
            counted=False,
        )


@router.post(_INVITATIONS, dependencies=[needs("create:organization_invitations")])
def create_invitation(provider: ProviderOf, organization_id: str, body: _NewInvitation) -> Document:
    """Create an invitation, and e-mail it unless the request says otherwise."""
    now = time.time()
    expires_at = now + (body.ttl_sec or _INVITATION_SECONDS)
    row = {**_row(organization_id, body), "created_at": now, "expires_at": expires_at}
    with provider.database.writing() as db:
        organization = find(db, "organizations", id=organization_id)
        if not find(db, "clients", client_id=body.client_id)["login_uri"]:
            why = "A default login route is required to generate the invitation url."
            raise ManagementError(400, why, "invalid_body")
        for role_id in body.roles or ():
            find(db, "roles", id=role_id)
        insert(db, "invitations", row)
        document = _invitation_document(_find_invitation(db, organization_id, str(row["id"])))
        if body.send_invitation_email is not False:
            _send_invitation(db, document, organization["display_name"], expires_at)
    return document


def _row(organization_id: str, body: _NewInvitation) -> dict[str, object]:
    return {
        "id": new_identifier("uinv_"),
        "organization_id": organization_id,
        "client_id": body.client_id,
        "ticket": new_identifier("", 32),
        "inviter_name": body.inviter.name,
        "invitee_email": body.invitee.email,
        "roles": json.dumps(body.roles or []),
        "user_metadata": json.dumps(body.user_metadata or {}),
        "app_metadata": json.dumps(body.app_metadata or {}),
        "connection_id": body.connection_id,
    }


def _send_invitation(
    db: Connection, invitation: Document, organization: str, expires_at: float
) -> None:
    inviter, link = invitation["inviter"]["name"], invitation["invitation_url"]
    text = f"""{inviter} invited you to join {organization}.

Accept the invitation:
{link}

The link works once, until {in_words(expires_at)}.
"""
    subject = f"Invitation to join {organization}"
    send(db, invitation["invitee"]["email"], subject, text, link=link)


@router.get(_INVITATION, dependencies=[needs("read:organization_invitations")])
def get_invitation(
    provider: ProviderOf, organization_id: str, invitation_id: str, parts: PartsOf
) -> Document:
    """Return an invitation."""
    with provider.database.reading() as db:
        return parts(_invitation_document(_find_invitation(db, organization_id, invitation_id)))


@router.delete(_INVITATION, dependencies=[needs("delete:organization_invitations")])
def delete_invitation(provider: ProviderOf, organization_id: str, invitation_id: str) -> Response:
    """Delete an invitation."""
    with provider.database.writing() as db:
        _find_invitation(db, organization_id, invitation_id)
        db.execute("DELETE FROM invitations WHERE id = ?", (invitation_id,))
    return Response(status_code=204)


def _find_invitation(db: Connection, organization_id: str, invitation_id: str) -> Row:
    find(db, "organizations", id=organization_id)
    find(db, "invitations", id=invitation_id, organization_id=organization_id)
    statement = f"SELECT * FROM {_INVITED} WHERE id = ?"  # noqa: S608 - names are ours
    row: Row = db.execute(statement, (invitation_id,)).fetchone()
    return row


def _invitation_document(row: Row) -> Document:
    ticket = {
        "invitation": row["ticket"],
        "organization": row["organization_id"],
        "organization_name": row["organization_name"],
    }
    document: Document = {
        "id": row["id"],
        "organization_id": row["organization_id"],
        "inviter": {"name": row["inviter_name"]},
        "invitee": {"email": row["invitee_email"]},
        "invitation_url": with_query(row["login_uri"], ticket),
        "ticket_id": row["ticket"],
        "client_id": row["client_id"],
        "created_at": iso(row["created_at"]),
        "expires_at": iso(row["expires_at"]),
        "roles": json.loads(row["roles"]),
    }
    if row["connection_id"] is not None:
        document["connection_id"] = row["connection_id"]
    return document | metadata_of(row)
