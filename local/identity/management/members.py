"""The members of organizations, and their roles."""

from __future__ import annotations

import json
import sqlite3

from fastapi import APIRouter, Response

from local.identity.management.access import needs
from local.identity.management.bodies import Members, Roles
from local.identity.management.errors import ManagementError, no_role, no_user
from local.identity.management.listing import (
    AnyPageOf,
    Document,
    Listing,
    PageOf,
    listed,
    parts,
)
from local.identity.management.organizations import find_organization
from local.identity.management.roles import role_document
from local.identity.provider import ProviderOf

router = APIRouter(prefix="/organizations/{organization_id}/members")
_ALL_BUT_ROLES = "user_id,email,name,picture"


@router.get("", dependencies=[needs("read:organization_members")])
def list_(
    provider: ProviderOf,
    organization_id: str,
    page: AnyPageOf,
    fields: str = _ALL_BUT_ROLES,
    include_fields: bool = True,
) -> list[Document] | Document:
    """The members; their roles only where the fields name them."""
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


@router.post("", status_code=204, dependencies=[needs("create:organization_members")])
def add(provider: ProviderOf, organization_id: str, body: Members) -> Response:
    """Make users members; those who are already stay so."""
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


@router.delete("", status_code=204, dependencies=[needs("delete:organization_members")])
def remove(provider: ProviderOf, organization_id: str, body: Members) -> Response:
    """End memberships, with their roles."""
    with provider.database.writing() as db:
        find_organization(db, organization_id)
        for user_id in body.members:
            db.execute(
                "DELETE FROM members WHERE organization_id = ? AND user_id = ?",
                (organization_id, user_id),
            )
    return Response(status_code=204)


@router.get("/{user_id}/roles", dependencies=[needs("read:organization_member_roles")])
def list_roles(
    provider: ProviderOf, organization_id: str, user_id: str, page: PageOf
) -> list[Document] | Document:
    """A member's roles."""
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


@router.post(
    "/{user_id}/roles", status_code=204, dependencies=[needs("create:organization_member_roles")]
)
def add_roles(provider: ProviderOf, organization_id: str, user_id: str, body: Roles) -> Response:
    """Give a member roles."""
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


@router.delete(
    "/{user_id}/roles", status_code=204, dependencies=[needs("delete:organization_member_roles")]
)
def remove_roles(provider: ProviderOf, organization_id: str, user_id: str, body: Roles) -> Response:
    """Take roles from a member."""
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
