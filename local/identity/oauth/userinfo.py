"""The userinfo endpoint: the user that an access_token is about."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header

from local.identity.errors import OAuthError
from local.identity.provider import ProviderOf
from local.identity.tokens import Granted, checked_claims, user_claims

router = APIRouter()


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
            raise _refused("The user is not known any more, or blocked.")
        return user_claims(db, _granted(claims))


def _granted(claims: dict[str, Any]) -> Granted:
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
