"""Authorization codes, which a browser carries from the sign-in page back to the client.

The requested scope, audience, and organization are checked before a user is asked to sign in.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from aspen.local.auth0.clients import KnownClient, required
from aspen.local.auth0.errors import OAuthError
from aspen.local.auth0.refresh import revoke_family
from aspen.local.auth0.settings import Settings, audit, hashed, new_secret
from aspen.local.auth0.store import Grant, Provider
from aspen.local.auth0.tokens import KEPT_SECONDS, OFFLINE, USER_SCOPES, Granted

_INVALID = "Invalid authorization code"


@dataclass(frozen=True)
class Wanted:
    """The requested access.

    Attributes:
        scope: The requested scopes that exist, separated by spaces.
        audience: The API; None for ``/userinfo`` only.
        organization_id: The organization to sign in with, if any.
    """

    scope: str
    audience: str | None
    organization_id: str | None


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


def wanted_by(
    db: sqlite3.Connection, settings: Settings, client: KnownClient, sent: Mapping[str, str]
) -> Wanted:
    """Return the access that a request asks for.

    Like Auth0, this ignores unknown scopes, and ``offline_access`` if the client may not use
    refresh tokens.

    Raises:
        OAuthError: The client may not use the audience, or the organization does not exist.
    """
    asked = sent.get("scope", "openid profile email").split()
    offline = Grant.REFRESH_TOKEN in client.grants
    scope = [name for name in USER_SCOPES if name in asked and (offline or name != OFFLINE)]
    audience = sent.get("audience")
    if audience == settings.userinfo_audience:
        audience = None
    if audience is not None and audience not in client.audiences:
        raise OAuthError("access_denied", f"Service not found: {audience}")
    return Wanted(" ".join(scope), audience, _organization(db, sent.get("organization")))


def is_member(db: sqlite3.Connection, organization_id: str, user_id: str) -> bool:
    """Return True if a user belongs to an organization."""
    return bool(
        db.execute(
            "SELECT 1 FROM members WHERE organization_id = ? AND user_id = ?",
            (organization_id, user_id),
        ).fetchone()
    )


def _organization(db: sqlite3.Connection, named: str | None) -> str | None:
    if named is None:
        return None
    found = db.execute(
        "SELECT id FROM organizations WHERE id = ? OR name = ?", (named, named)
    ).fetchone()
    if found is None:
        raise OAuthError("invalid_request", f"parameter organization is invalid: {named} not found")
    return str(found["id"])


def add_code(
    provider: Provider, db: sqlite3.Connection, asked: CodeRequest, user_id: str, auth_time: float
) -> str:
    """Create a code for a user who signed in."""
    code, now = new_secret(), provider.now()
    db.execute("DELETE FROM codes WHERE expires_at < ?", (now - KEPT_SECONDS,))
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
            "invalid_grant", "The redirect URI does not match the authorization request"
        )
    problem = _unproven(client, row["challenge"], sent.get("code_verifier"))
    if problem is not None:
        return problem
    db.execute("UPDATE codes SET used_at = ? WHERE code_hash = ?", (now, code_hash))
    return Granted.of(row, row["family"], row["nonce"])


def _unproven(
    client: KnownClient, challenge: str | None, verifier: str | None
) -> OAuthError | None:
    """Return an error unless PKCE, or the client's secret, proves that the code is the client's."""
    if challenge is None:
        if not client.authenticated:
            return OAuthError("invalid_grant", "A client without a secret must use PKCE")
        return (
            None
            if verifier is None
            else OAuthError("invalid_grant", "The authorization request did not use PKCE")
        )
    if verifier is None or not secrets.compare_digest(_challenge_of(verifier), challenge):
        return OAuthError("invalid_grant", "Failed to verify code verifier")
    return None


def _challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
