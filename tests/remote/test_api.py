"""Every method of the client, against the contract and against our own service."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest

from aspencli.errors import AspenError, CredentialsError
from aspencli.remote.api import Api, ApiCalls
from aspencli.remote.downloads import StreamLanding
from aspencli.remote.http import Http
from aspencli.remote.retry import Caller
from tests.api.conftest import Api as Service
from tests.api.conftest import provider, shared_api
from tests.api.test_contract import CONTRACT
from tests.remote.conftest import Client, Tokens
from tests.remote.naughty import Seen, reply_json

__all__ = ["provider", "shared_api"]

SLUG = "SC2"
Ask = Callable[[Api], Any]


def _landing() -> tuple[StreamLanding, Callable[..., None]]:
    return StreamLanding(BytesIO()), lambda *_: None


RECORD: Any = {"id": 1}
ASKED: dict[str, Ask] = {
    "users.me": lambda api: api.users.me(),
    "users.update_me": lambda api: api.users.update_me({"name": "Ada"}),
    "users.create": lambda api: api.users.create(RECORD),
    "users.check_create": lambda api: api.users.check_create(),
    "groups.check_create": lambda api: api.groups.check_create(),
    "groups.create": lambda api: api.groups.create(RECORD),
    "groups.get": lambda api: api.groups.get(1),
    "groups.members": lambda api: api.groups.members(1),
    "groups.invitations": lambda api: api.groups.invitations(1),
    "groups.invite": lambda api: api.groups.invite(1, "member", ["a@example.org"]),
    "locations.all": lambda api: api.locations.all("country"),
    "locations.search": lambda api: api.locations.search({"country": "USA"}),
    "samples.read": lambda api: api.samples.read(1, SLUG, list),
    "samples.replace": lambda api: api.samples.replace(1, SLUG, [RECORD]),
    "samples.create": lambda api: api.samples.create(1, SLUG, [RECORD]),
    "samples.delete": lambda api: api.samples.delete(1, SLUG, [7]),
    "samples.missing": lambda api: api.samples.missing(1, SLUG, ["a"]),
    "samples.sequences": lambda api: api.samples.sequences(1, SLUG, ["a"], *_landing()),
    "samples.submission_template": lambda api: api.samples.submission_template(
        1, SLUG, ["a"], "GISAID", *_landing()
    ),
    "samples.qc_mutations": lambda api: api.samples.qc_mutations(1, SLUG, ["a"], *_landing()),
    "samples.fasta_link": lambda api: api.samples.fasta_link(1, SLUG, ["a"], "usher"),
    "phylo_runs.all": lambda api: api.phylo_runs.all(1, SLUG),
    "phylo_runs.create": lambda api: api.phylo_runs.create(1, SLUG, RECORD),
    "phylo_runs.rename": lambda api: api.phylo_runs.rename(1, SLUG, 7, "new"),
    "phylo_runs.delete": lambda api: api.phylo_runs.delete(1, SLUG, 7),
    "phylo_trees.download": lambda api: api.phylo_trees.download(
        1, SLUG, 7, *_landing(), public_ids=True
    ),
    "phylo_trees.samples": lambda api: api.phylo_trees.samples(1, SLUG, 7, *_landing()),
    "phylo_trees.auspice_link": lambda api: api.phylo_trees.auspice_link(1, SLUG, 7),
    "phylo_trees.open_link": lambda api: api.phylo_trees.open_link(
        f"/v2/orgs/1/pathogens/{SLUG}/auspice/access/x", *_landing()
    ),
    "pathogens": lambda api: api.pathogens(),
    "lineages": lambda api: api.lineages(),
    "usher_trees": lambda api: api.usher_trees(1, SLUG),
}
LISTS = (
    *("members", "invitations", "locations", "samples", "ids", "phylo_runs", "pathogens"),
    *("lineages", "usher_options", "missing_sample_ids"),
)
EVERYTHING = {"id": 7, "url": "https://x", **{key: [] for key in LISTS}}


def test_every_client_method_has_a_test_request(client: Callable[..., Client]) -> None:
    api = client(reply_json({})).api
    found = {"pathogens", "lineages", "usher_trees"}
    for name, resource in vars(api).items():
        methods = inspect.getmembers(resource, inspect.ismethod)
        found |= {f"{name}.{method}" for method, _ in methods if not method.startswith("_")}
    found = {name for name in found if not name.startswith("_calls")}
    assert found == set(ASKED)


def _answer(seen: Seen) -> Any:
    # Long lists are read item by item, so the list has to come first.
    for key in ("samples", "locations", "phylo_runs", "lineages"):
        if seen.method == "GET" and f"/{key}/" in seen.target + "/":
            return reply_json({key: []})
    return reply_json(EVERYTHING)


@pytest.mark.skipif(not CONTRACT.exists(), reason="the contract is not beside this checkout")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ASKED)
def test_client_request_matches_contract(client: Callable[..., Client], name: str) -> None:
    made = client(route=_answer)
    ASKED[name](made.api)
    (seen,) = made.server.seen
    path, _, query = seen.target.partition("?")
    paths = json.loads(CONTRACT.read_text())["paths"]
    # Fixed paths win over parameters: .../samples/submission_template is not a sample's ID.
    known = min((known for known in paths if _fits(known, path)), key=lambda path: path.count("{"))
    operation = paths[known][seen.method.lower()]
    allowed = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
    sent = {each.partition("=")[0] for each in query.split("&") if each}
    assert sent <= allowed | {"id_style"}  # accepted by the service, but undocumented
    assert bool(seen.body) == ("requestBody" in operation or known.endswith("auspice/generate"))


def _fits(known: str, path: str) -> bool:
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(known))
    return re.fullmatch(pattern, path) is not None


# Against our own service


@pytest.fixture
def speaking(shared_api: Service) -> Iterator[Callable[[str], Api]]:
    """Yield a function that makes a client for a principal."""
    http = Http(shared_api.url, "the API")
    caller = Caller(http, "the API", hint="")
    yield lambda principal: Api(ApiCalls(caller, Tokens([shared_api.token(principal)])))
    http.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name",
    [
        "users.me",
        "groups.get",
        "groups.members",
        "locations.all",
        "locations.search",
        "pathogens",
        "lineages",
        "usher_trees",
    ],
)
def test_client_reads_responses_of_our_service(speaking: Callable[[str], Api], name: str) -> None:
    assert ASKED[name](speaking("member"))


def test_system_admin_without_role_gets_explanation_from_our_service(
    speaking: Callable[[str], Api],
) -> None:
    with pytest.raises(CredentialsError) as caught:
        speaking("sysadmin").usher_trees(1, SLUG)
    assert caught.value.details == (
        "You are signed in as Sasha Sysadmin, with no role in any group.",
    )
    assert "system administrators do not have access to every group's data" in str(
        caught.value.hint
    )


def test_unknown_pathogen_exits_with_6_and_suggests_list(speaking: Callable[[str], Api]) -> None:
    with pytest.raises(AspenError) as caught:
        speaking("member").usher_trees(1, "no such?")
    assert caught.value.exit_code == 6
    assert "pathogens list" in str(caught.value.hint)
