"""Tokens: which are accepted, which are refused, and how rarely the provider is asked."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.api.conftest import CLIENT_ID, PRINCIPALS, Api, Provider

PATH = "/v2/pathogens/"


def ask(api: Api, token: str, scheme: str = "Bearer") -> tuple[int, Any]:
    answer = api("GET", PATH, headers={"Authorization": f"{scheme} {token}"})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_token_of_any_known_user_is_accepted(shared_api: Api, principal: str) -> None:
    assert shared_api("GET", PATH, principal).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer"])
def test_authorization_scheme_is_case_insensitive(shared_api: Api, scheme: str) -> None:
    assert ask(shared_api, shared_api.token("member"), scheme)[0] == 200


def test_token_with_several_audiences_and_matching_azp_is_accepted(shared_api: Api) -> None:
    assert (
        ask(shared_api, shared_api.token("member", aud=[CLIENT_ID, "x"], azp=CLIENT_ID))[0] == 200
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 30},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"sub": "auth0|stranger"},
        {"sub": "auth0|mem\0ber"},
        {"iss": "https://example.org/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": [CLIENT_ID]},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"header": {"kid": "unknown"}},
    ],
    ids=",".join,
)
def test_token_with_invalid_claim_or_key_id_is_rejected(
    shared_api: Api, changes: dict[str, Any]
) -> None:
    assert ask(shared_api, shared_api.token("member", **changes)) == (
        401,
        {"error": "Login failure"},
    )


@pytest.mark.parametrize("token", ["x", "a.b.c", "a.b", "ä"])
def test_malformed_token_is_rejected(shared_api: Api, token: str) -> None:
    answer = shared_api("GET", PATH, headers={"Authorization": f"Bearer {token}".encode()})
    assert (answer.status_code, answer.json()) == (401, {"error": "Login failure"})
    assert "www-authenticate" not in answer.headers


def test_token_with_wrong_signature_is_rejected(shared_api: Api) -> None:
    header, claims, signature = shared_api.token("viewer").split(".")
    other = shared_api.token("gadmin").split(".")[1]
    assert ask(shared_api, f"{header}.{other}.{signature}")[0] == 401
    assert ask(shared_api, f"{header}.{claims}.")[0] == 401


def test_token_signed_with_hs256_is_rejected(shared_api: Api) -> None:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": f"{shared_api.provider.url}/",
        "sub": "auth0|member",
        "aud": CLIENT_ID,
    }
    claims |= {"iat": now, "exp": now + 60}
    symmetric = OctKey.import_key("client-secret-of-some-length-or-other")
    assert ask(shared_api, jwt.encode({"alg": "HS256"}, claims, symmetric))[0] == 401


def test_provider_keys_are_fetched_once_for_many_requests(api: Api) -> None:
    before = len(api.provider.requests)
    for _ in range(5):
        assert api("GET", PATH, "member").status_code == 200
    assert len(api.provider.requests) - before == 1
    for n in range(5):  # unknown key IDs must not reach the provider either
        assert ask(api, api.token("member", header={"kid": f"made-up-{n}"}))[0] == 401
    assert len(api.provider.requests) - before <= 2


def test_token_signed_with_rotated_provider_key_is_accepted(api: Api) -> None:
    assert api("GET", PATH, "member").status_code == 200
    time.sleep(1.1)
    api.provider.rotate()
    assert ask(api, api.token("member"))[0] == 200


def test_provider_outage_returns_503_not_401(api: Api, provider: Provider) -> None:
    provider.answering = False
    try:
        status, body = ask(api, api.token("member"))
    finally:
        provider.answering = True
    assert (status, body) == (503, {"error": "the identity provider cannot be reached"})
    time.sleep(1.1)
    assert api("GET", PATH, "member").status_code == 200


def test_magic_link_is_not_accepted_as_credential(shared_api: Api) -> None:
    assert shared_api("GET", f"{PATH}?magic_link=anything").status_code == 401
