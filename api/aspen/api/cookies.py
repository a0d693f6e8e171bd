"""The session cookie: signed but not encrypted, in Flask's format."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from aspen.api.settings import Settings

COOKIE = "session"
LIFETIME = timedelta(days=14)


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        settings.flask_secret.get_secret_value(),
        salt="cookie-session",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha1},
    )


def read_session(request: Request, settings: Settings) -> dict[str, Any]:
    """Return the contents of the cookie; empty if it is missing, expired, or invalid."""
    signed = request.cookies.get(COOKIE)
    if not signed:
        return {}
    try:
        session = _serializer(settings).loads(signed, max_age=int(LIFETIME.total_seconds()))
    except BadData:
        return {}
    return session if isinstance(session, dict) else {}


def write_session(response: Response, settings: Settings, session: dict[str, Any]) -> None:
    """Set the cookie, or delete it if the session is empty."""
    secure = settings.api_url.startswith("https://")
    if not session:
        response.delete_cookie(COOKIE, httponly=True, secure=secure, samesite="lax")
        return
    response.set_cookie(
        COOKIE,
        _serializer(settings).dumps(session),
        max_age=int(LIFETIME.total_seconds()),
        httponly=True,
        secure=secure,
        samesite="lax",
    )


def account_of(session: dict[str, Any]) -> str | None:
    """Return the session user's account ID at the identity provider, if any."""
    profile = session.get("profile")
    account = profile.get("user_id") if isinstance(profile, dict) else None
    return account if isinstance(account, str) else None
