"""The creation and verification of tokens."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from aspen.local.auth0.keys import ALGORITHM, make_key, published_keys, signing_key
from aspen.local.auth0.settings import Signing, hashed, new_secret
from aspen.local.auth0.store import Provider

OFFLINE = "offline_access"
USER_SCOPES = ("openid", "profile", "email", OFFLINE)
KEPT_SECONDS = 86_400
"""The time that expired codes and tokens are kept before they are deleted."""


@dataclass(frozen=True)
class Granted:
    """The access that a user granted to a client.

    Attributes:
        client_id: The client's ID.
        user_id: The user's ID.
        organization_id: The organization that the user signed in with, if any.
        scope: The granted scopes, separated by spaces.
        audience: The API that the access_token is for; None for ``/userinfo`` only.
        auth_time: When the user signed in.
        family: An ID shared by the refresh tokens of one sign-in.
        nonce: The client's nonce, returned in the id_token.
    """

    client_id: str
    user_id: str
    organization_id: str | None
    scope: str
    audience: str | None
    auth_time: float
    family: str
    nonce: str | None = None

    @classmethod
    def of(cls, row: sqlite3.Row, family: str, nonce: str | None = None) -> Granted:
        """Return the grant that a code, a device request, or a refresh token stands for."""
        names = ("client_id", "user_id", "organization_id", "scope", "audience", "auth_time")
        return cls(**{name: row[name] for name in names}, family=family, nonce=nonce)

    @property
    def scopes(self) -> list[str]:
        """Return the scopes as a list."""
        return self.scope.split()


def token_answer(provider: Provider, db: sqlite3.Connection, granted: Granted) -> dict[str, Any]:
    """Return the token endpoint's response; store its refresh token, if one was requested."""
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
    """Return an ID token, which identifies the user to the client."""
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
    """Return a token for ``/userinfo`` and the requested API."""
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
    """Return a token with which a client can use an API itself, without a user."""
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
    """Return the claims about the user that the granted scopes allow."""
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
    """Return the claims of our access_token for an audience; None if it is not valid."""
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
    """Return a key that is never published."""
    return make_key()


def _add_refresh_token(provider: Provider, db: sqlite3.Connection, granted: Granted) -> str:
    token, now = new_secret(), provider.now()
    db.execute("DELETE FROM refresh_tokens WHERE expires_at < ?", (now - KEPT_SECONDS,))
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
