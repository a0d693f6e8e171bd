"""Reference data that everyone may read."""

from __future__ import annotations

from tests.contract.asking import Ask, finding, items

_PLACE = ("id", "region", "country", "division", "location")
_SEARCH = "/v2/locations/search/"


def _first(**names: str | None) -> object:
    return lambda body: names.items() <= body["locations"][0].items()


ASKS = [
    Ask("nogroup", "GET", "/v2/pathogens/", 200, items("pathogens", "id", "slug", "name")),
    Ask(
        "nogroup",
        "GET",
        "/v2/lineages/pango",
        200,
        lambda b: b["lineages"] == sorted(b["lineages"]),
    ),
    Ask("nogroup", "GET", "/v2/lineages/pango", 200, lambda b: "BA.1* / 21K" in b["lineages"]),
    Ask("nogroup", "GET", "/v2/locations/", 200, items("locations", *_PLACE)),
    *(
        Ask("nogroup", "GET", f"/v2/locations/?max_location_depth={depth}", 200)
        for depth in ("region", "country", "division", "location")
    ),
    Ask(
        "nogroup",
        "GET",
        "/v2/locations/?max_location_depth=country",
        200,
        lambda body: any(row["country"] is None for row in body["locations"]),
    ),
    Ask(
        "nogroup",
        "GET",
        "/v2/locations/?max_location_depth=town",
        422,
        finding("query", "max_location_depth"),
    ),
    Ask("nogroup", "GET", "/v2/locations/?limit=1", 200, lambda b: len(b["locations"]) > 1),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        200,
        _first(country="USA", division=None),
        json={"country": "usa"},
    ),
    Ask("nogroup", "POST", _SEARCH, 200, _first(country="USA"), json={"country": "Uzbek"}),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        200,
        _first(division="California", location=None),
        json={"division": "Californa"},
    ),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        200,
        lambda body: 1 <= len(body["locations"]) <= 30,
        json={"location": "Humboldt"},
    ),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        200,
        {"locations": []},
        differs="with nothing to search for",
        json={},
    ),
    Ask("nogroup", "POST", _SEARCH, 422, finding("body", "country"), json={"country": []}),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        422,
        finding("body", "country"),
        differs="A NUL character in a string",
        json={"country": "\0"},
    ),
    Ask(
        "nogroup",
        "POST",
        _SEARCH,
        200,
        differs="a name of more than 255 letters",
        json={"country": "x" * 300},
    ),
]
