"""Checks of request bodies that apply to every view."""

from __future__ import annotations

import asyncio
import json
import sys
from types import FrameType, SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.exceptions import RequestValidationError

from aspen.api.admission import refuse_deep, refuse_nul
from aspen.api.limits import ServiceLimits
from tests.api.conftest import Api

PATH = "/v2/locations/search/"


def sent(api: Api, body: bytes, **headers: str) -> httpx.Response:
    return api("POST", PATH, "member", content=body, headers=headers)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_nul_in_body_is_rejected_in_any_encoding(shared_api: Api, encoding: str) -> None:
    answer = sent(shared_api, json.dumps({"country": "a\0"}).encode(encoding))
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {"loc": ["body", "country"], "msg": "a NUL character cannot be stored", "type": "nul"}
    ]


def test_nuls_are_listed_with_location_in_body_order(shared_api: Api) -> None:
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
def test_text_resembling_nul_escape_is_accepted(shared_api: Api, text: str) -> None:
    assert sent(shared_api, json.dumps({"country": text}).encode()).is_success


def test_invalid_json_with_nul_is_reported_as_invalid_json(shared_api: Api) -> None:
    for body in (b'{"country": "\0"}', b'"\\u0000', b"\0"):
        answer = sent(shared_api, body)
        assert answer.status_code == 422, body
        assert answer.json()["detail"][0]["type"] == "json_invalid"
    answer = sent(shared_api, b'{"country": "\\u0000"}', **{"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_nul_at_maximum_depth_is_reported(shared_api: Api) -> None:
    document: Any = "\0"
    for _ in range(31):
        document = [document]
    answer = sent(shared_api, json.dumps({"country": document}).encode())
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "country", *[0] * 31]


@pytest.mark.parametrize(("count", "more"), [(1_000, []), (1_001, [1]), (490_000, [1])])
def test_nuls_are_listed_up_to_a_limit(shared_api: Api, count: int, more: list[int]) -> None:
    body = b'{"samples": [], "more": [%s0]}' % (b'"\\u0000",' * count)
    answer = shared_api("PUT", "/v2/orgs/1/pathogens/SC2/samples/", "viewer", content=body)
    assert answer.status_code == 422
    listed = answer.json()["detail"]
    assert [one["loc"][2] for one in listed if one["type"] == "nul"] == [*range(1_000 - len(more))]
    rest = [(one["type"], one.get("ctx")) for one in listed if one["type"] != "nul"]
    unlisted = [("too_many_errors", {"listed": 1_000, "not_listed": 1}) for _ in more]
    assert rest == [("not_checked", None) for _ in more] + unlisted


def request_of(body: bytes) -> Request:
    """Return a request to the service with the given body."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    app = SimpleNamespace(state=SimpleNamespace(limits=ServiceLimits()))
    return Request({"type": "http", "method": "PUT", "headers": [], "app": app}, receive)


def python_calls(request: Request) -> int:
    """Return the number of Python function calls that the checks of a body take."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    async def check() -> None:
        await request.json()
        sys.setprofile(count)
        try:
            await refuse_deep(request)
            await refuse_nul(request)
        finally:
            sys.setprofile(None)

    asyncio.run(check())
    return calls


@pytest.mark.parametrize("value", [b"{}", b"[]", b'{"a":[0]}', b'"\\\\u0000"'])
def test_body_checks_make_no_python_call_per_value(value: bytes) -> None:
    body = b'{"more": [%s0]}'
    few, many = (python_calls(request_of(body % (b"%s," % value * n))) for n in (100, 10_000))
    assert many == few


def test_nul_check_stops_at_error_limit() -> None:
    with pytest.raises(RequestValidationError) as caught:
        python_calls(request_of(b"[%s0]" % (b'"\\u0000",' * 100_000)))
    assert len(caught.value.errors()) == 1_001


def test_body_errors_are_not_shown_without_sign_in(shared_api: Api) -> None:
    answer = shared_api("POST", PATH, None, json={"country": "\0"})
    assert answer.status_code == 401
