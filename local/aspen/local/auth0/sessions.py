"""The sessions of users in their browsers, and the refresh tokens of their programs.

As at Auth0, ending the sessions leaves the refresh tokens valid, and vice versa. Only Enterprise
plans have these lists. All plans have ``device-credentials``, which contain the refresh tokens.
"""

from __future__ import annotations

import time
from sqlite3 import Row
from typing import Literal

from fastapi import APIRouter, Depends, Response

from aspen.local.auth0.audit import audit
from aspen.local.auth0.management import (
    CheckpointOf,
    Document,
    Listed,
    ManagementError,
    PageOf,
    find,
    listed,
    needs,
)
from aspen.local.auth0.settings import iso
from aspen.local.auth0.store import ProviderOf

router = APIRouter()

_SESSIONS, _TOKENS = "/users/{user_id}/sessions", "/users/{user_id}/refresh-tokens"
_CREDENTIALS = "/device-credentials"
# The start of the hash identifies a session, and does not lead back to its cookie.
_ACTIVE_SESSIONS = (
    "(SELECT substr(session_hash, 1, 32) AS id, s.* FROM sessions s"
    " WHERE user_id = :user AND expires_at > :now) WHERE true"
)
# Of a sign-in's tokens, only the latest can be exchanged. SQLite takes the other columns from the
# row that has the maximum.
_ACTIVE_TOKENS = (
    "(SELECT family AS id, t.*, max(made_at), (SELECT min(made_at) FROM refresh_tokens f"
    " WHERE f.family = t.family) AS began_at"
    " FROM refresh_tokens t WHERE user_id = :user GROUP BY family)"
    " WHERE revoked_at IS NULL AND expires_at > :now"
)


def _enterprise(provider: ProviderOf) -> None:
    """Refuse a request that other plans do not have, if the provider is to be of such a plan."""
    knobs = provider.knobs
    if knobs.enterprise:
        return
    if knobs.refusal == 404:  # noqa: PLR2004 - an HTTP status
        raise ManagementError(404, "Not Found")
    message = "This feature is not enabled for your subscription."
    raise ManagementError(knobs.refusal, message, "operation_not_supported")


_ENTERPRISE = Depends(_enterprise)


@router.get(_SESSIONS, dependencies=[needs("read:sessions"), _ENTERPRISE])
def list_sessions(provider: ProviderOf, user_id: str, page: CheckpointOf) -> Listed:
    """List the sessions in which a user is signed in to the provider's pages."""
    with provider.database.reading() as db:
        find(db, "users", user_id=user_id)
        values = {"user": user_id, "now": time.time()}
        document = _session_document
        return listed(db, page, "sessions", _ACTIVE_SESSIONS, document, order="id", values=values)


@router.delete(_SESSIONS, dependencies=[needs("delete:sessions"), _ENTERPRISE])
def delete_sessions(provider: ProviderOf, user_id: str) -> Response:
    """Sign a user out of all browsers."""
    with provider.database.writing() as db:
        find(db, "users", user_id=user_id)
        db.execute("DELETE FROM sessions WHERE user_id = ?", (user_id,))
    return Response(status_code=202)


@router.get(_TOKENS, dependencies=[needs("read:refresh_tokens"), _ENTERPRISE])
def list_refresh_tokens(provider: ProviderOf, user_id: str, page: CheckpointOf) -> Listed:
    """List the refresh tokens of a user that can be exchanged."""
    with provider.database.reading() as db:
        find(db, "users", user_id=user_id)
        values = {"user": user_id, "now": time.time()}
        document = _token_document
        return listed(db, page, "tokens", _ACTIVE_TOKENS, document, order="id", values=values)


@router.delete(_TOKENS, dependencies=[needs("delete:refresh_tokens"), _ENTERPRISE])
def delete_refresh_tokens(provider: ProviderOf, user_id: str) -> Response:
    """Revoke the refresh tokens of a user."""
    with provider.database.writing() as db:
        find(db, "users", user_id=user_id)
        revoked = db.execute(
            "UPDATE refresh_tokens SET revoked_at = ? WHERE user_id = ? AND revoked_at IS NULL",
            (time.time(), user_id),
        ).rowcount
    if revoked:
        audit("token.revoked", user=user_id, found=True)
    return Response(status_code=202)


@router.get(_CREDENTIALS, dependencies=[needs("read:device_credentials")])
def list_credentials(
    provider: ProviderOf,
    page: PageOf,
    user_id: str = "",
    type: Literal["public_key", "refresh_token", "rotating_refresh_token"] = "public_key",  # noqa: A002 - Auth0's name
) -> Listed:
    """List the credentials of a user's programs; all of them are refresh tokens that rotate."""
    is_other = "" if type == "rotating_refresh_token" else " AND false"
    with provider.database.reading() as db:
        values = {"user": user_id, "now": time.time()}
        source = f"{_ACTIVE_TOKENS}{is_other}"
        name, document = "device_credentials", _credential_document
        return listed(db, page, name, source, document, order="id", values=values)


@router.delete(
    f"{_CREDENTIALS}/{{credential_id}}", dependencies=[needs("delete:device_credentials")]
)
def delete_credential(provider: ProviderOf, credential_id: str) -> Response:
    """Revoke a refresh token by the ID of its credential."""
    with provider.database.writing() as db:
        revoked = db.execute(
            "UPDATE refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL"
            " RETURNING user_id",
            (time.time(), credential_id),
        ).fetchall()
    if revoked:
        audit("token.revoked", user=revoked[0]["user_id"], found=True)
    return Response(status_code=204)


def _credential_document(row: Row) -> Document:
    return {
        "id": row["id"],
        "device_name": "Unknown",
        "device_id": row["id"],
        "type": "rotating_refresh_token",
        "user_id": row["user_id"],
        "client_id": row["client_id"],
    }


def _session_document(row: Row) -> Document:
    began, ends = iso(row["auth_time"]), iso(row["expires_at"])
    return {
        "id": row["id"],
        "user_id": row["user_id"],
        "created_at": began,
        "updated_at": began,
        "authenticated_at": began,
        "idle_expires_at": ends,
        "expires_at": ends,
        "authentication": {"methods": [{"name": "pwd", "timestamp": began}]},
    }


def _token_document(row: Row) -> Document:
    ends = iso(row["expires_at"])
    return {
        "id": row["id"],
        "user_id": row["user_id"],
        "created_at": iso(row["began_at"]),
        "idle_expires_at": ends,
        "expires_at": ends,
        "client_id": row["client_id"],
        "session_id": None,
        "rotating": True,
        "resource_servers": [{"audience": row["audience"] or "", "scopes": row["scope"]}],
    }
