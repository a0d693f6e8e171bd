"""Trees as files, and the samples in them."""

from __future__ import annotations

from typing import Any

import pytest

from aspen.api.trees import nodes
from aspen.database.engine import Database
from aspen.database.models import Group, Location, PhyloTree
from tests.api.conftest import Api, ApiFactory, Cloud
from tests.api.test_auspice import trees_of

pytestmark = pytest.mark.usefixtures("aws")
PATH = "/v2/orgs/{}/pathogens/SC2/phylo_trees/{}/{}"


def fetch(api: Api, tree: int, what: str, who: str = "member", group: int = 1, **query: str) -> Any:
    answer = api("GET", PATH.format(group, tree, what), who, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    return answer


def names_in(api: Api, tree: int, **options: Any) -> set[str]:
    document = fetch(api, tree, "download", **options).json()
    return {node["name"] for node in nodes(document)}


def own(api: Api, tree: int) -> dict[str, str]:
    with api.database.reading() as session:
        row = session.get_one(PhyloTree, tree)
        return {bare(one.public_identifier): one.private_identifier for one in row.samples}


def bare(name: str) -> str:
    assert name.startswith("hCoV-19/")
    return name.removeprefix("hCoV-19/")


def test_tree_shows_own_samples_by_private_identifier(shared_roles: Api) -> None:
    tree = trees_of(shared_roles, 1)[0]
    shown, samples = names_in(shared_roles, tree), own(shared_roles, tree)
    assert shown >= set(samples.values())
    assert not shown & set(samples)


@pytest.mark.parametrize(
    "options", [{"id_style": "public"}, {"who": "viewer"}, {"who": "g2admin", "group": 2}]
)
def test_tree_shows_public_identifiers_on_request_or_without_access(
    shared_roles: Api, options: dict[str, Any]
) -> None:
    tree = trees_of(shared_roles, 1)[0]
    shown, samples = names_in(shared_roles, tree, **options), own(shared_roles, tree)
    assert shown >= set(samples)
    assert not shown & set(samples.values())


@pytest.mark.parametrize("style", ["private", "public"])
def test_sample_list_of_tree_marks_selected_samples(shared_roles: Api, style: str) -> None:
    tree = trees_of(shared_roles, 1)[0]
    answer = fetch(shared_roles, tree, "sample_ids", id_style=style)
    assert answer.headers["content-type"].startswith("text/tsv")
    header, *rows = answer.text.splitlines()
    assert header == "Sample Identifier\tSelected"
    told = dict(row.split("\t") for row in rows)
    samples = own(shared_roles, tree)
    chosen = samples if style == "public" else samples.values()
    assert {name for name, selected in told.items() if selected == "yes"} == set(chosen)
    assert "no" in told.values()  # public samples around them


def test_tree_download_strips_prefix_and_adds_color_scales(shared_roles: Api) -> None:
    tree = trees_of(shared_roles, 1)[0]
    answer = fetch(shared_roles, tree, "download", id_style="public")
    assert answer.headers["content-disposition"] == f"attachment; filename={tree}.json"
    document = answer.json()
    assert not [node for node in nodes(document) if node["name"].startswith("hCoV-19/")]
    scales = {each["key"]: each.get("scale") for each in document["meta"]["colorings"]}
    assert scales == {
        "pango_lineage": None,
        "country": [
            ["USA", "#277F8E"],
            [None, "#084A9F"],
            ["Canada", "#4187E0"],
            ["Mexico", "#B2D3FD"],
        ],
        "division": [
            ["California", "#277F8E"],
            ["Oregon", "#084A9F"],
            ["Nevada", "#4187E0"],
            ["Washington", "#B2D3FD"],
            ["Arizona", "#DFC6FF"],
        ],
    }


def test_color_scales_begin_at_default_location_of_group(
    make_api: ApiFactory, roles: Database, aws: Cloud
) -> None:
    api = make_api(roles, **aws.settings)
    tree = trees_of(api, 1)[0]
    with roles.begin() as session:
        places = {place.division: place for place in session.query(Location).order_by(Location.id)}
        session.get_one(Group, 1).default_tree_location_id = places["Arizona"].id
        for number in range(20):  # more than there are colors; those without coordinates come last
            session.add(Location(region="Asia", country="Japan", division=f"Somewhere {number}"))
    document = fetch(api, tree, "download").json()
    division = next(each for each in document["meta"]["colorings"] if each["key"] == "division")
    names = [name for name, _ in division["scale"]]
    assert names[:5] == ["Arizona", "Nevada", "California", "Oregon", "Washington"]
    assert len(names) == len({color for _, color in division["scale"]}) == 16


@pytest.mark.parametrize("what", ["download", "sample_ids"])
def test_inaccessible_or_unknown_tree_returns_400(shared_roles: Api, what: str) -> None:
    for tree in (trees_of(shared_roles, 2)[0], 999_999, -1):
        answer = shared_roles("GET", PATH.format(1, tree, what), "member")
        assert answer.status_code == 400
        assert answer.json() == {"error": f"PhyloTree with id {tree} not viewable by user"}


def test_tree_with_missing_file_returns_404(roles: Any, make_api: Any, aws: Any) -> None:
    api = make_api(roles, **aws.settings)
    tree = trees_of(api, 1)[0]
    with api.database.begin() as session:
        session.get_one(PhyloTree, tree).s3_key = "gone.json"
    for what in ("download", "sample_ids"):
        answer = api("GET", PATH.format(1, tree, what), "member")
        assert answer.status_code == 404
        assert answer.json()["error"] == "the tree file no longer exists"
