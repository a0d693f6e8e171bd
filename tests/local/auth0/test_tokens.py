"""The rest of the token endpoint, userinfo, and the knobs that cause hard cases."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError
from joserfc.jwk import KeySet

from aspen.local.auth0.store import Client, Grant, Seed, seed
from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    MANAGEMENT_SECRET,
    Identity,
    claims_of,
    running_identity,
)

MEMBER = "member@example.org"
JSON = {"content-type": "application/json"}


def published(identity: Identity) -> KeySet:
    return KeySet.import_key_set(identity.http.get(".well-known/jwks.json").json())


def test_discovery_document_lists_existing_endpoints(identity: Identity) -> None:
    found = identity.http.get(".well-known/openid-configuration").json()
    assert found["issuer"] == identity.issuer
    for name in ("token_endpoint", "device_authorization_endpoint", "revocation_endpoint"):
        assert httpx.post(found[name]).status_code == 400  # it exists, but parameters are missing
    for name in ("authorization_endpoint", "userinfo_endpoint", "jwks_uri"):
        assert httpx.get(found[name]).status_code != 404
    assert found["id_token_signing_alg_values_supported"] == ["RS256"]


def test_jwks_contains_only_public_keys(identity: Identity) -> None:
    keys = identity.http.get(".well-known/jwks.json").json()["keys"]
    assert {frozenset(key) for key in keys} == {frozenset(["n", "e", "kty", "kid", "use", "alg"])}
    assert {(key["kty"], key["alg"], key["use"]) for key in keys} == {("RSA", "RS256", "sig")}


def machine(identity: Identity, **changes: str) -> httpx.Response:
    sent = {
        "grant_type": "client_credentials",
        "client_id": MANAGEMENT,
        "client_secret": MANAGEMENT_SECRET,
        "audience": f"{identity.issuer}api/v2/",
    }
    return identity.token(**{**sent, **changes})


def test_client_credentials_grant_returns_token_with_allowed_scopes(identity: Identity) -> None:
    tokens = machine(identity, scope="read:users delete:everything").json()
    claims = claims_of(tokens["access_token"])
    assert claims["sub"] == f"{MANAGEMENT}@clients"
    assert claims["aud"] == f"{identity.issuer}api/v2/"
    assert (claims["gty"], claims["scope"]) == ("client-credentials", "read:users")
    assert tokens.keys() == {"access_token", "token_type", "expires_in", "scope"}


def test_client_credentials_grant_accepts_json_and_https_audience(identity: Identity) -> None:
    sent = {
        "grant_type": "client_credentials",
        "client_id": MANAGEMENT,
        "client_secret": MANAGEMENT_SECRET,
        "audience": f"https://127.0.0.1:{identity.port}/api/v2/",
    }
    assert identity.http.post("oauth/token", json=sent).status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_secret": ""}, 401, "invalid_client"),
        ({"client_id": CLIENT, "client_secret": ""}, 403, "unauthorized_client"),
        ({"audience": "https://other/"}, 403, "access_denied"),
        ({"audience": ""}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "authorization_code", "code": "x"}, 403, "unauthorized_client"),
    ],
)
def test_invalid_token_request_is_refused(
    identity: Identity, changes: dict[str, str], status: int, error: str
) -> None:
    answer = machine(identity, **changes)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (error == "invalid_client")


@pytest.mark.parametrize(
    "request_",
    [
        {"content": b"grant_type=a&grant_type=b", "headers": {}},
        {"content": b"grant_type=%ff"},
        {"content": b"{}", "headers": {"content-type": "text/plain"}},
        {"content": b"{", "headers": JSON},
        {"json": {"grant_type": 7}},
        {"json": ["grant_type"]},
        {"data": {"client_id": "x"}, "headers": {"authorization": "Basic %%%"}},
        {"data": {"client_id": "x", "grant_type": "password"}, "auth": ("y", "z")},
    ],
)
def test_malformed_token_request_is_refused(identity: Identity, request_: dict[str, Any]) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    if "content" in request_:
        request_ = {**request_, "headers": request_.get("headers") or form}
    answer = identity.http.post("oauth/token", **request_)
    assert answer.status_code in {400, 401}
    assert answer.json()["error"] in {
        "invalid_request",
        "invalid_client",
        "unsupported_grant_type",
    }


ODD = ["", "\0", "\ud800", "é\u202e\U0001f33f", "' OR 1=1 --", "../..", "x" * 5000]
NAMES = ("client_id", "client_secret", "grant_type", "refresh_token", "scope", "audience", "token")


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_unusual_text_never_causes_server_error(identity: Identity, odd: str) -> None:
    sent, usual = odd.encode(errors="surrogatepass"), {"client_id": CLIENT}
    for path in ("oauth/token", "oauth/device/code", "oauth/revoke", "activate", "login"):
        for name in (*NAMES, "organization", "user_code", "state", "email"):
            as_json = json.dumps({**usual, "grant_type": "refresh_token", name: odd}).encode()
            for answer in (
                identity.http.post(path, content=as_json, headers=JSON),
                identity.http.post(path, data={**usual, name: sent}),
                identity.http.get(path, params={name: sent}),
            ):
                assert answer.status_code < 500, (path, name)


@pytest.mark.parametrize("odd", ODD, ids=ascii)
def test_management_api_accepts_unusual_text_without_server_error(
    identity: Identity, odd: str
) -> None:
    sent = odd.encode(errors="surrogatepass")
    with identity.management() as api:
        for path in ("users", "users-by-email", "organizations", "roles", "connections"):
            for name in ("q", "sort", "fields", "page", "from", "name_filter", "email"):
                assert api.get(path, params={name: sent}).status_code < 500, (path, name)
            for body in ({"name": odd, "metadata": {"x": odd}}, odd, [odd], {odd: 1}):
                content = json.dumps(body).encode()
                answer = api.post(path, content=content, headers=JSON)
                assert answer.status_code < 500, (path, body)


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        ("Basic %%%", "invalid_client"),
        ("Basic eDp5", "invalid_client"),  # x:y
        ("Basic YXNwZW5jbGktbG9jYWw6d3Jvbmc=", "invalid_client"),  # aspencli-local:wrong
    ],
)
def test_invalid_client_authentication_is_refused(
    identity: Identity, authorization: str, error: str
) -> None:
    sent = {"grant_type": "refresh_token", "refresh_token": "x"}
    headers = {"Authorization": authorization}
    answer = identity.http.post("oauth/token", data=sent, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, error)
    twice = identity.http.post("oauth/token", data={**sent, "client_id": "z"}, auth=("y", "z"))
    assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")


def test_client_without_grant_gets_no_management_token(identity: Identity) -> None:
    idle = Client("idle", "Idle", (Grant.CLIENT_CREDENTIALS,), secret="s")
    seed(identity.folder, Seed(clients=[idle]))
    answer = machine(identity, client_id="idle", client_secret="s")
    assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
    assert "client-grant" in answer.json()["error_description"]


def test_user_blocked_after_approval_gets_no_tokens(identity: Identity) -> None:
    asked = identity.ask()
    identity.decide(asked["user_code"], "g3admin@example.org")
    with identity.management() as api:
        api.patch("users/auth0|g3admin", json={"blocked": True}).raise_for_status()
        answer = identity.poll(asked["device_code"])
        api.patch("users/auth0|g3admin", json={"blocked": False}).raise_for_status()
    assert answer.json() == {"error": "access_denied", "error_description": "user is blocked"}


def test_oversized_token_request_is_refused(identity: Identity) -> None:
    answer = identity.token(grant_type="x" * 70_000)
    assert (answer.status_code, answer.json()["error"]) == (413, "invalid_request")


def test_userinfo_returns_claims_of_granted_scopes(identity: Identity) -> None:
    token = identity.tokens(MEMBER, scope="openid email")["access_token"]
    for call in (httpx.get, httpx.post):
        told = call(f"{identity.issuer}userinfo", headers={"Authorization": f"bearer {token}"})
        assert told.json() == {"sub": "auth0|member", "email": MEMBER, "email_verified": True}


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x", "Basic eDp5"])
def test_userinfo_requires_access_token(identity: Identity, authorization: str) -> None:
    answer = identity.http.get("userinfo", headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


def test_userinfo_refuses_id_token_and_client_credentials_token(identity: Identity) -> None:
    for token in (identity.tokens(MEMBER)["id_token"], machine(identity).json()["access_token"]):
        headers = {"Authorization": f"Bearer {token}"}
        assert identity.http.get("userinfo", headers=headers).status_code == 401


def test_userinfo_of_deleted_user_is_unauthorized(identity: Identity) -> None:
    with identity.management() as api:
        body = {"connection": "Username-Password-Authentication", "password": "x"}
        user = api.post("users", json={**body, "email": "short@example.org"}).json()
        token = identity.tokens("short@example.org")["access_token"]
        api.delete(f"users/{user['user_id']}")
    headers = {"Authorization": f"Bearer {token}"}
    assert identity.http.get("userinfo", headers=headers).status_code == 401


def test_access_token_for_api_is_valid_for_userinfo(identity: Identity) -> None:
    audience = "https://api.example.org"
    token = identity.tokens(MEMBER, audience=audience)["access_token"]
    claims = claims_of(token)
    assert claims["aud"] == [audience, f"{identity.issuer}userinfo"]
    assert (claims["azp"], claims["scope"]) == (CLIENT, "openid profile email offline_access")
    answer = identity.http.get("userinfo", headers={"Authorization": f"Bearer {token}"})
    assert answer.json()["sub"] == "auth0|member"


def test_refused_requests_are_logged_without_secrets(identity: Identity) -> None:
    machine(identity, client_secret="a wrong secret to be found")
    identity.token(grant_type="refresh_token", refresh_token="a token to be found")
    assert '"path": "/oauth/token", "error": "invalid_client"' in identity.log
    assert '"error": "invalid_grant", "client": "aspencli-local"' in identity.log
    assert "to be found" not in identity.log


# The knobs


def test_issuer_and_audience_knobs_change_id_token_claims(identity: Identity) -> None:
    identity.turn(issuer="https://foreign.example/", audience="somebody else")
    claims = claims_of(identity.tokens(MEMBER)["id_token"])
    assert (claims["iss"], claims["aud"]) == ("https://foreign.example/", "somebody else")


@pytest.mark.parametrize("signing", ["wrong_key", "unknown_key"])
def test_signing_knob_issues_tokens_that_fail_verification(
    identity: Identity, signing: str
) -> None:
    identity.turn(signing=signing)
    token = identity.tokens(MEMBER)["id_token"]
    problem = BadSignatureError if signing == "wrong_key" else InvalidKeyIdError
    with pytest.raises(problem):
        jwt.decode(token, published(identity), ["RS256"])


@pytest.mark.parametrize("offset", [-7200, 7200])
def test_clock_offset_knob_shifts_token_times(identity: Identity, offset: int) -> None:
    identity.turn(clock_offset=offset, id_token_seconds=60)
    claims = claims_of(identity.tokens(MEMBER)["id_token"])
    assert abs(claims["iat"] - time.time() - offset) < 30
    assert claims["exp"] == claims["iat"] + 60


def test_lifetime_knobs_set_token_and_device_code_expiry(identity: Identity) -> None:
    identity.turn(id_token_seconds=7, access_token_seconds=8, device_seconds=9)
    assert identity.ask()["expires_in"] == 9
    tokens = identity.tokens(MEMBER)
    assert tokens["expires_in"] == 8
    for name, seconds in (("id_token", 7), ("access_token", 8)):
        claims = claims_of(tokens[name])
        assert claims["exp"] - claims["iat"] == seconds


def test_slow_down_knob_applies_to_given_number_of_polls(identity: Identity) -> None:
    identity.turn(slow_down=2, interval=0)
    code = identity.ask()["device_code"]
    errors = [identity.poll(code).json()["error"] for _ in range(3)]
    assert errors == ["slow_down", "slow_down", "authorization_pending"]


def test_slow_down_in_rfc_dialect_adds_five_seconds(identity: Identity) -> None:
    identity.turn(dialect="rfc", interval=0.5)
    code = identity.ask()["device_code"]
    identity.poll(code)
    assert identity.poll(code).json()["error"] == "slow_down"
    time.sleep(0.6)
    assert "5.5 seconds" in identity.poll(code).json()["error_description"]


@pytest.mark.parametrize("wait", [7, None])
def test_throttled_knob_returns_429_with_retry_after(identity: Identity, wait: int | None) -> None:
    with identity.management() as api:
        identity.turn(throttled=2, retry_after=wait)
        for answer in (identity.token(), api.get("roles")):
            assert answer.status_code == 429
            assert answer.headers.get("retry-after") == (None if wait is None else str(wait))
        assert api.get("roles").status_code == 200


@pytest.mark.parametrize(
    "change", [{"shoe": 44}, {"interval": "x"}, {"signing": "none"}, {"slow_down": "many"}]
)
def test_invalid_knob_is_refused_and_named(identity: Identity, change: dict[str, Any]) -> None:
    answer = identity.http.patch("trial/knobs", json=change)
    assert answer.status_code == 400
    assert next(iter(change)) in answer.json()["error"]


def test_knobs_can_be_read_and_reset(identity: Identity) -> None:
    usual = identity.http.get("trial/knobs").json()
    identity.turn(interval=1)
    assert identity.http.get("trial/knobs").json() == {**usual, "interval": 1}
    identity.reset()
    assert identity.http.get("trial/knobs").json() == usual


def test_knobs_are_absent_without_trial_mode(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state", "--dialect", "rfc") as identity:
        for method in ("GET", "PATCH", "DELETE"):
            answer = identity.http.request(method, "trial/knobs", json={})
            assert answer.status_code == 404
        assert identity.poll(identity.ask()["device_code"]).status_code == 400
