"""Validation of what a client requests from a user: scope, audience, and organization."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from local.identity.errors import OAuthError
from local.identity.oauth.clients import KnownClient
from local.identity.seeds import Grant
from local.identity.settings import Settings
from local.identity.tokens import OFFLINE, USER_SCOPES


@dataclass(frozen=True)
class Wanted:
    """The requested access.

    Attributes:
        scope: The requested scopes that exist, separated by spaces.
        audience: The API; None for ``/userinfo`` only.
        organization_id: The organization to sign in with, if any.
    """

    scope: str
    audience: str | None
    organization_id: str | None


def wanted_by(
    db: sqlite3.Connection, settings: Settings, client: KnownClient, sent: Mapping[str, str]
) -> Wanted:
    """Return the access that a request asks for.

    Like Auth0, this ignores unknown scopes, and ``offline_access`` if the client may not use
    refresh tokens.

    Raises:
        OAuthError: The client may not use the audience, or the organization does not exist.
    """
    asked = sent.get("scope", "openid profile email").split()
    offline = Grant.REFRESH_TOKEN in client.grants
    scope = [name for name in USER_SCOPES if name in asked and (offline or name != OFFLINE)]
    audience = sent.get("audience")
    if audience == settings.userinfo_audience:
        audience = None
    if audience is not None and audience not in client.audiences:
        raise OAuthError("access_denied", f"Service not found: {audience}")
    return Wanted(" ".join(scope), audience, _organization(db, sent.get("organization")))


def is_member(db: sqlite3.Connection, organization_id: str, user_id: str) -> bool:
    """Return True if a user belongs to an organization."""
    return bool(
        db.execute(
            "SELECT 1 FROM members WHERE organization_id = ? AND user_id = ?",
            (organization_id, user_id),
        ).fetchone()
    )


def _organization(db: sqlite3.Connection, named: str | None) -> str | None:
    if named is None:
        return None
    found = db.execute(
        "SELECT id FROM organizations WHERE id = ? OR name = ?", (named, named)
    ).fetchone()
    if found is None:
        raise OAuthError(
            "invalid_request", f"parameter organization is invalid: no organization {named}"
        )
    return str(found["id"])
