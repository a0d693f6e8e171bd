"""The group and pathogen checks that come before everything that belongs to a group."""

from __future__ import annotations

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, error, finding, items

_TREES = "usher/tree_versions/"
_REFUSED = error("Not authorized")
_UNKNOWN = error("Invalid pathogen slug")
_MEMBERS = {
    1: {"gadmin", "member", "viewer", "sysmember", "multi"},
    2: {"g2admin", "g2member", "multi"},
    3: {"g3admin", "g3member"},
    99: set[str](),
}
_FOUND = items("usher_options", "id", "description", "value", "priority")


def _gate(who: str, group: int, form: str) -> Ask:
    path = f"/v2/orgs/{group}/{form}{_TREES}"
    if who in _MEMBERS[group]:
        return Ask(who, "GET", path, 200, _FOUND)
    return Ask(who, "GET", path, 403, _REFUSED)


ASKS = [
    *(_gate(who, group, "") for group in _MEMBERS for who in PRINCIPALS),
    *(_gate(who, 1, "pathogens/MPX/") for who in PRINCIPALS),
    Ask("member", "GET", f"/v2/orgs/1/pathogens/HCV/{_TREES}", 200, _FOUND),
    Ask("member", "GET", f"/v2/orgs/1/{_TREES}?pathogen_slug=MPX", 200, _FOUND),
    Ask("member", "GET", f"/v2/orgs/1/{_TREES}?pathogen_slug=XX", 400, _UNKNOWN),
    Ask("member", "GET", f"/v2/orgs/1/pathogens/sc2/{_TREES}", 400, _UNKNOWN),
    Ask("member", "GET", f"/v2/orgs/1/pathogens/XX/{_TREES}?pathogen_slug=SC2", 400, _UNKNOWN),
    Ask("nogroup", "GET", f"/v2/orgs/1/pathogens/XX/{_TREES}", 403, _REFUSED),
    Ask("g2admin", "GET", f"/v2/orgs/1/{_TREES}?group_id=2", 200, _FOUND),
    Ask("member", "GET", f"/v2/orgs/1/{_TREES}?group_id=2", 403, _REFUSED),
    Ask("member", "GET", f"/v2/orgs/99/{_TREES}?group_id=1", 200, _FOUND),
    Ask("member", "GET", f"/v2/orgs/x/{_TREES}", 422, finding("path", "org_id")),
    Ask("member", "GET", f"/v2/orgs/1/{_TREES}?group_id=x", 422, finding("query", "group_id")),
    Ask("member", "GET", f"/v2/orgs/-1/{_TREES}", 403, _REFUSED),
    Ask(
        "member",
        "GET",
        f"/v2/orgs/2147483648/{_TREES}",
        422,
        finding("path", "org_id"),
        differs="An id above 2³¹-1",
    ),
    Ask(
        "member",
        "GET",
        f"/v2/orgs/1/pathogens/SC2%00/{_TREES}",
        400,
        _UNKNOWN,
        differs="A NUL character in a string",
    ),
    Ask("member", "GET", "/v2/orgs/1/usher/tree_versions", 307),
]
