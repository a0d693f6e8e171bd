"""The endpoints of OpenID Connect that programs call: discovery, tokens, revocation, userinfo.

A refresh token can be exchanged once; late reuse revokes all tokens of its sign-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from sqlite3 import Connection
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Response

from aspen.local.auth0 import tokens
from aspen.local.auth0.audit import audit
from aspen.local.auth0.clients import (
    Authorization,
    KnownClient,
    OAuthError,
    Parameters,
    authenticate,
    required,
)
from aspen.local.auth0.store import ALGORITHM, Grant, LocalProvider, ProviderOf, published_keys

router = APIRouter()

_REDEEM = {
    Grant.AUTHORIZATION_CODE: tokens.redeem_code,
    Grant.DEVICE_CODE: tokens.redeem_device_code,
    Grant.REFRESH_TOKEN: tokens.redeem_refresh_token,
}
_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
_CLAIMS = (
    *("aud", "auth_time", "email", "email_verified", "exp", "iat", "iss", "name"),
    *("nickname", "org_id", "sub", "updated_at"),
)


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
        "scopes_supported": list(tokens.USER_SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [str(grant) for grant in Grant],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": list(_AUTH_METHODS),
        "claims_supported": list(_CLAIMS),
        "request_uri_parameter_supported": False,
        "request_parameter_supported": False,
    }


@router.get("/.well-known/jwks.json")
def keys(provider: ProviderOf, response: Response) -> dict[str, Any]:
    """Return the public keys for verifying tokens."""
    response.headers["Cache-Control"] = "public, max-age=15"
    with provider.database.reading() as db:
        return dict(published_keys(db).as_dict(private=False))


@router.post("/oauth/device/code")
def begin_device_grant(
    provider: ProviderOf, parameters: Parameters, authorization: Authorization = None
) -> dict[str, Any]:
    """Issue a device code for a program, and a code that its user enters (RFC 8628)."""
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        client.require(Grant.DEVICE_CODE)
        wanted = tokens.wanted_by(db, provider.settings, client, parameters)
        device_code, user_code = tokens.add_device_request(provider, db, wanted)
    audit("device.requested", client=client.client_id, scope=wanted.scope)
    address = f"{provider.issuer}activate"
    answer: dict[str, Any] = {
        "device_code": device_code,
        "user_code": user_code,
        "verification_uri": address,
        "verification_uri_complete": f"{address}?{urlencode({'user_code': user_code})}",
        "expires_in": int(provider.knobs.device_seconds),
    }
    if not provider.knobs.omit_interval:
        interval = provider.knobs.interval
        answer["interval"] = int(interval) if interval == int(interval) else interval
    return answer


@router.post("/oauth/token")
def token(
    provider: ProviderOf,
    response: Response,
    parameters: Parameters,
    authorization: Authorization = None,
) -> dict[str, Any]:
    """Exchange a grant for tokens."""
    grant = _grant(required(parameters, "grant_type"))
    refusal = None
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        try:
            client.require(grant)
            answer, user_id = _answer(provider, db, client, grant, parameters)
        except OAuthError as error:
            refusal = error
    # A refusal may change state as well, so raise it only after the transaction commits.
    if refusal:
        refusal.about |= {"client": client.client_id, "grant": grant}
        raise refusal
    scope = answer["scope"]
    audit("token.issued", client=client.client_id, grant=grant, user=user_id, scope=scope)
    response.headers["Cache-Control"] = "no-store"
    return answer


def _answer(
    provider: LocalProvider,
    db: Connection,
    client: KnownClient,
    grant: Grant,
    sent: Mapping[str, str],
) -> tuple[dict[str, Any], str | None]:
    """Return the response, and the user that it is about."""
    if grant is Grant.CLIENT_CREDENTIALS:
        scope = _machine_scope(provider, client, sent)
        return tokens.machine_answer(provider, db, client.client_id, scope), None
    granted = _REDEEM[grant](provider, db, client, sent)
    _check_user(db, granted)
    return tokens.token_answer(provider, db, granted), granted.user_id


def _check_user(db: Connection, granted: tokens.Granted) -> None:
    """Check that the user is not blocked, and still a member of the organization."""
    user_id, organization_id = granted.user_id, granted.organization_id
    if db.execute("SELECT blocked FROM users WHERE user_id = ?", (user_id,)).fetchone()["blocked"]:
        raise OAuthError("access_denied", "user is blocked", about={"user": user_id})
    if not tokens.is_member(db, organization_id, user_id):
        why = f"user {user_id} is not part of the {organization_id} organization"
        raise OAuthError("access_denied", why, about={"user": user_id})


def _grant(named: str) -> Grant:
    try:
        return Grant(named)
    except ValueError as error:
        raise OAuthError("unsupported_grant_type", f"Unsupported grant type: {named}") from error


def _machine_scope(provider: LocalProvider, client: KnownClient, sent: Mapping[str, str]) -> str:
    """Return the requested scopes of the Management API that the client may use itself."""
    audience, allowed = required(sent, "audience"), client.management_scopes
    if _plain(audience) != _plain(provider.settings.management_audience):
        raise OAuthError("access_denied", f"Service not enabled within domain: {audience}")
    if not allowed or not client.authenticated:
        raise OAuthError(
            "access_denied",
            f'Client is not authorized to access "{audience}". You need to create a'
            ' "client-grant" associated to this API.',
        )
    asked = sent["scope"].split() if "scope" in sent else allowed
    return " ".join(scope for scope in asked if scope in allowed)


def _plain(audience: str) -> str:
    """Return an audience without its scheme, which code written for Auth0 assumes to be https."""
    return audience.partition("://")[2].rstrip("/")


@router.post("/oauth/revoke")
def revoke_token(
    provider: ProviderOf, parameters: Parameters, authorization: Authorization = None
) -> Response:
    """Revoke a refresh token; an unknown one also returns 200 (RFC 7009 section 2.2)."""
    token = required(parameters, "token")
    if parameters.get("token_type_hint") == "access_token":
        raise OAuthError(
            "unsupported_token_type", "Only refresh tokens can be revoked; other tokens expire."
        )
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        user_id = tokens.revoke(db, client, token)
    audit("token.revoked", client=client.client_id, user=user_id, found=user_id is not None)
    return Response()


@router.api_route("/userinfo", methods=["GET", "POST"])
def userinfo(provider: ProviderOf, authorization: Authorization = None) -> dict[str, Any]:
    """Return the claims that the token's user allowed."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _refused("The access_token is missing.")
    with provider.database.reading() as db:
        claims = tokens.checked_claims(
            provider, db, token.strip(), provider.settings.userinfo_audience
        )
        if claims is None:
            raise _refused("The access_token is not valid.")
        known = db.execute(
            "SELECT 1 FROM users WHERE user_id = ? AND NOT blocked", (claims["sub"],)
        ).fetchone()
        if not known:
            raise _refused("The user no longer exists or is blocked.")
        return tokens.user_claims(db, claims["sub"], claims["scope"].split(), claims.get("org_id"))


def _refused(description: str) -> OAuthError:
    return OAuthError(
        "invalid_token", description, 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    )
