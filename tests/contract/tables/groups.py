"""Groups, members, and invitations."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, Facts, begins, error, finding, items, keys

_INSIDE = {"gadmin", "member", "sysmember", "multi"}
_INVITERS = {"gadmin", "sysadmin", "sysmember"}
_GROUP = ("id", "name", "address", "prefix", "default_tree_location", "submitting_lab")
_MEMBER = ("id", "name", "agreed_to_tos", "acknowledged_policy_version", "email", "role")
_NOT_FOUND, _UNAUTHORIZED = error("Not found"), error("unauthorized")
_ADDED = {"role": "member", "emails": ["somebody@example.org", "no address"]}


def _new(**changes: Any) -> object:
    def body(facts: Facts) -> dict[str, Any]:
        made = {"name": "New Group", "prefix": "NEW", "default_tree_location_id": facts["place"]}
        return {**made, **changes}

    return body


ASKS = [
    *(
        Ask(who, "GET", "/v2/groups/1/", 200, keys(*_GROUP))
        if who in _INSIDE
        else Ask(who, "GET", "/v2/groups/1/", 400, _NOT_FOUND)
        for who in PRINCIPALS
    ),
    Ask("member", "GET", "/v2/groups/2/", 400, _NOT_FOUND),
    Ask("sysadmin", "GET", "/v2/groups/99/", 400, _NOT_FOUND),
    Ask("member", "GET", "/v2/groups/x/", 422, finding("path", "group_id")),
    *(
        Ask(who, "GET", "/v2/groups/1/members/", 200, items("members", *_MEMBER))
        if who in _INSIDE
        else Ask(who, "GET", "/v2/groups/1/members/", 403, _UNAUTHORIZED)
        for who in PRINCIPALS
    ),
    Ask("sysadmin", "GET", "/v2/groups/99/members/", 403, _UNAUTHORIZED),
    *(
        Ask(who, "POST", "/v2/groups/1/invitations/", 200, json=_ADDED)
        if who in _INVITERS
        else Ask(who, "POST", "/v2/groups/1/invitations/", 403, _UNAUTHORIZED, json=_ADDED)
        for who in PRINCIPALS
    ),
    Ask("sysadmin", "POST", "/v2/groups/99/invitations/", 403, _UNAUTHORIZED, json=_ADDED),
    Ask(
        "gadmin",
        "POST",
        "/v2/groups/1/invitations/",
        200,
        lambda body: [row["success"] for row in body["invitations"]] == [True, False],
        json=_ADDED,
    ),
    Ask("gadmin", "POST", "/v2/groups/1/invitations/", 422, finding("body", "role"), json={}),
    Ask(
        "gadmin",
        "POST",
        "/v2/groups/1/invitations/",
        400,
        begins("role is invalid"),
        differs="`POST …/invitations/` with an unknown role",
        json={"role": "queen", "emails": []},
    ),
    *(
        Ask(who, "GET", "/v2/groups/1/invitations/", 200, lambda body: bool(body["invitations"]))
        if who in _INSIDE
        else Ask(who, "GET", "/v2/groups/1/invitations/", 403, _UNAUTHORIZED)
        for who in PRINCIPALS
    ),
    *(
        Ask(who, "POST", "/v2/groups/", 403, error("Not authorized"), json=_new())
        for who in PRINCIPALS
        if not who.startswith("sys")
    ),
    Ask("sysadmin", "POST", "/v2/groups/", 422, finding("body", "name"), json={}),
    Ask("sysadmin", "POST", "/v2/groups/", 422, finding("body", "name"), json=_new(name="ab")),
    Ask("sysadmin", "POST", "/v2/groups/", 422, finding("body", "name"), json=_new(name=7)),
    Ask(
        "sysadmin",
        "POST",
        "/v2/groups/",
        422,
        finding("body", "prefix"),
        json=_new(prefix="x" * 26),
    ),
    Ask("sysadmin", "POST", "/v2/groups/", 200, keys(*_GROUP), json=_new()),
    Ask(
        "sysmember",
        "POST",
        "/v2/groups/",
        409,
        begins("a group with this name"),
        differs="`POST /v2/groups/`, name or prefix exists",
        json=_new(),
    ),
    Ask(
        "sysadmin",
        "POST",
        "/v2/groups/",
        400,
        begins("default_tree_location_id 999999 not found"),
        differs="its location does not exist",
        json=_new(name="Other", prefix="OTHER", default_tree_location_id=999_999),
    ),
]
