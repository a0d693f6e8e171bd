"""Requests without sign-in, and the handling of paths, methods, slashes, and CORS."""

from __future__ import annotations

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, error, finding

_LOGIN = error("Login failure")
_BROKEN = {"content": b'{"samples": [', "headers": {"Content-Type": "application/json"}}
_PREFLIGHT = {"Origin": "http://localhost:8000", "Access-Control-Request-Method": "PUT"}

ASKS = [
    Ask(None, "GET", "/v2/health/", 200, {"healthy": True}),
    Ask(None, "GET", "/v2/docs", 200, lambda page: "swagger-ui" in page),
    Ask(None, "GET", "/v2/openapi.json", 200, lambda body: len(body["paths"]) > 0),
    Ask(None, "GET", "/v2/health", 307, lambda place: place.endswith("/v2/health/")),
    Ask("member", "GET", "/v2/users/me/", 307, lambda place: place.endswith("/v2/users/me")),
    Ask("member", "GET", "/v2/lineages/pango/", 307, lambda at: at.endswith("/pango")),
    Ask("member", "GET", "/v2/locations", 307, lambda place: place.startswith("http://")),
    Ask(None, "GET", "/v2/nothing", 404, {"detail": "Not Found"}),
    Ask("member", "GET", "/v2/usher/tree_versions/", 404, {"detail": "Not Found"}),
    Ask("member", "PATCH", "/v2/users/me", 405, {"detail": "Method Not Allowed"}),
    Ask("member", "DELETE", "/v2/groups/1/", 405, {"detail": "Method Not Allowed"}),
    Ask(None, "OPTIONS", "/v2/users/me", 200, options={"headers": _PREFLIGHT}),
    Ask(
        None,
        "OPTIONS",
        "/v2/users/me",
        400,
        "Disallowed CORS origin",
        options={"headers": {**_PREFLIGHT, "Origin": "https://example.org"}},
    ),
    # The order of checks: sign-in, membership or pathogen, syntax, body.
    Ask(
        None,
        "PUT",
        "/v2/users/me",
        401,
        _LOGIN,
        "A broken body from a user who is not signed in",
        options=_BROKEN,
    ),
    Ask("member", "PUT", "/v2/users/me", 422, finding("body"), options=_BROKEN),
    Ask(None, "PUT", "/v2/users/me", 401, _LOGIN, json={"agreed_to_tos": []}),
    Ask("nogroup", "POST", "/v2/orgs/1/auspice/generate", 403, json={"tree_id": []}),
    Ask("member", "POST", "/v2/orgs/1/pathogens/X/auspice/generate", 400, json={"tree_id": []}),
    Ask("member", "POST", "/v2/orgs/1/auspice/generate", 422, json={"tree_id": []}),
    Ask("member", "PUT", "/v2/users/me", 200, options={"content": b"{}"}),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        422,
        finding("body"),
        options={"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    ),
    Ask("member", "PUT", "/v2/users/me", 422, finding("body"), json=[]),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        422,
        finding("body"),
        differs="A body that is not valid UTF-8",
        options={"content": b"\xff", "headers": {"Content-Type": "application/json"}},
    ),
    *(Ask(who, "GET", "/v2/pathogens/", 200) for who in PRINCIPALS),
    *(
        Ask(None, method, path, 401, _LOGIN)
        for method, path in (
            ("GET", "/v2/users/me"),
            ("GET", "/v2/pathogens/"),
            ("GET", "/v2/locations/"),
            ("GET", "/v2/lineages/pango"),
            ("GET", "/v2/groups/1/"),
            ("GET", "/v2/groups/x/"),
            ("GET", "/v2/groups/1/members/"),
            ("GET", "/v2/groups/1/invitations/"),
            ("GET", "/v2/orgs/1/usher/tree_versions/"),
            ("GET", "/v2/orgs/x/usher/tree_versions/"),
            ("POST", "/v2/users/"),
            ("POST", "/v2/groups/"),
            ("POST", "/v2/groups/1/invitations/"),
            ("POST", "/v2/locations/search/"),
            ("POST", "/v2/orgs/1/auspice/generate"),
        )
    ),
]
