"""Tokens: what is exchanged for them, how they are made, and how they are checked.

An authorization code, a device code, or a refresh token is exchanged for tokens. The requested
scope, audience, and organization are checked before a user is asked to sign in.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from sqlite3 import Connection, Row
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from aspen.local.auth0.audit import audit
from aspen.local.auth0.clients import KnownClient, OAuthError, required
from aspen.local.auth0.settings import Dialect, ProviderSettings, Signing, hashed, new_secret
from aspen.local.auth0.store import (
    ALGORITHM,
    Grant,
    LocalProvider,
    insert,
    make_key,
    published_keys,
    signing_key,
)

_OFFLINE = "offline_access"
USER_SCOPES = ("openid", "profile", "email", _OFFLINE)
_KEPT_SECONDS = 86_400
_INVALID_CODE = "Invalid authorization code"
_UNKNOWN_TOKEN = "Unknown or invalid refresh token."  # noqa: S105 - a message
# No vowels, so that codes never spell words (RFC 8628 section 6.1).
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
# Timing is not exact: a client that waits the full interval may poll slightly early.
_TOLERANCE = 0.25
_SLOWER_SECONDS = 5


@dataclass(frozen=True)
class RequestedAccess:
    """The access that a client requests.

    Attributes:
        scope: The requested scopes that exist, separated by spaces.
        audience: The API that the access_token is for; None for ``/userinfo`` only.
        organization_id: The organization to sign in with, if any.
    """

    client_id: str
    scope: str
    audience: str | None
    organization_id: str | None


@dataclass(frozen=True)
class Granted(RequestedAccess):
    """The access that a user granted to a client.

    Attributes:
        auth_time: When the user signed in.
        family: An ID shared by the refresh tokens of one sign-in.
        nonce: The client's nonce, returned in the id_token.
    """

    user_id: str
    auth_time: float
    family: str = field(default_factory=new_secret)
    nonce: str | None = None

    @classmethod
    def of(cls, row: Row) -> Granted:
        """Return the grant that a code, a device request, or a refresh token stands for."""
        values = dict(row)
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})

    @property
    def scopes(self) -> list[str]:
        """Return the scopes as a list."""
        return self.scope.split()


def wanted_by(
    db: Connection, settings: ProviderSettings, client: KnownClient, sent: Mapping[str, str]
) -> RequestedAccess:
    """Return the access that a request asks for.

    Like Auth0, this ignores unknown scopes, and ``offline_access`` if the client may not use
    refresh tokens.

    Raises:
        OAuthError: The client may not use the audience, or the organization does not exist.
    """
    asked = sent.get("scope", "openid profile email").split()
    offline = Grant.REFRESH_TOKEN in client.grants
    scope = [name for name in USER_SCOPES if name in asked and (offline or name != _OFFLINE)]
    audience = sent.get("audience")
    if audience == settings.userinfo_audience:
        audience = None
    if audience is not None and audience not in client.audiences:
        raise OAuthError("access_denied", f"Service not found: {audience}")
    organization_id = _organization(db, sent.get("organization"))
    return RequestedAccess(client.client_id, " ".join(scope), audience, organization_id)


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


def _invalid(description: str, **about: str | bool) -> OAuthError:
    return OAuthError("invalid_grant", description, about=about)


def add_code(
    provider: LocalProvider,
    db: Connection,
    wanted: RequestedAccess,
    sent: Mapping[str, str],
    person: Row,
) -> str:
    """Create a code for a user who signed in; ``sent`` is the request, after all checks."""
    code = new_secret()
    row = {
        **asdict(wanted),
        "user_id": person["user_id"],
        "auth_time": person["auth_time"],
        "code_hash": hashed(code),
        "redirect_uri": sent["redirect_uri"],
        "nonce": sent.get("nonce"),
        "challenge": sent.get("code_challenge"),
        "family": new_secret(),
    }
    add_expiring(db, "codes", row, provider.knobs.code_seconds)
    return code


def redeem_code(
    _provider: LocalProvider, db: Connection, client: KnownClient, sent: Mapping[str, str]
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


def add_device_request(
    provider: LocalProvider, db: Connection, wanted: RequestedAccess
) -> tuple[str, str]:
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
    provider: LocalProvider, db: Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted:
    """Exchange a device code for the user's grant.

    Raises:
        OAuthError: That is not possible, or not yet, or the code is missing.
    """
    delete = "DELETE FROM device_requests WHERE device_hash = ?"
    device_hash = hashed(required(sent, "device_code"))
    row = _device_request(db, client, device_hash)
    if time.time() >= row["expires_at"]:
        # Like Auth0, report this once; from then on the code is unknown.
        db.execute(delete, (device_hash,))
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
    db.execute(delete, (device_hash,))
    return Granted.of(row)


def _device_request(db: Connection, client: KnownClient, device_hash: str) -> Row:
    row: Row | None = db.execute(
        "SELECT * FROM device_requests WHERE device_hash = ? AND client_id = ?",
        (device_hash, client.client_id),
    ).fetchone()
    if row is None:
        raise _invalid("Invalid or expired device code.")
    return row


def _tidy(typed: str) -> str:
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
        (_tidy(typed), time.time()),
    ).fetchone()
    return row


def decide(db: Connection, user_code: str, person: Row, *, approve: bool) -> bool:
    """Record a person's decision; return False if no request is pending."""
    status = "approved" if approve else "denied"
    done = db.execute(
        "UPDATE device_requests SET status = ?, user_id = ?, auth_time = ?"
        " WHERE user_code = ? AND status = 'pending'",
        (status, person["user_id"], person["auth_time"], user_code),
    )
    return done.rowcount == 1


def _too_fast(provider: LocalProvider, db: Connection, row: Row) -> bool:
    now, before, interval = time.time(), row["polled_at"], row["interval"]
    too_fast = before is not None and now - before < interval - _TOLERANCE
    if too_fast and provider.knobs.dialect is Dialect.RFC:
        interval += _SLOWER_SECONDS  # RFC 8628 section 3.5; Auth0 keeps the interval
    db.execute(
        "UPDATE device_requests SET polled_at = ?, interval = ? WHERE device_hash = ?",
        (now, interval, row["device_hash"]),
    )
    return too_fast


def _new_user_code() -> str:
    return _tidy("".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF)))


def redeem_refresh_token(
    provider: LocalProvider, db: Connection, client: KnownClient, sent: Mapping[str, str]
) -> Granted:
    """Exchange a refresh token for its grant: once, or again within the reuse period.

    Raises:
        OAuthError: That is not possible, the token is missing, or the scope exceeds the grant.
    """
    token_hash, now = hashed(required(sent, "refresh_token")), time.time()
    row = _refresh_token(db, client, token_hash)
    if row["revoked_at"] is not None or now >= row["expires_at"]:
        raise _invalid(_UNKNOWN_TOKEN, user=row["user_id"])
    if row["blocked"]:
        raise _invalid("user is blocked", user=row["user_id"])
    if row["used_at"] is not None and now - row["used_at"] >= provider.settings.reuse_seconds:
        # Two parties hold the token, and either one may be the thief.
        _revoke_family(db, row["family"])
        audit("refresh.reused", client=client.client_id, user=row["user_id"])
        raise _invalid(_UNKNOWN_TOKEN, user=row["user_id"], reused=True)
    granted = _narrowed(Granted.of(row), sent.get("scope"))
    db.execute(
        "UPDATE refresh_tokens SET used_at = coalesce(used_at, ?) WHERE token_hash = ?",
        (now, token_hash),
    )
    return granted


def _refresh_token(db: Connection, client: KnownClient, token_hash: str) -> Row:
    row: Row | None = db.execute(
        "SELECT t.*, u.blocked FROM refresh_tokens t JOIN users u USING (user_id)"
        " WHERE token_hash = ? AND client_id = ?",
        (token_hash, client.client_id),
    ).fetchone()
    if row is None:
        raise _invalid(_UNKNOWN_TOKEN)
    return row


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
    kept = [name for name in granted.scopes if name in wanted or name == _OFFLINE]
    return replace(granted, scope=" ".join(kept))


def token_answer(provider: LocalProvider, db: Connection, granted: Granted) -> dict[str, Any]:
    """Return the token endpoint's response; store its refresh token, if one was requested."""
    userinfo = provider.settings.userinfo_audience
    claims = {
        "sub": granted.user_id,
        "aud": [granted.audience, userinfo] if granted.audience else userinfo,
        "azp": granted.client_id,
        "scope": granted.scope,
        **_organization_claim(granted.organization_id),
    }
    answer = _answer(provider, db, claims)
    if "openid" in granted.scopes:
        answer["id_token"] = _id_token(provider, db, granted)
    if _OFFLINE in granted.scopes:
        answer["refresh_token"] = _add_refresh_token(provider, db, granted)
    return answer


def machine_answer(
    provider: LocalProvider, db: Connection, client_id: str, scope: str
) -> dict[str, Any]:
    """Return a token with which a client can use the Management API itself, without a user."""
    claims = {
        "sub": f"{client_id}@clients",
        "aud": provider.settings.management_audience,
        "azp": client_id,
        "gty": "client-credentials",
        "scope": scope,
    }
    return _answer(provider, db, claims)


def _answer(provider: LocalProvider, db: Connection, claims: dict[str, Any]) -> dict[str, Any]:
    seconds = provider.knobs.access_token_seconds
    return {
        "access_token": _signed(provider, db, claims, seconds),
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": claims["scope"],
    }


def _id_token(provider: LocalProvider, db: Connection, granted: Granted) -> str:
    claims = {
        **user_claims(db, granted.user_id, granted.scopes, granted.organization_id),
        "aud": provider.knobs.audience or granted.client_id,
        "auth_time": int(granted.auth_time),
    }
    if granted.nonce is not None:
        claims["nonce"] = granted.nonce
    return _signed(provider, db, claims, provider.knobs.id_token_seconds)


def user_claims(
    db: Connection, user_id: str, scopes: Sequence[str], organization_id: str | None
) -> dict[str, Any]:
    """Return the claims about a user that the granted scopes allow."""
    user = db.execute("SELECT * FROM users WHERE user_id = ?", (user_id,)).fetchone()
    claims: dict[str, Any] = {"sub": user_id, **_organization_claim(organization_id)}
    if "profile" in scopes:
        claims["name"] = user["name"]
        claims["nickname"] = user["email"].partition("@")[0]
        claims["updated_at"] = int(user["updated_at"])
    if "email" in scopes:
        claims["email"] = user["email"]
        claims["email_verified"] = bool(user["email_verified"])
    return claims


def checked_claims(
    provider: LocalProvider, db: Connection, token: str, audience: str
) -> dict[str, Any] | None:
    """Return the claims of our access_token for an audience; None if it is not valid."""
    registry = jwt.JWTClaimsRegistry(
        now=_now(provider),
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        azp={"essential": True},
    )
    try:
        claims = jwt.decode(token, published_keys(db), [ALGORITHM]).claims
        registry.validate(claims)
    except (JoseError, ValueError):
        return None
    return claims


def _now(provider: LocalProvider) -> int:
    return int(time.time() + provider.knobs.clock_offset)


def _organization_claim(organization_id: str | None) -> dict[str, str]:
    return {"org_id": organization_id} if organization_id else {}


def _signed(provider: LocalProvider, db: Connection, claims: dict[str, Any], seconds: int) -> str:
    now, issuer = _now(provider), provider.knobs.issuer or provider.issuer
    key, kid = signing_key(db), None
    if provider.knobs.signing is not Signing.RIGHT:
        kid = key.kid if provider.knobs.signing is Signing.WRONG_KEY else None
        key = _foreign_key()
    header = {"alg": ALGORITHM, "typ": "JWT", "kid": kid or key.kid}
    dated = {"iss": issuer, "iat": now, "exp": now + seconds, **claims}
    return jwt.encode(header, dated, key, [ALGORITHM])


@lru_cache(maxsize=1)
def _foreign_key() -> RSAKey:
    """Return a key that is never published."""
    return make_key()


def _add_refresh_token(provider: LocalProvider, db: Connection, granted: Granted) -> str:
    token = new_secret()
    row = {**asdict(granted), "token_hash": hashed(token), "made_at": time.time()}
    del row["nonce"]
    add_expiring(db, "refresh_tokens", row, provider.knobs.refresh_token_seconds)
    return token


def add_expiring(db: Connection, table: str, row: Mapping[str, object], seconds: float) -> None:
    """Add a row that is valid for some seconds; delete those that expired more than a day ago."""
    now = time.time()
    db.execute(f"DELETE FROM {table} WHERE expires_at < ?", (now - _KEPT_SECONDS,))  # noqa: S608 - names are ours
    insert(db, table, {**row, "expires_at": now + seconds})
