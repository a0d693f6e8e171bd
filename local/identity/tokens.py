"""The tokens that are handed out, and the check of those that come back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from local.identity.hashing import hashed, new_secret
from local.identity.keys import ALGORITHM, make_key, published_keys, signing_key
from local.identity.provider import Provider
from local.identity.trial import Signing

OFFLINE = "offline_access"
_KEPT_SECONDS = 86_400
USER_SCOPES = ("openid", "profile", "email", OFFLINE)


@dataclass(frozen=True)
class Granted:
    """What a user allowed a client.

    Attributes:
        client_id: The client.
        user_id: The user.
        organization_id: The organization that they signed in with, if any.
        scope: What was asked for and allowed, separated by spaces.
        audience: The API that the access_token is for; None for ``/userinfo`` only.
        auth_time: When the user signed in.
        family: What the refresh tokens of one sign-in share.
        nonce: The client's own mark, returned in the id_token.
    """

    client_id: str
    user_id: str
    organization_id: str | None
    scope: str
    audience: str | None
    auth_time: float
    family: str
    nonce: str | None = None

    @property
    def scopes(self) -> list[str]:
        """The scope as a list."""
        return self.scope.split()


def token_answer(provider: Provider, db: sqlite3.Connection, granted: Granted) -> dict[str, Any]:
    """What the token endpoint answers; a refresh token, if one was asked for, is noted."""
    answer: dict[str, Any] = {
        "access_token": access_token(provider, db, granted),
        "token_type": "Bearer",
        "expires_in": provider.knobs.access_token_seconds,
        "scope": granted.scope,
    }
    if "openid" in granted.scopes:
        answer["id_token"] = id_token(provider, db, granted)
    if OFFLINE in granted.scopes:
        answer["refresh_token"] = _add_refresh_token(provider, db, granted)
    return answer


def id_token(provider: Provider, db: sqlite3.Connection, granted: Granted) -> str:
    """Who the user is, for the client that asked."""
    claims = {
        **user_claims(db, granted),
        **_common_claims(provider, provider.knobs.id_token_seconds),
        "aud": provider.knobs.audience or granted.client_id,
        "auth_time": int(granted.auth_time),
    }
    if granted.nonce is not None:
        claims["nonce"] = granted.nonce
    return _signed(provider, db, claims)


def access_token(provider: Provider, db: sqlite3.Connection, granted: Granted) -> str:
    """What opens ``/userinfo``, and the API that was asked for."""
    userinfo = provider.settings.userinfo_audience
    claims = {
        **_common_claims(provider, provider.knobs.access_token_seconds),
        "sub": granted.user_id,
        "aud": [granted.audience, userinfo] if granted.audience else userinfo,
        "azp": granted.client_id,
        "scope": granted.scope,
        **_organization(granted),
    }
    return _signed(provider, db, claims)


def machine_token(
    provider: Provider, db: sqlite3.Connection, client_id: str, audience: str, scope: str
) -> str:
    """What opens an API to a client itself, with no user."""
    claims = {
        **_common_claims(provider, provider.knobs.access_token_seconds),
        "sub": f"{client_id}@clients",
        "aud": audience,
        "azp": client_id,
        "gty": "client-credentials",
        "scope": scope,
    }
    return _signed(provider, db, claims)


def user_claims(db: sqlite3.Connection, granted: Granted) -> dict[str, Any]:
    """What is told of the user: as much as was allowed."""
    user = db.execute("SELECT * FROM users WHERE user_id = ?", (granted.user_id,)).fetchone()
    claims: dict[str, Any] = {"sub": granted.user_id, **_organization(granted)}
    if "profile" in granted.scopes:
        claims["name"] = user["name"]
        claims["nickname"] = user["email"].partition("@")[0]
        claims["updated_at"] = int(user["updated_at"])
    if "email" in granted.scopes:
        claims["email"] = user["email"]
        claims["email_verified"] = bool(user["email_verified"])
    return claims


def checked_claims(
    provider: Provider, db: sqlite3.Connection, token: str, audience: str
) -> dict[str, Any] | None:
    """The claims of an access_token of ours for an audience; None where it is not valid now."""
    now = provider.now() + provider.knobs.clock_offset
    registry = jwt.JWTClaimsRegistry(
        now=int(now),
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        azp={"essential": True},
    )
    try:
        claims = jwt.decode(token, published_keys(db, provider.now()), [ALGORITHM]).claims
        registry.validate(claims)
    except (JoseError, ValueError):
        return None
    return claims


def _common_claims(provider: Provider, seconds: int) -> dict[str, Any]:
    now = int(provider.now() + provider.knobs.clock_offset)
    return {"iss": provider.knobs.issuer or provider.issuer, "iat": now, "exp": now + seconds}


def _organization(granted: Granted) -> dict[str, str]:
    return {"org_id": granted.organization_id} if granted.organization_id else {}


def _signed(provider: Provider, db: sqlite3.Connection, claims: dict[str, Any]) -> str:
    key, kid = signing_key(db), None
    if provider.knobs.signing is not Signing.RIGHT:
        kid = key.kid if provider.knobs.signing is Signing.WRONG_KEY else None
        key = _foreign_key()
    header = {"alg": ALGORITHM, "typ": "JWT", "kid": kid or key.kid}
    return jwt.encode(header, claims, key, [ALGORITHM])


@lru_cache(maxsize=1)
def _foreign_key() -> RSAKey:
    """A key that is never published."""
    return make_key()


def _add_refresh_token(provider: Provider, db: sqlite3.Connection, granted: Granted) -> str:
    token, now = new_secret(), provider.now()
    db.execute("DELETE FROM refresh_tokens WHERE expires_at < ?", (now - _KEPT_SECONDS,))
    db.execute(
        "INSERT INTO refresh_tokens (token_hash, family, client_id, user_id, organization_id,"
        " scope, audience, auth_time, made_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            hashed(token),
            granted.family,
            granted.client_id,
            granted.user_id,
            granted.organization_id,
            granted.scope,
            granted.audience,
            granted.auth_time,
            now,
            now + provider.knobs.refresh_token_seconds,
        ),
    )
    return token
