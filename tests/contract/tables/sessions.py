"""Signing in and out with a browser."""

from __future__ import annotations

from tests.contract.asking import Ask, error, finding

_INVALID = error("Invalid token")

ASKS = [
    Ask(None, "GET", "/v2/auth/login", 302, lambda place: "response_type=code" in place),
    Ask(
        None,
        "GET",
        "/v2/auth/login?organization=o&invitation=i&organization_name=n",
        302,
        lambda place: "organization=o" in place and "invitation=i" in place,
    ),
    Ask(None, "GET", "/v2/auth/logout", 307, lambda place: "/v2/logout?" in place),
    Ask(None, "GET", "/v2/auth/callback", 403, lambda body: body.items() >= _INVALID.items()),
    Ask(None, "GET", "/v2/auth/callback?code=x&state=y", 403),
    Ask(None, "GET", "/v2/auth/callback?error_description=denied", 403),
    Ask(None, "GET", "/v2/auth/process_invitation?organization=o&invitation=i", 401),
    Ask("member", "GET", "/v2/auth/process_invitation", 422, finding("query", "organization")),
    Ask(
        "member",
        "GET",
        "/v2/auth/process_invitation?organization=o&invitation=i",
        400,
        error("Not found"),
    ),
]
