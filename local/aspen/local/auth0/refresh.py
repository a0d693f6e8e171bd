"""Refresh tokens: issue, exchange, and revoke them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from aspen.local.auth0.clients import KnownClient, required
from aspen.local.auth0.errors import OAuthError
from aspen.local.auth0.settings import audit, hashed
from aspen.local.auth0.store import Provider
from aspen.local.auth0.tokens import OFFLINE, Granted

_UNKNOWN = "Unknown or invalid refresh token."


def exchange(
    provider: Provider, db: sqlite3.Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted | OAuthError:
    """Exchange a refresh token for its grant: once, or again within the reuse period.

    Raises:
        OAuthError: The token is missing, or the requested scope exceeds the grant.
    """
    token_hash, now = hashed(required(sent, "refresh_token")), provider.now()
    row = db.execute(
        "SELECT t.*, u.blocked FROM refresh_tokens t JOIN users u USING (user_id)"
        " WHERE token_hash = ? AND client_id = ?",
        (token_hash, client.client_id),
    ).fetchone()
    if row is None or row["revoked_at"] is not None or now >= row["expires_at"]:
        return OAuthError("invalid_grant", _UNKNOWN)
    if row["blocked"]:
        return OAuthError("invalid_grant", "user is blocked")
    if row["used_at"] is not None and now - row["used_at"] >= provider.settings.reuse_seconds:
        # Two parties hold the token, and either one may be the thief.
        revoke_family(db, row["family"], now)
        audit("refresh.reused", client=client.client_id, user=row["user_id"])
        return OAuthError("invalid_grant", _UNKNOWN)
    granted = _narrowed(Granted.of(row, row["family"]), sent.get("scope"))
    db.execute(
        "UPDATE refresh_tokens SET used_at = coalesce(used_at, ?) WHERE token_hash = ?",
        (now, token_hash),
    )
    return granted


def revoke(db: sqlite3.Connection, client: KnownClient, token: str, now: float) -> str | None:
    """Revoke a refresh token and all others from its sign-in; return its user's ID."""
    row = db.execute(
        "SELECT family, user_id FROM refresh_tokens WHERE token_hash = ? AND client_id = ?",
        (hashed(token), client.client_id),
    ).fetchone()
    if row is None:
        return None
    revoke_family(db, row["family"], now)
    return str(row["user_id"])


def revoke_family(db: sqlite3.Connection, family: str, now: float) -> None:
    """Revoke all refresh tokens from one sign-in."""
    db.execute(
        "UPDATE refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL",
        (now, family),
    )


def _narrowed(granted: Granted, asked: str | None) -> Granted:
    """Return the grant, with its scope reduced if a smaller one is requested."""
    if asked is None:
        return granted
    wanted = asked.split()
    if not set(wanted) <= set(granted.scopes):
        raise OAuthError("invalid_scope", "The requested scope exceeds the granted scope.")
    kept = [name for name in granted.scopes if name in wanted or name == OFFLINE]
    return replace(granted, scope=" ".join(kept))
