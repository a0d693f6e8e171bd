"""The order of checks, and the group and pathogen of a request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api

TREES = "usher/tree_versions/"


def ask(
    api: Api, path: str, principal: str | None, method: str = "GET", **options: Any
) -> tuple[int, Any]:
    answer = api(method, path, principal, **options)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("prefix", ["", "pathogens/SC2/", "pathogens/HCV/"])
@pytest.mark.parametrize("principal", ["gadmin", "member", "viewer", "sysmember", "multi"])
def test_any_role_in_group_grants_access_to_its_paths(
    shared_api: Api, principal: str, prefix: str
) -> None:
    assert ask(shared_api, f"/v2/orgs/1/{prefix}{TREES}", principal)[0] == 200


@pytest.mark.parametrize(
    ("principal", "group"),
    [
        ("sysadmin", 1),
        ("nogroup", 1),
        ("g2admin", 1),
        ("g3admin", 2),
        ("member", 2),
        ("gadmin", 99),
    ],
)
def test_user_without_role_in_group_gets_403(shared_api: Api, principal: str, group: int) -> None:
    refused = (403, {"error": "Not authorized"})
    assert ask(shared_api, f"/v2/orgs/{group}/{TREES}", principal) == refused
    # A wrong pathogen must not reveal more either.
    assert ask(shared_api, f"/v2/orgs/{group}/pathogens/XX/{TREES}", principal) == refused


def test_group_id_in_query_overrides_group_in_path(shared_api: Api) -> None:
    assert ask(shared_api, f"/v2/orgs/1/{TREES}?group_id=2", "g2admin")[0] == 200
    assert ask(shared_api, f"/v2/orgs/1/{TREES}?group_id=2", "member")[0] == 403
    assert ask(shared_api, f"/v2/orgs/99/{TREES}?group_id=1", "member")[0] == 200


@pytest.mark.parametrize("slug", ["sc2", "XX", "SC2%00", "%F0%9F%A6%A0"])
def test_unknown_pathogen_returns_400(shared_api: Api, slug: str) -> None:
    refused = (400, {"error": "Invalid pathogen slug"})
    assert ask(shared_api, f"/v2/orgs/1/pathogens/{slug}/{TREES}", "member") == refused
    assert ask(shared_api, f"/v2/orgs/1/{TREES}?pathogen_slug={slug}", "member") == refused


def test_pathogen_in_path_overrides_pathogen_in_query(shared_api: Api) -> None:
    path = f"/v2/orgs/1/pathogens/XX/{TREES}?pathogen_slug=SC2"
    assert ask(shared_api, path, "member")[0] == 400


def test_request_without_token_returns_401_before_other_checks(shared_api: Api) -> None:
    refused = (401, {"error": "Login failure"})
    for path in (
        f"/v2/orgs/1/{TREES}",
        f"/v2/orgs/x/{TREES}",
        f"/v2/orgs/1/pathogens/XX/{TREES}",
        "/v2/groups/x/",
    ):
        assert ask(shared_api, path, None) == refused
    assert ask(shared_api, "/v2/locations/search/", None, "POST", json={"country": []}) == refused


def test_invalid_json_is_reported_after_checks_that_need_no_body(shared_api: Api) -> None:
    options: dict[str, Any] = {
        "content": b'{"country": ',
        "headers": {"Content-Type": "application/json"},
    }
    search, samples = "/v2/locations/search/", "/v2/orgs/1/{}samples/validate_ids/"
    refused = (401, {"error": "Login failure"})
    assert ask(shared_api, search, None, "POST", **options) == refused
    assert ask(shared_api, samples.format(""), None, "POST", **options) == refused
    assert ask(shared_api, samples.format(""), "g2admin", "POST", **options)[0] == 403
    assert ask(shared_api, samples.format("pathogens/XX/"), "member", "POST", **options)[0] == 400
    assert ask(shared_api, samples.format(""), "member", "POST", **options)[0] == 422
    status, body = ask(shared_api, search, "member", "POST", **options)
    assert status == 422
    (finding,) = body["detail"]
    assert finding["loc"][0] == "body"
    assert {"loc", "msg", "type"} <= set(finding)


@pytest.mark.parametrize("number", ["x", "1.5", "", "99999999999", "-99999999999"])
def test_invalid_group_id_returns_422_with_one_error(shared_api: Api, number: str) -> None:
    status, body = ask(shared_api, f"/v2/orgs/{number}/{TREES}", "member")
    if number == "":
        assert status == 404
        return
    assert status == 422
    (finding,) = body["detail"]
    assert finding["loc"] == ["path", "org_id"]


def test_body_without_content_type_is_json_and_text_plain_is_rejected(shared_api: Api) -> None:
    path, body = "/v2/locations/search/", b'{"country": "usa"}'
    assert ask(shared_api, path, "member", "POST", content=body)[0] == 200
    status, answer = ask(
        shared_api, path, "member", "POST", content=body, headers={"Content-Type": "text/plain"}
    )
    assert status == 422
    assert answer["detail"][0]["loc"] == ["body"]


@pytest.mark.parametrize("body", [b"\xff\xfe", b'{"country": "\\ud800"}', b"[" * 100_000, b"1e999"])
def test_malformed_body_returns_422(shared_api: Api, body: bytes) -> None:
    answer = shared_api("POST", "/v2/locations/search/", "member", content=body)
    assert answer.status_code == 422
    (finding,) = answer.json()["detail"]
    assert finding["loc"][0] == "body"
