"""Invitations to organizations. No e-mail is sent; the response contains the invitation URL."""

from __future__ import annotations

import json
import sqlite3
from typing import Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from aspen.local.auth0.management.base import (
    Document,
    Listing,
    ManagementError,
    PageOf,
    bad_body,
    iso,
    listed,
    needs,
    no_role,
    parts,
)
from aspen.local.auth0.management.organizations import find_organization
from aspen.local.auth0.management.schemas import NewInvitation
from aspen.local.auth0.settings import new_identifier
from aspen.local.auth0.store import ProviderOf

router = APIRouter(prefix="/organizations/{organization_id}/invitations")

_DEFAULT_SECONDS = 604_800
_SELECT = (
    "invitations i JOIN organizations o ON o.id = i.organization_id"
    " JOIN clients c USING (client_id) WHERE i.organization_id = :organization"
)
_COLUMNS = "i.*, o.name AS organization_name, c.login_uri"
_ORDERS = {
    "created_at:-1": "i.created_at DESC, i.id",
    "created_at:1": "i.created_at, i.id",
}


@router.get("", dependencies=[needs("read:organization_invitations")])
def list_(
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
        _SELECT,
        lambda row: parts(_document(row), fields, include_fields),
        order=_ORDERS[sort],
        columns=_COLUMNS,
        values={"organization": organization_id},
        counted=False,
    )
    with provider.database.reading() as db:
        find_organization(db, organization_id)
        return listed(db, listing, page)


@router.post("", dependencies=[needs("create:organization_invitations")])
def create(provider: ProviderOf, organization_id: str, body: NewInvitation) -> Document:
    """Create an invitation."""
    now = provider.now()
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        _check(db, body)
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
                now + (body.ttl_sec or _DEFAULT_SECONDS),
            ),
        )
        return _document(_find(db, organization_id, invitation_id))


@router.get("/{invitation_id}", dependencies=[needs("read:organization_invitations")])
def get(
    provider: ProviderOf,
    organization_id: str,
    invitation_id: str,
    fields: str = "",
    include_fields: bool = True,
) -> Document:
    """Return an invitation."""
    with provider.database.reading() as db:
        find_organization(db, organization_id)
        row = _find(db, organization_id, invitation_id)
        return parts(_document(row), fields, include_fields)


@router.delete(
    "/{invitation_id}", status_code=204, dependencies=[needs("delete:organization_invitations")]
)
def delete(provider: ProviderOf, organization_id: str, invitation_id: str) -> Response:
    """Delete an invitation."""
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        _find(db, organization_id, invitation_id)
        db.execute("DELETE FROM invitations WHERE id = ?", (invitation_id,))
    return Response(status_code=204)


def _check(db: sqlite3.Connection, body: NewInvitation) -> None:
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


def _find(db: sqlite3.Connection, organization_id: str, invitation_id: str) -> sqlite3.Row:
    statement = f"SELECT {_COLUMNS} FROM {_SELECT} AND i.id = :id"  # noqa: S608 - all ours
    values = {"organization": organization_id, "id": invitation_id}
    row: sqlite3.Row | None = db.execute(statement, values).fetchone()
    if row is None:
        raise ManagementError(404, "The invitation does not exist.", "inexistent_invitation")
    return row


def _document(row: sqlite3.Row) -> Document:
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
