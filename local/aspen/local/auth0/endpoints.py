"""The endpoints of OpenID Connect that programs call: discovery, tokens, revocation, userinfo.

A refresh token can be exchanged once; late reuse revokes all tokens of its sign-in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from aspen.local.auth0 import codes, device
from aspen.local.auth0.clients import KnownClient, Parameters, authenticate, required
from aspen.local.auth0.codes import is_member
from aspen.local.auth0.errors import OAuthError
from aspen.local.auth0.keys import ALGORITHM, public_documents
from aspen.local.auth0.refresh import exchange, revoke
from aspen.local.auth0.settings import audit
from aspen.local.auth0.store import Grant, Provider, ProviderOf
from aspen.local.auth0.tokens import (
    USER_SCOPES,
    Granted,
    checked_claims,
    machine_token,
    token_answer,
    user_claims,
)

router = APIRouter()

_Redeem = Callable[
    [Provider, sqlite3.Connection, KnownClient, Mapping[str, str]], Granted | OAuthError
]
_BY_USER: dict[Grant, _Redeem] = {
    Grant.AUTHORIZATION_CODE: codes.redeem,
    Grant.DEVICE_CODE: device.redeem,
    Grant.REFRESH_TOKEN: exchange,
}


@dataclass(frozen=True)
class _Answer:
    """The response, and the user that it is about."""

    body: dict[str, Any]
    user_id: str | None


@router.get("/.well-known/openid-configuration")
def discovery(provider: ProviderOf) -> dict[str, Any]:
    """Return the provider's metadata (OpenID Connect Discovery, RFC 8414)."""
    issuer = provider.issuer
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}authorize",
        "token_endpoint": f"{issuer}oauth/token",
        "device_authorization_endpoint": f"{issuer}oauth/device/code",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        "scopes_supported": list(USER_SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [str(grant) for grant in Grant],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "none",
        ],
        "claims_supported": [
            *("aud", "auth_time", "email", "email_verified", "exp", "iat", "iss", "name"),
            *("nickname", "org_id", "sub", "updated_at"),
        ],
        "request_uri_parameter_supported": False,
        "request_parameter_supported": False,
    }


@router.get("/.well-known/jwks.json")
def keys(provider: ProviderOf, response: Response) -> dict[str, Any]:
    """Return the public keys for verifying tokens."""
    response.headers["Cache-Control"] = "public, max-age=15"
    now = provider.now()
    with provider.database.reading() as db:
        return {"keys": public_documents(db, now)}


@router.post("/oauth/token")
def token(
    provider: ProviderOf,
    response: Response,
    parameters: Parameters,
    authorization: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Exchange a grant for tokens."""
    grant = _grant(required(parameters, "grant_type"))
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        client.require(grant)
        outcome = _outcome(provider, db, client, grant, parameters)
    # A refusal may change state as well, so raise it only after the transaction commits.
    if isinstance(outcome, OAuthError):
        outcome.about = {"client": client.client_id, "grant": grant}
        raise outcome
    audit(
        "token.issued",
        client=client.client_id,
        grant=grant,
        user=outcome.user_id,
        scope=outcome.body["scope"],
    )
    response.headers["Cache-Control"] = "no-store"
    return outcome.body


def _outcome(
    provider: Provider,
    db: sqlite3.Connection,
    client: KnownClient,
    grant: Grant,
    sent: Mapping[str, str],
) -> _Answer | OAuthError:
    if grant is Grant.CLIENT_CREDENTIALS:
        return _Answer(_for_machine(provider, db, client, sent), None)
    granted = _BY_USER[grant](provider, db, client, sent)
    if isinstance(granted, OAuthError):
        return granted
    return _problem(db, granted) or _Answer(token_answer(provider, db, granted), granted.user_id)


def _problem(db: sqlite3.Connection, granted: Granted) -> OAuthError | None:
    """Return an error if the user is blocked or no longer a member of the organization."""
    user_id, organization_id = granted.user_id, granted.organization_id
    if db.execute("SELECT blocked FROM users WHERE user_id = ?", (user_id,)).fetchone()["blocked"]:
        return OAuthError("access_denied", "user is blocked")
    if organization_id is not None and not is_member(db, organization_id, user_id):
        return OAuthError(
            "access_denied", f"user {user_id} is not part of the {organization_id} organization"
        )
    return None


def _grant(named: str) -> Grant:
    try:
        return Grant(named)
    except ValueError as error:
        raise OAuthError("unsupported_grant_type", f"Unsupported grant type: {named}") from error


def _for_machine(
    provider: Provider,
    db: sqlite3.Connection,
    client: KnownClient,
    sent: Mapping[str, str],
) -> dict[str, Any]:
    audience = required(sent, "audience")
    if _plain(audience) != _plain(provider.settings.management_audience):
        raise OAuthError("access_denied", f"Service not enabled within domain: {audience}")
    if not client.management_scopes or not client.authenticated:
        raise OAuthError(
            "access_denied",
            f'Client is not authorized to access "{audience}". You need to create a'
            ' "client-grant" associated to this API.',
        )
    asked = sent.get("scope")
    allowed = client.management_scopes
    scope = [s for s in asked.split() if s in allowed] if asked else allowed
    return {
        "access_token": machine_token(
            provider, db, client.client_id, provider.settings.management_audience, " ".join(scope)
        ),
        "token_type": "Bearer",
        "expires_in": provider.knobs.access_token_seconds,
        "scope": " ".join(scope),
    }


def _plain(audience: str) -> str:
    """Return an audience without its scheme, which code written for Auth0 assumes to be https."""
    return audience.partition("://")[2].rstrip("/")


@router.post("/oauth/revoke")
def revoke_token(
    provider: ProviderOf,
    parameters: Parameters,
    authorization: Annotated[str | None, Header()] = None,
) -> Response:
    """Revoke a refresh token; an unknown one also returns 200 (RFC 7009 section 2.2)."""
    token = required(parameters, "token")
    if parameters.get("token_type_hint") == "access_token":
        raise OAuthError(
            "unsupported_token_type", "Only refresh tokens can be revoked; other tokens expire."
        )
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        user_id = revoke(db, client, token, provider.now())
    audit("token.revoked", client=client.client_id, user=user_id, found=user_id is not None)
    return Response()


@router.api_route("/userinfo", methods=["GET", "POST"])
def userinfo(
    provider: ProviderOf, authorization: Annotated[str | None, Header()] = None
) -> dict[str, Any]:
    """Return the claims that the token's user allowed."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refused("The access_token is missing.")
    with provider.database.reading() as db:
        claims = checked_claims(provider, db, token.strip(), provider.settings.userinfo_audience)
        if claims is None:
            raise _refused("The access_token is not valid.")
        known = db.execute(
            "SELECT 1 FROM users WHERE user_id = ? AND NOT blocked", (claims["sub"],)
        ).fetchone()
        if not known:
            raise _refused("The user no longer exists or is blocked.")
        return user_claims(db, _granted_by_claims(claims))


def _granted_by_claims(claims: dict[str, Any]) -> Granted:
    return Granted(
        client_id=claims["azp"],
        user_id=claims["sub"],
        organization_id=claims.get("org_id"),
        scope=claims["scope"],
        audience=None,
        auth_time=0,
        family="",
    )


def _refused(description: str) -> OAuthError:
    return OAuthError(
        "invalid_token", description, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    )
