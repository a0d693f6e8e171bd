"""The resources of the provider as a whole: its connection and its signing keys."""

from __future__ import annotations

import sqlite3

from fastapi import APIRouter

from aspen.local.auth0.documents import AnyPageOf, Document, ManagementError, iso, needs
from aspen.local.auth0.keys import revoke, rotate
from aspen.local.auth0.settings import audit
from aspen.local.auth0.store import ProviderOf
from aspen.local.auth0.users import CONNECTION

router = APIRouter()


@router.get("/connections", dependencies=[needs("read:connections")])
def connections(page: AnyPageOf, name: str = "", strategy: str = "") -> list[Document] | Document:
    """List the connections: only the database connection exists here."""
    only = {
        "id": "con_0000000000000001",
        "name": CONNECTION,
        "strategy": "auth0",
        "enabled_clients": [],
        "realms": [CONNECTION],
        "options": {},
    }
    fits = name in {"", CONNECTION} and strategy in {"", "auth0"}
    found = [only] if fits and page.page == 0 else []
    if page.take is not None:
        return {"connections": found}
    if page.totals:
        length = len(found)
        limits = {"start": 0, "limit": page.per_page, "length": length, "total": length}
        return {**limits, "connections": found}
    return found


@router.get("/keys/signing", dependencies=[needs("read:signing_keys")])
def keys(provider: ProviderOf) -> list[Document]:
    """List the current and former signing keys."""
    with provider.database.reading() as db:
        rows = db.execute("SELECT * FROM signing_keys ORDER BY made_at DESC").fetchall()
    return [_key_document(row) for row in rows]


@router.post("/keys/signing/rotate", status_code=201, dependencies=[needs("create:signing_keys")])
def rotate_key(provider: ProviderOf) -> Document:
    """Replace the signing key; the old one stays published for a while."""
    with provider.database.writing() as db:
        kid = rotate(db, provider.now())
    audit("key.rotated", kid=kid)
    return {"kid": kid}


@router.put("/keys/signing/{kid}/revoke", dependencies=[needs("update:signing_keys")])
def revoke_key(provider: ProviderOf, kid: str) -> Document:
    """Revoke a signing key; if it is the current one, create a new one."""
    with provider.database.writing() as db:
        if not revoke(db, kid, provider.now()):
            raise ManagementError(404, "The signing key does not exist.", "inexistent_key")
    audit("key.revoked", kid=kid)
    return {"kid": kid}


def _key_document(row: sqlite3.Row) -> Document:
    document: Document = {
        "kid": row["kid"],
        "current": row["retired_at"] is None,
        "current_since": iso(row["made_at"]),
        "revoked": row["revoked_at"] is not None,
    }
    if row["revoked_at"] is not None:
        document["revoked_at"] = iso(row["revoked_at"])
    return document
