"""The creation and verification of tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from sqlite3 import Connection, Row
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from aspen.local.auth0.settings import Signing, hashed, new_secret
from aspen.local.auth0.store import (
    ALGORITHM,
    Provider,
    insert,
    make_key,
    published_keys,
    signing_key,
)

OFFLINE = "offline_access"
USER_SCOPES = ("openid", "profile", "email", OFFLINE)
_KEPT_SECONDS = 86_400


@dataclass(frozen=True)
class Wanted:
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
class Granted(Wanted):
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


def token_answer(provider: Provider, db: Connection, granted: Granted) -> dict[str, Any]:
    """Return the token endpoint's response; store its refresh token, if one was requested."""
    userinfo = provider.settings.userinfo_audience
    claims = {
        "sub": granted.user_id,
        "aud": [granted.audience, userinfo] if granted.audience else userinfo,
        "azp": granted.client_id,
        "scope": granted.scope,
        **_organization(granted.organization_id),
    }
    answer = _answer(provider, db, claims)
    if "openid" in granted.scopes:
        answer["id_token"] = _id_token(provider, db, granted)
    if OFFLINE in granted.scopes:
        answer["refresh_token"] = _add_refresh_token(provider, db, granted)
    return answer


def machine_answer(
    provider: Provider, db: Connection, client_id: str, scope: str
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


def _answer(provider: Provider, db: Connection, claims: dict[str, Any]) -> dict[str, Any]:
    seconds = provider.knobs.access_token_seconds
    return {
        "access_token": _signed(provider, db, claims, seconds),
        "token_type": "Bearer",
        "expires_in": seconds,
        "scope": claims["scope"],
    }


def _id_token(provider: Provider, db: Connection, granted: Granted) -> str:
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
    claims: dict[str, Any] = {"sub": user_id, **_organization(organization_id)}
    if "profile" in scopes:
        claims["name"] = user["name"]
        claims["nickname"] = user["email"].partition("@")[0]
        claims["updated_at"] = int(user["updated_at"])
    if "email" in scopes:
        claims["email"] = user["email"]
        claims["email_verified"] = bool(user["email_verified"])
    return claims


def checked_claims(
    provider: Provider, db: Connection, token: str, audience: str
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


def _now(provider: Provider) -> int:
    return int(time.time() + provider.knobs.clock_offset)


def _organization(organization_id: str | None) -> dict[str, str]:
    return {"org_id": organization_id} if organization_id else {}


def _signed(provider: Provider, db: Connection, claims: dict[str, Any], seconds: int) -> str:
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


def _add_refresh_token(provider: Provider, db: Connection, granted: Granted) -> str:
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
