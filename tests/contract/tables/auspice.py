"""Links that open a tree."""

from __future__ import annotations

from tests.contract.asking import Ask, Facts, begins, error, finding, keys

_GENERATE = "/v2/orgs/{org}/pathogens/SC2/auspice/generate"
_ACCESS = "/v2/orgs/1/pathogens/SC2/auspice/access"


def _tree(facts: Facts) -> dict[str, int]:
    return {"tree_id": facts["tree"]}


def _generate(who: str | None, org: int, status: int, body: object = None) -> Ask:
    return Ask(who, "POST", _GENERATE.replace("{org}", str(org)), status, body, json=_tree)


ASKS = [
    *(_generate(who, 1, 200, keys("url")) for who in ("gadmin", "member", "viewer", "multi")),
    _generate("g2admin", 2, 200, keys("url")),
    _generate("g3member", 3, 400, begins("No phylo run found for user")),
    _generate("g2admin", 1, 403, error("Not authorized")),
    _generate("sysadmin", 1, 403, error("Not authorized")),
    Ask("member", "POST", "/v2/orgs/1/auspice/generate", 200, keys("url"), json=_tree),
    Ask(
        "member",
        "POST",
        "/v2/orgs/1/auspice/generate",
        422,
        finding("body", "tree_id"),
        differs="`POST …/auspice/generate` with an invalid body",
        json={},
    ),
    Ask(
        "member",
        "POST",
        "/v2/orgs/1/auspice/generate",
        400,
        begins("No phylo run found for user"),
        json={"tree_id": 999_999},
    ),
    Ask(None, "GET", f"{_ACCESS}/x.y", 400, begins("Unauthenticated attempt")),
    Ask(
        None,
        "GET",
        f"{_ACCESS}/x",
        400,
        begins("Unauthenticated attempt"),
        differs="without a full stop in it",
    ),
    Ask(
        None,
        "GET",
        "/v2/users/me?magic_link=x.y",
        401,
        error("Login failure"),
        differs="`?magic_link=`",
    ),
]
