"""Authorization for the Management API, by the scopes in the caller's token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request

from local.identity.management.errors import ManagementError
from local.identity.provider import ProviderOf
from local.identity.tokens import checked_claims


def needs(*scopes: str) -> Any:
    """Return a route dependency that requires a token with at least one of the scopes.

    Args:
        scopes: Scopes such as ``read:users``.
    """

    def check(
        request: Request,
        provider: ProviderOf,
        authorization: Annotated[str | None, Header()] = None,
    ) -> None:
        claims = _claims(provider, authorization)
        request.state.client_id = claims["azp"]
        if not set(scopes) & set(str(claims.get("scope", "")).split()):
            raise ManagementError(
                403,
                f"Insufficient scope, expected any of: {','.join(scopes)}",
                "insufficient_scope",
            )

    return Depends(check)


def _claims(provider: ProviderOf, authorization: str | None) -> dict[str, Any]:
    scheme, _, token = (authorization or "").partition(" ")
    if not token:
        raise ManagementError(401, "Missing authentication")
    if scheme.lower() != "bearer":
        raise ManagementError(
            400, "Bad HTTP authentication header format", "invalid_authorization_header"
        )
    with provider.database.reading() as db:
        audience = provider.settings.management_audience
        claims = checked_claims(provider, db, token.strip(), audience)
    if claims is None:
        error = ManagementError(401, "Invalid token")
        error.body["attributes"] = {"error": "Invalid token"}
        raise error
    return claims
