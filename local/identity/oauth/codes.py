"""Authorization codes, which a browser carries from the sign-in page back to the client."""

from __future__ import annotations

import base64
import hashlib
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from local.identity.audit import audit
from local.identity.errors import OAuthError
from local.identity.hashing import hashed, new_secret
from local.identity.oauth.clients import KnownClient
from local.identity.oauth.parameters import required
from local.identity.oauth.refresh import revoke_family
from local.identity.oauth.requests import Wanted
from local.identity.provider import Provider
from local.identity.tokens import Granted

_KEPT_SECONDS = 86_400
_INVALID = "Invalid authorization code"


@dataclass(frozen=True)
class CodeRequest:
    """A request for an authorization code.

    Attributes:
        client_id: The client that may exchange the code.
        redirect_uri: Where the code is sent; the exchange must name it again.
        wanted: The requested scope, audience, and organization.
        nonce: The client's nonce for the id_token.
        challenge: The SHA-256 of the verifier that the exchange must present (PKCE, S256).
    """

    client_id: str
    redirect_uri: str
    wanted: Wanted
    nonce: str | None
    challenge: str | None


def add_code(
    provider: Provider, db: sqlite3.Connection, asked: CodeRequest, user_id: str, auth_time: float
) -> str:
    """Create a code for a user who signed in."""
    code, now = new_secret(), provider.now()
    db.execute("DELETE FROM codes WHERE expires_at < ?", (now - _KEPT_SECONDS,))
    db.execute(
        "INSERT INTO codes (code_hash, client_id, user_id, organization_id, redirect_uri, scope,"
        " audience, nonce, challenge, auth_time, family, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            hashed(code),
            asked.client_id,
            user_id,
            asked.wanted.organization_id,
            asked.redirect_uri,
            asked.wanted.scope,
            asked.wanted.audience,
            asked.nonce,
            asked.challenge,
            auth_time,
            new_secret(),
            now + provider.knobs.code_seconds,
        ),
    )
    return code


def redeem(
    provider: Provider, db: sqlite3.Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted | OAuthError:
    """Exchange a code for the user's grant; each code works once.

    Raises:
        OAuthError: A parameter is missing.
    """
    code_hash, now = hashed(required(sent, "code")), provider.now()
    row = db.execute(
        "SELECT * FROM codes WHERE code_hash = ? AND client_id = ?", (code_hash, client.client_id)
    ).fetchone()
    if row is None or now >= row["expires_at"]:
        return OAuthError("invalid_grant", _INVALID)
    if row["used_at"] is not None:
        # The code may have been stolen, so revoke its tokens (RFC 6749 section 4.1.2).
        revoke_family(db, row["family"], now)
        audit("code.reused", client=client.client_id, user=row["user_id"])
        return OAuthError("invalid_grant", _INVALID)
    if sent.get("redirect_uri") != row["redirect_uri"]:
        return OAuthError(
            "invalid_grant", "The redirect URI is not that of the authorization request"
        )
    problem = _unproven(client, row["challenge"], sent.get("code_verifier"))
    if problem is not None:
        return problem
    db.execute("UPDATE codes SET used_at = ? WHERE code_hash = ?", (now, code_hash))
    return Granted(
        client_id=row["client_id"],
        user_id=row["user_id"],
        organization_id=row["organization_id"],
        scope=row["scope"],
        audience=row["audience"],
        auth_time=row["auth_time"],
        family=row["family"],
        nonce=row["nonce"],
    )


def _unproven(
    client: KnownClient, challenge: str | None, verifier: str | None
) -> OAuthError | None:
    """Return an error unless PKCE, or the client's secret, proves that the code is the client's."""
    if challenge is None:
        if not client.authenticated:
            return OAuthError("invalid_grant", "A client without a secret must use PKCE")
        return None if verifier is None else OAuthError("invalid_grant", "No PKCE was begun")
    if verifier is None or not secrets.compare_digest(_challenge_of(verifier), challenge):
        return OAuthError("invalid_grant", "Failed to verify code verifier")
    return None


def _challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
