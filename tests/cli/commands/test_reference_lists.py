"""Pathogens, locations, and lineages on the command line."""

from __future__ import annotations

import pytest

from tests.cli.commands.api_lab import ApiLab

by_each_road = pytest.mark.parametrize("road", ["db", "api"])
LOCATION_KEYS = ["id", "region", "country", "division", "location"]


@by_each_road
def test_the_pathogens(shared_lab: ApiLab, road: str) -> None:
    ended = shared_lab("pathogens", "list", "--via", road, "-o", "json", who="nogroup")
    assert (ended.code, ended.err) == (0, "")
    assert [(row["id"], row["slug"]) for row in ended.json] == [(1, "SC2"), (2, "MPX"), (3, "HCV")]
    assert list(ended.json[0]) == ["id", "slug", "name"]


@by_each_road
def test_locations_down_to_a_level(shared_lab: ApiLab, road: str) -> None:
    ended = shared_lab("location", "list", "--depth", "country", "--via", road, "-o", "json")
    assert ended.code == 0
    assert list(ended.json[0]) == LOCATION_KEYS
    assert {row["division"] for row in ended.json} == {None}
    ids = [row["id"] for row in ended.json]
    assert ids == sorted(ids)


@by_each_road
def test_an_unknown_level_is_bad_usage(shared_lab: ApiLab, road: str) -> None:
    ended = shared_lab("locations", "list", "--depth", "county", "--via", road)
    assert (ended.code, ended.out) == (2, "")
    assert "division" in ended.err


@by_each_road
def test_a_misspelt_location_is_found_first(shared_lab: ApiLab, road: str) -> None:
    search = ("locations", "search", "--location", "humbolt county", "--via", road)
    rows = shared_lab(*search, "-o", "json").json
    assert list(rows[0]) == LOCATION_KEYS
    assert rows[0]["location"] == "Humboldt County"


@by_each_road
def test_a_search_for_nothing_is_bad_usage(shared_lab: ApiLab, road: str) -> None:
    ended = shared_lab("locations", "search", "--via", road)
    assert (ended.code, ended.out) == (2, "")
    assert "--country" in ended.err


def test_lineages_with_parents_and_variants(shared_lab: ApiLab) -> None:
    ended = shared_lab("lineages", "list-pango", "-o", "json", who="nogroup")
    assert (ended.code, ended.err) == (0, "")
    lineages = [row["lineage"] for row in ended.json]
    assert lineages == sorted(set(lineages))
    assert {"B.1.1.7", "BA.1* / 21K", "Omicron"} <= set(lineages)
