"""The token endpoint, which exchanges grants for tokens."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from local.identity.audit import audit
from local.identity.errors import OAuthError
from local.identity.oauth import codes, device, refresh
from local.identity.oauth.clients import KnownClient, authenticate
from local.identity.oauth.parameters import Parameters, required
from local.identity.oauth.requests import is_member
from local.identity.provider import Provider, ProviderOf
from local.identity.seeds import Grant
from local.identity.tokens import Granted, machine_token, token_answer

router = APIRouter()

_Redeem = Callable[
    [Provider, sqlite3.Connection, KnownClient, Mapping[str, str]], Granted | OAuthError
]
_BY_USER: dict[Grant, _Redeem] = {
    Grant.AUTHORIZATION_CODE: codes.redeem,
    Grant.DEVICE_CODE: device.redeem,
    Grant.REFRESH_TOKEN: refresh.exchange,
}


@dataclass(frozen=True)
class _Answer:
    """The response, and the user that it is about."""

    body: dict[str, Any]
    user_id: str | None


@router.post("/oauth/token")
def token(
    provider: ProviderOf,
    response: Response,
    parameters: Parameters,
    authorization: Annotated[str | None, Header()] = None,
) -> dict[str, Any]:
    """Exchange what a client holds for tokens."""
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
