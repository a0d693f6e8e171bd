"""Behavior that all endpoints share: paths, slashes, error shapes, documentation, CORS."""

from __future__ import annotations

import pytest

from aspen.database.engine import Database
from tests.api.conftest import Api, ApiFactory


def test_health_endpoint_reports_healthy(shared_api: Api) -> None:
    answer = shared_api("GET", "/v2/health/")
    assert (answer.status_code, answer.json()) == (200, {"healthy": True})


@pytest.mark.parametrize(
    ("path", "right"), [("/v2/health", "/v2/health/"), ("/v2/pathogens", "/v2/pathogens/")]
)
def test_wrong_trailing_slash_redirects_to_absolute_url(
    shared_api: Api, path: str, right: str
) -> None:
    answer = shared_api("GET", path)
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["location"] == shared_api.url + right


def test_unknown_path_or_method_returns_framework_error(shared_api: Api) -> None:
    absent, wrong = shared_api("GET", "/v2/nothing"), shared_api("PATCH", "/v2/health/")
    assert (absent.status_code, absent.json()) == (404, {"detail": "Not Found"})
    assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
    assert wrong.headers["allow"] == "GET"


def test_wrong_method_returns_405_with_allowed_methods(shared_api: Api) -> None:
    for path, allowed in {
        "/v2/users/me": "GET, PUT",
        "/v2/groups/1/invitations/": "GET, POST",
    }.items():
        answer = shared_api("DELETE", path, "member")
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_docs_page_loads_only_local_assets(shared_api: Api) -> None:
    page = shared_api("GET", "/v2/docs").text
    addresses = [
        part.partition('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]
    ]
    assert len(addresses) == 3
    for address in addresses:
        assert address.startswith("/v2/docs/assets/")
        assert shared_api("GET", address).status_code == 200
    assert "url: '/v2/openapi.json'" in page
    assert shared_api("GET", "/v2/openapi.json").json()["openapi"].startswith("3.1")


def test_cors_allows_front_end_only(shared_api: Api) -> None:
    asking = {"Origin": "http://localhost:8000", "Access-Control-Request-Method": "PUT"}
    assert shared_api("OPTIONS", "/v2/users/me", headers=asking).status_code == 200
    foreign = shared_api(
        "OPTIONS", "/v2/users/me", headers={**asking, "Origin": "https://example.org"}
    )
    assert (foreign.status_code, foreign.text) == (400, "Disallowed CORS origin")


def test_database_outage_returns_503(make_api: ApiFactory, seeded: Database) -> None:
    url = seeded.url.set(port=1)
    away = make_api(Database(url))
    answer = away("GET", "/v2/pathogens/", "member")
    assert answer.status_code == 503
    assert answer.json() == {"error": "the database cannot be reached"}
    assert int(answer.headers["retry-after"]) > 0
