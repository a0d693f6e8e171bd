"""Phylogenetic runs: who sees, starts, renames, and deletes which, and what is refused."""

from __future__ import annotations

from typing import Any

from tests.api.conftest import PRINCIPALS
from tests.contract.asking import Ask, begins, error, finding, items, keys

_ALL, _ONE = "/v2/orgs/{}/phylo_runs/", "/v2/orgs/1/phylo_runs/{run}"
_OF_2 = "/v2/orgs/3/phylo_runs/{run_of_2}"
_REFUSED, _NOT_FOUND = error("Not authorized"), error("phylo run not found")
_IN_PROGRESS = error("Can't modify an in-progress phylo run")
_SHOWN = (
    *("id", "start_datetime", "end_datetime", "workflow_status", "template_args", "name"),
    *("group", "template_file_path", "tree_type", "pathogen", "contextual_data_source"),
    *("user", "phylo_tree"),
)
_WRITERS = ("gadmin", "member", "sysmember", "multi")
_IN_1 = (*_WRITERS, "viewer")
_OUTSIDERS = [who for who in PRINCIPALS if who not in _IN_1]
_NAMED = {"name": "Renamed"}


def _wanted(**changes: Any) -> dict[str, Any]:
    given = {"name": "New run", "tree_type": "targeted", "samples": [], **changes}
    return {name: value for name, value in given.items() if value is not ...}


def _post(
    status: int, body: Any, *, path: str = _ALL.format(1), differs: str = "", **changes: Any
) -> Ask:
    return Ask("member", "POST", path, status, body, differs=differs, json=_wanted(**changes))


ASKS = [
    *(Ask(who, "GET", _ALL.format(1), 200, items("phylo_runs", *_SHOWN)) for who in _IN_1),
    *(Ask(who, "GET", _ALL.format(1), 403, _REFUSED) for who in _OUTSIDERS),
    Ask(None, "GET", _ALL.format(1), 401, error("Login failure")),
    Ask("g2admin", "GET", _ALL.format(2), 200, lambda body: len(body["phylo_runs"]) == 5),
    Ask("g3member", "GET", _ALL.format(3), 200, lambda body: len(body["phylo_runs"]) == 1),
    Ask("member", "GET", "/v2/orgs/1/pathogens/HCV/phylo_runs/", 200, {"phylo_runs": []}),
    Ask("member", "GET", _ALL.format(1).rstrip("/"), 307),
    # Starting
    *(Ask(who, "POST", _ALL.format(1), 403, _REFUSED, json=_wanted()) for who in _OUTSIDERS),
    Ask("viewer", "POST", _ALL.format(1), 403, error("access denied"), json=_wanted()),
    *(Ask(who, "POST", _ALL.format(1), 200, keys(*_SHOWN), json=_wanted()) for who in _WRITERS),
    _post(
        200,
        lambda body: body["template_args"] == {"filter_start_date": "2022-03-01"},
        samples=["RCPHL-0000002"],
        template_args={"filter_start_date": "2022-03-01", "unknown": 7},
    ),
    _post(400, error("missing ids", ids=["nobody", "n2"]), samples=["nobody", "n2", "nobody"]),
    _post(400, error("location_id 999 not found"), template_args={"location_id": 999}),
    _post(
        400,
        begins("No aligned upstream dump for run"),
        path="/v2/orgs/1/pathogens/HCV/phylo_runs/",
        differs="a pathogen of which no repository has a dump",
    ),
    _post(422, finding("body", "tree_type"), tree_type="oak"),
    _post(422, finding("body", "tree_type"), tree_type=...),
    _post(422, finding("body", "name"), name=""),
    _post(422, finding("body", "name"), name="x" * 129),
    _post(422, finding("body", "samples", 0), samples=[7]),
    _post(422, finding("body", "samples"), differs="A NUL character in a string", samples=["\0"]),
    _post(
        422,
        finding("body", "template_args", "filter_pango_lineages", 0),
        template_args={"filter_pango_lineages": ["B;DROP"]},
    ),
    # Renaming
    *(Ask(who, "PUT", _ONE, 403, _REFUSED, json=_NAMED) for who in _OUTSIDERS),
    Ask("viewer", "PUT", _ONE, 404, _NOT_FOUND, json=_NAMED),
    *(
        Ask(who, "PUT", _ONE, 200, lambda body: body["name"] == "Renamed", json=_NAMED)
        for who in _WRITERS
    ),
    Ask("g2admin", "PUT", "/v2/orgs/2/phylo_runs/{run}", 404, _NOT_FOUND, json=_NAMED),
    Ask("g3member", "PUT", _OF_2, 200, keys(*_SHOWN), json=_NAMED),
    Ask("member", "PUT", "/v2/orgs/1/pathogens/MPX/phylo_runs/{run}", 404, _NOT_FOUND, json=_NAMED),
    Ask("member", "PUT", "/v2/orgs/1/phylo_runs/{run_started}", 400, _IN_PROGRESS, json=_NAMED),
    Ask("member", "PUT", _ALL.format(1) + "999999", 404, _NOT_FOUND, json=_NAMED),
    Ask("member", "PUT", _ONE, 422, finding("body", "name"), json={}),
    Ask("member", "PUT", _ALL.format(1) + "x", 422, finding("path", "item_id"), json=_NAMED),
    # Deleting
    *(Ask(who, "DELETE", _ONE, 403, _REFUSED) for who in _OUTSIDERS),
    Ask("viewer", "DELETE", _ONE, 404, _NOT_FOUND),
    Ask("member", "DELETE", "/v2/orgs/1/phylo_runs/{run_started}", 400, _IN_PROGRESS),
    Ask("member", "DELETE", "/v2/orgs/1/phylo_runs/{run_failed}", 200, keys("id")),
    Ask("member", "DELETE", "/v2/orgs/1/phylo_runs/{run_failed}", 404, _NOT_FOUND),
    Ask("member", "DELETE", _ALL.format(1) + "x", 422, finding("path", "item_id")),
    Ask("g3member", "DELETE", _OF_2, 200, keys("id")),
]
