"""What no body may hold, whichever view it is for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import Api

PATH = "/v2/locations/search/"


def sent(api: Api, body: bytes, **headers: str) -> httpx.Response:
    return api("POST", PATH, "member", content=body, headers=headers)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_nul_is_found_in_whatever_encoding(shared_api: Api, encoding: str) -> None:
    answer = sent(shared_api, json.dumps({"country": "a\0"}).encode(encoding))
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {"loc": ["body", "country"], "msg": "a NUL character cannot be stored", "type": "nul"}
    ]


def test_every_nul_is_told_with_its_place_in_the_order_of_the_body(shared_api: Api) -> None:
    wanted = {"samples": [{"private_identifier": "a\0"}, {"id": 2}, {"public_identifier": "\0"}]}
    path = "/v2/orgs/1/pathogens/SC2/samples/"
    answer = shared_api("PUT", path, "member", json={**wanted, "more": ["b", "\0"]})
    assert answer.status_code == 422
    assert [finding["loc"] for finding in answer.json()["detail"]] == [
        ["body", "samples", 0, "private_identifier"],
        ["body", "samples", 2, "public_identifier"],
        ["body", "more", 1],
    ]


@pytest.mark.parametrize("text", ["\\u0000", "u0000", "\\\\u0000", "\u0001"])
def test_what_only_looks_like_a_nul_is_text(shared_api: Api, text: str) -> None:
    assert sent(shared_api, json.dumps({"country": text}).encode()).is_success


def test_a_body_with_nuls_that_is_no_json_is_told_so(shared_api: Api) -> None:
    for body in (b'{"country": "\0"}', b'"\\u0000', b"\0"):
        answer = sent(shared_api, body)
        assert answer.status_code == 422, body
        assert answer.json()["detail"][0]["type"] == "json_invalid"
    answer = sent(shared_api, b'{"country": "\\u0000"}', **{"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_a_nul_may_lie_as_deep_as_a_body_can(shared_api: Api) -> None:
    document: Any = "\0"
    for _ in range(31):
        document = [document]
    answer = sent(shared_api, json.dumps({"country": document}).encode())
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "country", *[0] * 31]


def test_who_is_not_signed_in_learns_nothing_of_the_body(shared_api: Api) -> None:
    answer = shared_api("POST", PATH, None, json={"country": "\0"})
    assert answer.status_code == 401
