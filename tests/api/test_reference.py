"""Reference data that everyone may read: locations, lineages, pathogens, and UShER trees."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Location, PangoLineage, Pathogen, PathogenLineage, UsherOption
from tests.api.conftest import Api, ApiFactory


def locations(api: Api, **query: str) -> list[dict[str, Any]]:
    answer = api("GET", "/v2/locations/", "nogroup", params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["locations"]
    return found


def search(api: Api, **body: Any) -> list[tuple[str | None, ...]]:
    answer = api("POST", "/v2/locations/search/", "nogroup", json=body)
    assert answer.status_code == 200, answer.text
    return [
        tuple(found[level] for level in ("region", "country", "division", "location"))
        for found in answer.json()["locations"]
    ]


def test_pathogens_are_listed(shared_api: Api) -> None:
    found = shared_api("GET", "/v2/pathogens/", "nogroup").json()["pathogens"]
    assert [(row["id"], row["slug"]) for row in found] == [(1, "SC2"), (2, "MPX"), (3, "HCV")]


def test_locations_are_listed_once_in_id_order(shared_api: Api) -> None:
    found = locations(shared_api)
    assert [row["id"] for row in found] == sorted({row["id"] for row in found})
    assert set(found[0]) == {"id", "region", "country", "division", "location"}


@pytest.mark.parametrize(
    ("depth", "hidden"),
    [
        ("location", set()),
        ("division", {"location"}),
        ("country", {"location", "division"}),
        ("region", {"location", "division", "country"}),
    ],
)
def test_max_location_depth_omits_more_specific_locations(
    shared_api: Api, depth: str, hidden: set[str]
) -> None:
    found = locations(shared_api, max_location_depth=depth)
    assert found == [
        row for row in locations(shared_api) if all(row[level] is None for level in hidden)
    ]
    assert found


def test_unknown_max_location_depth_returns_422(shared_api: Api) -> None:
    answer = shared_api("GET", "/v2/locations/", "member", params={"max_location_depth": "x"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "max_location_depth"]


def test_search_by_country_returns_it_with_divisions(shared_api: Api) -> None:
    found = search(shared_api, country="uSs")
    assert found[0] == ("North America", "USA", None, None)
    assert len(found) > 1
    assert all(row[1] == "USA" and row[2] and row[3] is None for row in found[1:])


def test_search_by_division_returns_it_with_locations(shared_api: Api) -> None:
    found = search(shared_api, country="usa", division=" californa ")
    assert found[0] == ("North America", "USA", "California", None)
    assert len(found) > 1
    assert all(row[2] == "California" and row[3] for row in found[1:])


def test_search_by_region_returns_locations(shared_api: Api) -> None:
    found = search(shared_api, region="north amerika")
    assert 1 < len(found) <= 30
    assert all(row[3] for row in found)
    assert found == sorted(found)


def test_search_by_location_returns_nearest_first(shared_api: Api) -> None:
    found = search(shared_api, location="humbolt county")
    assert found[0] == ("North America", "USA", "California", "Humboldt County")
    assert 1 < len(found) <= 30


def test_search_for_unknown_country_returns_nearest(shared_api: Api) -> None:
    assert search(shared_api, country="Uzbek")[0][1] == "USA"


@pytest.mark.parametrize("body", [{}, {"country": None}, {"country": "  "}, {"unknown": "x"}])
def test_search_without_terms_returns_nothing(shared_api: Api, body: dict[str, Any]) -> None:
    assert search(shared_api, **body) == []


@pytest.mark.parametrize("level", ["region", "country", "division", "location"])
@pytest.mark.parametrize("typed", ["x" * 300, "İ" * 255, "100%_", "'; --", 7], ids=str)
def test_search_accepts_any_text(shared_api: Api, level: str, typed: Any) -> None:
    assert search(shared_api, **{level: typed})


def test_search_with_nul_returns_422_with_field(shared_api: Api) -> None:
    answer = shared_api("POST", "/v2/locations/search/", "member", json={"country": "a\0"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "country"]


def test_search_finds_place_by_location_inside_it(make_api: ApiFactory, seeded: Database) -> None:
    with seeded.begin() as session:
        session.add(Location(region="Asia", country="Japan", division="Kanto", location="Tokyo"))
        session.add(Location(region="Asia", country="Japan", division="Kansai"))
    api = make_api(seeded)
    assert search(api, country="japan") == [("Asia", "Japan", "Kansai", None)]
    assert search(api, division="kanto") == [("Asia", "Japan", "Kanto", "Tokyo")]


def test_lineages_are_listed_sorted_with_parents_and_variants(
    make_api: ApiFactory, seeded: Database
) -> None:
    with seeded.begin() as session:
        session.execute(sa.delete(PathogenLineage))
        session.execute(sa.delete(PangoLineage))
        names = ("B", "B.1.1.7", "BA.2.75", "AY.4")
        session.add_all(PangoLineage(lineage=name) for name in names)
    found = make_api(seeded)("GET", "/v2/lineages/pango", "nogroup").json()["lineages"]
    parents = ["AY*", "B.1.1*", "BA.2* / 21L"]
    assert found == sorted([*names, *parents, "Delta", "Omicron"])


def test_usher_trees_are_listed_by_priority_for_one_pathogen(
    make_api: ApiFactory, seeded: Database
) -> None:
    with seeded.begin() as session:
        pathogens = {row.slug: row for row in session.query(Pathogen)}
        for n, (slug, priority) in enumerate(
            [("SC2", 12), ("SC2", None), ("SC2", 11), ("MPX", 11)]
        ):
            session.add(
                UsherOption(
                    description=f"tree {n}",
                    value=f"value-{n}",
                    priority=priority,
                    pathogen=pathogens[slug],
                )
            )
    api = make_api(seeded)
    path = "/v2/orgs/1/usher/tree_versions/"
    ours = api("GET", path, "viewer").json()["usher_options"]
    values = [row["value"] for row in ours if row["value"].startswith("value-")]
    assert values == ["value-2", "value-0", "value-1"]
    assert set(ours[0]) == {"id", "description", "value", "priority"}
    other = api("GET", "/v2/orgs/1/pathogens/MPX/usher/tree_versions/", "viewer").json()
    assert api("GET", f"{path}?pathogen_slug=MPX", "viewer").json() == other
    assert "value-3" in {row["value"] for row in other["usher_options"]}
    assert "value-0" not in {row["value"] for row in other["usher_options"]}
