"""Token revocation (RFC 7009)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from local.identity.audit import audit
from local.identity.errors import OAuthError
from local.identity.oauth import refresh
from local.identity.oauth.clients import authenticate
from local.identity.oauth.parameters import Parameters, required
from local.identity.provider import ProviderOf

router = APIRouter()


@router.post("/oauth/revoke")
def revoke(
    provider: ProviderOf,
    parameters: Parameters,
    authorization: Annotated[str | None, Header()] = None,
) -> Response:
    """End a refresh token; 200 also for one that is unknown, since then there is none."""
    token = required(parameters, "token")
    if parameters.get("token_type_hint") == "access_token":
        raise OAuthError(
            "unsupported_token_type", "Only refresh tokens can be revoked; others expire."
        )
    with provider.database.writing() as db:
        client = authenticate(db, parameters, authorization)
        user_id = refresh.revoke(db, client, token, provider.now())
    audit("token.revoked", client=client.client_id, user=user_id, found=user_id is not None)
    return Response()
