"""Pathogens, locations, and lineages on the command line."""

from __future__ import annotations

import pytest

from tests.cli.commands.api_lab import ApiLab

by_each_backend = pytest.mark.parametrize("backend", ["db", "api"])
LOCATION_KEYS = ["id", "region", "country", "division", "location"]


@by_each_backend
def test_pathogens_are_listed_by_id(shared_lab: ApiLab, backend: str) -> None:
    ended = shared_lab("pathogens", "list", "--via", backend, "-o", "json", who="nogroup")
    assert (ended.code, ended.err) == (0, "")
    assert [(row["id"], row["slug"]) for row in ended.json] == [(1, "SC2"), (2, "MPX"), (3, "HCV")]
    assert list(ended.json[0]) == ["id", "slug", "name"]


@by_each_backend
def test_location_list_stops_at_depth(shared_lab: ApiLab, backend: str) -> None:
    ended = shared_lab("location", "list", "--depth", "country", "--via", backend, "-o", "json")
    assert ended.code == 0
    assert list(ended.json[0]) == LOCATION_KEYS
    assert {row["division"] for row in ended.json} == {None}
    ids = [row["id"] for row in ended.json]
    assert ids == sorted(ids)


@by_each_backend
def test_unknown_location_depth_exits_with_2(shared_lab: ApiLab, backend: str) -> None:
    ended = shared_lab("locations", "list", "--depth", "county", "--via", backend)
    assert (ended.code, ended.out) == (2, "")
    assert "division" in ended.err


@by_each_backend
def test_location_search_lists_best_match_of_misspelling_first(
    shared_lab: ApiLab, backend: str
) -> None:
    search = ("locations", "search", "--location", "humbolt county", "--via", backend)
    rows = shared_lab(*search, "-o", "json").json
    assert list(rows[0]) == LOCATION_KEYS
    assert rows[0]["location"] == "Humboldt County"


@by_each_backend
def test_location_search_without_terms_exits_with_2(shared_lab: ApiLab, backend: str) -> None:
    ended = shared_lab("locations", "search", "--via", backend)
    assert (ended.code, ended.out) == (2, "")
    assert "--country" in ended.err


def test_lineage_list_includes_parents_and_variants(shared_lab: ApiLab) -> None:
    ended = shared_lab("lineages", "list-pango", "-o", "json", who="nogroup")
    assert (ended.code, ended.err) == (0, "")
    lineages = [row["lineage"] for row in ended.json]
    assert lineages == sorted(set(lineages))
    assert {"B.1.1.7", "BA.1* / 21K", "Omicron"} <= set(lineages)
