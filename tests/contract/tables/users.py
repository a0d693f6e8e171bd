"""The signed-in user, and new users."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, begins, error, finding, keys

_ME = (
    *("id", "name", "agreed_to_tos", "acknowledged_policy_version", "split_id", "analytics_id"),
    *("gisaid_submitter_id", "groups"),
)
_NEW: dict[str, Any] = {
    "name": "Nell New",
    "email": "nell@example.org",
    "group_id": 1,
    "auth0_user_id": "auth0|nell",
}


def _told(**fields: Any) -> object:
    return lambda body: fields.items() <= body.items()


def _without(field: str) -> dict[str, Any]:
    return {name: value for name, value in _NEW.items() if name != field}


ASKS = [
    *(Ask(who, "GET", "/v2/users/me", 200, keys(*_ME)) for who in PRINCIPALS),
    Ask("member", "PUT", "/v2/users/me", 200, keys(*_ME), json={}),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        200,
        _told(agreed_to_tos=False),
        json={"agreed_to_tos": "no"},
    ),
    Ask("member", "PUT", "/v2/users/me", 200, _told(agreed_to_tos=True), json={"agreed_to_tos": 1}),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        200,
        _told(agreed_to_tos=True),
        json={"agreed_to_tos": None},
    ),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        200,
        _told(acknowledged_policy_version="1970-01-01"),
        json={"acknowledged_policy_version": 0},
    ),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        422,
        finding("body", "acknowledged_policy_version"),
        json={"acknowledged_policy_version": "2022-01-01T00:00:00"},
    ),
    Ask("member", "PUT", "/v2/users/me", 200, _told(name="Renamed"), json={"name": " Renamed "}),
    Ask("member", "PUT", "/v2/users/me", 200, _told(name=""), json={"name": ""}),
    Ask("member", "PUT", "/v2/users/me", 200, keys(*_ME), json={"system_admin": True, "x": 1}),
    Ask("member", "POST", "/v2/users/", 403, error("Not authorized"), json=_NEW),
    Ask(
        "member",
        "PUT",
        "/v2/users/me",
        422,
        finding("body", "name"),
        differs="A NUL character in a string",
        json={"name": "\0"},
    ),
    *(
        Ask(who, "POST", "/v2/users/", 403, error("Not authorized"), json=_NEW)
        for who in PRINCIPALS
        if not who.startswith("sys")
    ),
    *(
        Ask("sysadmin", "POST", "/v2/users/", 422, finding("body", field), json=_without(field))
        for field in _NEW
    ),
    Ask(
        "sysadmin",
        "POST",
        "/v2/users/",
        200,
        keys(*_ME),
        differs="`POST /v2/users/`",
        json=_NEW,
    ),
    Ask("nell", "GET", "/v2/users/me", 200, _told(name="Nell New")),
    Ask("nell", "GET", "/v2/orgs/1/usher/tree_versions/", 200),
    Ask(
        "sysmember",
        "POST",
        "/v2/users/",
        409,
        begins("a user with this email"),
        differs="its e-mail address or account exists",
        json=_NEW,
    ),
    Ask(
        "sysadmin",
        "POST",
        "/v2/users/",
        400,
        error("group_id 99 not found"),
        differs="its group does not exist",
        json={**_NEW, "email": "other@example.org", "auth0_user_id": "auth0|o", "group_id": 99},
    ),
    Ask("stranger", "GET", "/v2/users/me", 401, error("Login failure")),
]
