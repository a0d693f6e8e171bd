"""What is exchanged for tokens: authorization codes, device codes, and refresh tokens.

The requested scope, audience, and organization are checked before a user is asked to sign in.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from sqlite3 import Connection, Row

from aspen.local.auth0.clients import KnownClient, OAuthError, required
from aspen.local.auth0.settings import Dialect, Settings, audit, hashed, new_secret
from aspen.local.auth0.store import Grant, Provider
from aspen.local.auth0.tokens import OFFLINE, USER_SCOPES, Granted, Wanted, add_expiring

_INVALID_CODE = "Invalid authorization code"
_UNKNOWN_TOKEN = "Unknown or invalid refresh token."  # noqa: S105 - a message
# No vowels, so that codes never spell words (RFC 8628 section 6.1).
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
# Timing is not exact: a client that waits the full interval may poll slightly early.
_TOLERANCE = 0.25
_SLOWER_SECONDS = 5


def wanted_by(
    db: Connection, settings: Settings, client: KnownClient, sent: Mapping[str, str]
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
    organization_id = _organization(db, sent.get("organization"))
    return Wanted(client.client_id, " ".join(scope), audience, organization_id)


def _organization(db: Connection, named: str | None) -> str | None:
    if named is None:
        return None
    found = db.execute(
        "SELECT id FROM organizations WHERE id = ? OR name = ?", (named, named)
    ).fetchone()
    if found is None:
        raise OAuthError("invalid_request", f"parameter organization is invalid: {named} not found")
    return str(found["id"])


def is_member(db: Connection, organization_id: str | None, user_id: str) -> bool:
    """Return True if a user belongs to an organization, or if there is none to belong to."""
    found = db.execute(
        "SELECT 1 FROM members WHERE organization_id = ? AND user_id = ?",
        (organization_id, user_id),
    )
    return organization_id is None or found.fetchone() is not None


def _invalid(description: str) -> OAuthError:
    return OAuthError("invalid_grant", description)


def add_code(
    provider: Provider,
    db: Connection,
    wanted: Wanted,
    sent: Mapping[str, str],
    user_id: str,
    auth_time: float,
) -> str:
    """Create a code for a user who signed in; ``sent`` is the request, after all checks."""
    code = new_secret()
    row = {
        **asdict(wanted),
        "user_id": user_id,
        "auth_time": auth_time,
        "code_hash": hashed(code),
        "redirect_uri": sent["redirect_uri"],
        "nonce": sent.get("nonce"),
        "challenge": sent.get("code_challenge"),
        "family": new_secret(),
    }
    add_expiring(db, "codes", row, provider.knobs.code_seconds)
    return code


def redeem_code(
    _provider: Provider, db: Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted:
    """Exchange a code for the user's grant; each code works once.

    Raises:
        OAuthError: That is not possible, or a parameter is missing.
    """
    code_hash, now = hashed(required(sent, "code")), time.time()
    row = db.execute(
        "SELECT * FROM codes WHERE code_hash = ? AND client_id = ?", (code_hash, client.client_id)
    ).fetchone()
    if row is None or now >= row["expires_at"]:
        raise _invalid(_INVALID_CODE)
    if row["used_at"] is not None:
        # The code may have been stolen, so revoke its tokens (RFC 6749 section 4.1.2).
        _revoke_family(db, row["family"])
        audit("code.reused", client=client.client_id, user=row["user_id"])
        raise _invalid(_INVALID_CODE)
    if sent.get("redirect_uri") != row["redirect_uri"]:
        raise _invalid("The redirect URI does not match the authorization request")
    _check_proof(client, row["challenge"], sent.get("code_verifier"))
    db.execute("UPDATE codes SET used_at = ? WHERE code_hash = ?", (now, code_hash))
    return Granted.of(row)


def _check_proof(client: KnownClient, challenge: str | None, verifier: str | None) -> None:
    """Check that PKCE, or the client's secret, proves that the code is the client's."""
    if challenge is None and not client.authenticated:
        raise _invalid("A client without a secret must use PKCE")
    if challenge is None and verifier is not None:
        raise _invalid("The authorization request did not use PKCE")
    if challenge is not None and (
        verifier is None or not secrets.compare_digest(_challenge_of(verifier), challenge)
    ):
        raise _invalid("Failed to verify code verifier")


def _challenge_of(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def add_device_request(provider: Provider, db: Connection, wanted: Wanted) -> tuple[str, str]:
    """Store a request of a program; return the device code for it, and the user's code."""
    device_code, user_code = new_secret(), _new_user_code()
    while db.execute("SELECT 1 FROM device_requests WHERE user_code = ?", (user_code,)).fetchone():
        user_code = _new_user_code()
    row = {
        **asdict(wanted),
        "device_hash": hashed(device_code),
        "user_code": user_code,
        "interval": provider.knobs.interval,
    }
    add_expiring(db, "device_requests", row, provider.knobs.device_seconds)
    return device_code, user_code


def redeem_device_code(
    provider: Provider, db: Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted:
    """Exchange a device code for the user's grant.

    Raises:
        OAuthError: That is not possible, or not yet, or the code is missing.
    """
    device_hash = hashed(required(sent, "device_code"))
    row = db.execute(
        "SELECT * FROM device_requests WHERE device_hash = ? AND client_id = ?",
        (device_hash, client.client_id),
    ).fetchone()
    if row is None:
        raise _invalid("Invalid or expired device code.")
    if time.time() >= row["expires_at"]:
        # Like Auth0, report this once; from then on the code is unknown.
        _delete(db, device_hash)
        raise OAuthError("expired_token", "The device code has expired.")
    if provider.take("slow_down") or _too_fast(provider, db, row):
        raise OAuthError(
            "slow_down",
            f"You are polling faster than the specified interval of {row['interval']:g} seconds.",
        )
    if row["status"] == "pending":
        raise OAuthError("authorization_pending", "User has yet to authorize device code.")
    if row["status"] == "denied":
        raise OAuthError("access_denied", "User cancelled the confirmation prompt.")
    _delete(db, device_hash)
    return Granted.of(row)


def tidy(typed: str) -> str:
    """Normalize a user code as typed: any case, with or without the dash."""
    letters = re.sub(r"[\s-]", "", typed).upper()
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def find_request(db: Connection, typed: str) -> Row | None:
    """Return the pending request with a user code as typed, with the names of what it is about."""
    row: Row | None = db.execute(
        "SELECT r.*, c.name AS client_name, o.display_name AS organization"
        " FROM device_requests r JOIN clients c USING (client_id)"
        " LEFT JOIN organizations o ON o.id = r.organization_id"
        " WHERE user_code = ? AND expires_at > ? AND status = 'pending'",
        (tidy(typed), time.time()),
    ).fetchone()
    return row


def decide(
    db: Connection, user_code: str, user_id: str, auth_time: float, *, approve: bool
) -> bool:
    """Record a person's decision; return False if no request is pending."""
    done = db.execute(
        "UPDATE device_requests SET status = ?, user_id = ?, auth_time = ?"
        " WHERE user_code = ? AND status = 'pending'",
        ("approved" if approve else "denied", user_id, auth_time, user_code),
    )
    return done.rowcount == 1


def _too_fast(provider: Provider, db: Connection, row: Row) -> bool:
    now, before, interval = time.time(), row["polled_at"], row["interval"]
    too_fast = before is not None and now - before < interval - _TOLERANCE
    if too_fast and provider.knobs.dialect is Dialect.RFC:
        interval += _SLOWER_SECONDS  # RFC 8628 section 3.5; Auth0 keeps the interval
    db.execute(
        "UPDATE device_requests SET polled_at = ?, interval = ? WHERE device_hash = ?",
        (now, interval, row["device_hash"]),
    )
    return too_fast


def _delete(db: Connection, device_hash: str) -> None:
    db.execute("DELETE FROM device_requests WHERE device_hash = ?", (device_hash,))


def _new_user_code() -> str:
    return tidy("".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF)))


def redeem_refresh_token(
    provider: Provider, db: Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted:
    """Exchange a refresh token for its grant: once, or again within the reuse period.

    Raises:
        OAuthError: That is not possible, the token is missing, or the scope exceeds the grant.
    """
    token_hash, now = hashed(required(sent, "refresh_token")), time.time()
    row = db.execute(
        "SELECT t.*, u.blocked FROM refresh_tokens t JOIN users u USING (user_id)"
        " WHERE token_hash = ? AND client_id = ?",
        (token_hash, client.client_id),
    ).fetchone()
    if row is None or row["revoked_at"] is not None or now >= row["expires_at"]:
        raise _invalid(_UNKNOWN_TOKEN)
    if row["blocked"]:
        raise _invalid("user is blocked")
    if row["used_at"] is not None and now - row["used_at"] >= provider.settings.reuse_seconds:
        # Two parties hold the token, and either one may be the thief.
        _revoke_family(db, row["family"])
        audit("refresh.reused", client=client.client_id, user=row["user_id"])
        raise _invalid(_UNKNOWN_TOKEN)
    granted = _narrowed(Granted.of(row), sent.get("scope"))
    db.execute(
        "UPDATE refresh_tokens SET used_at = coalesce(used_at, ?) WHERE token_hash = ?",
        (now, token_hash),
    )
    return granted


def revoke(db: Connection, client: KnownClient, token: str) -> str | None:
    """Revoke a refresh token and all others from its sign-in; return its user's ID."""
    row = db.execute(
        "SELECT family, user_id FROM refresh_tokens WHERE token_hash = ? AND client_id = ?",
        (hashed(token), client.client_id),
    ).fetchone()
    if row is None:
        return None
    _revoke_family(db, row["family"])
    return str(row["user_id"])


def _revoke_family(db: Connection, family: str) -> None:
    """Revoke all refresh tokens from one sign-in."""
    db.execute(
        "UPDATE refresh_tokens SET revoked_at = ? WHERE family = ? AND revoked_at IS NULL",
        (time.time(), family),
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
