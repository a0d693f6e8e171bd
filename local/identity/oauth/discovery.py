"""Discovery: the endpoints and keys that clients look up."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from local.identity.keys import ALGORITHM, public_documents
from local.identity.provider import ProviderOf
from local.identity.seeds import Grant
from local.identity.tokens import USER_SCOPES

router = APIRouter()


@router.get("/.well-known/openid-configuration")
def discovery(provider: ProviderOf) -> dict[str, Any]:
    """The provider's metadata (OpenID Connect Discovery, RFC 8414)."""
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
    """The public halves of the keys that tokens may be signed with."""
    response.headers["Cache-Control"] = "public, max-age=15"
    now = provider.now()
    with provider.database.reading() as db:
        return {"keys": public_documents(db, now)}
