"""The device authorization grant, from a program's first request to its tokens."""

from __future__ import annotations

import time
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from aspen.local.auth0.store import Grant
from tests.local.auth0.lab import CLIENT, MANAGEMENT, ORGANIZATIONS, Identity, claims_of

MEMBER = "member@example.org"


def test_device_code_response_has_all_rfc_8628_fields(identity: Identity) -> None:
    asked = identity.ask()
    assert asked["verification_uri"] == f"{identity.issuer}activate"
    complete = urlsplit(asked["verification_uri_complete"])
    assert parse_qs(complete.query) == {"user_code": [asked["user_code"]]}
    assert (asked["expires_in"], asked["interval"]) == (900, 5)
    assert len(asked["device_code"]) >= 43


def test_approved_device_request_gives_token_signed_by_published_key(
    identity: Identity,
) -> None:
    tokens = identity.tokens(MEMBER)
    keys = identity.http.get(".well-known/jwks.json").json()
    token = jwt.decode(tokens["id_token"], KeySet.import_key_set(keys), ["RS256"])
    assert token.header["kid"] in {key["kid"] for key in keys["keys"]}
    claims = token.claims
    assert (claims["iss"], claims["aud"]) == (identity.issuer, CLIENT)
    assert (claims["sub"], claims["email"]) == ("auth0|member", MEMBER)
    assert claims["name"] == "Member Example"
    assert claims["iat"] <= time.time() < claims["exp"]
    assert "org_id" not in claims


def test_device_code_gives_tokens_once(identity: Identity) -> None:
    asked = identity.ask()
    identity.decide(asked["user_code"], MEMBER)
    assert identity.poll(asked["device_code"]).status_code == 200
    again = identity.poll(asked["device_code"])
    assert (again.status_code, again.json()["error"]) == (403, "invalid_grant")


@pytest.mark.parametrize(("dialect", "status"), [("auth0", 403), ("rfc", 400)])
def test_pending_device_request_reports_authorization_pending(
    identity: Identity, dialect: str, status: int
) -> None:
    identity.turn(dialect=dialect)
    answer = identity.poll(identity.ask()["device_code"])
    assert (answer.status_code, answer.json()["error"]) == (status, "authorization_pending")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("dialect", "status"), [("auth0", 429), ("rfc", 400)])
def test_polling_too_fast_returns_slow_down(identity: Identity, dialect: str, status: int) -> None:
    identity.turn(dialect=dialect)
    code = identity.ask()["device_code"]
    identity.poll(code)
    answer = identity.poll(code)
    assert (answer.status_code, answer.json()["error"]) == (status, "slow_down")


def test_polling_at_interval_is_not_slowed_down(identity: Identity) -> None:
    identity.turn(interval=1)
    code = identity.ask()["device_code"]
    identity.poll(code)
    time.sleep(1)
    assert identity.poll(code).json()["error"] == "authorization_pending"


@pytest.mark.parametrize(("dialect", "status"), [("auth0", 403), ("rfc", 400)])
def test_denied_device_request_gives_no_tokens(
    identity: Identity, dialect: str, status: int
) -> None:
    identity.turn(dialect=dialect, interval=0)
    asked = identity.ask()
    identity.decide(asked["user_code"], MEMBER, approve=False)
    for _ in range(2):
        answer = identity.poll(asked["device_code"])
        assert (answer.status_code, answer.json()["error"]) == (status, "access_denied")


def test_expired_device_code_is_reported_once_and_then_unknown(identity: Identity) -> None:
    identity.turn(device_seconds=0.3)
    asked = identity.ask()
    time.sleep(0.4)
    assert identity.poll(asked["device_code"]).json()["error"] == "expired_token"
    assert identity.poll(asked["device_code"]).json()["error"] == "invalid_grant"


def test_interval_of_device_code_response_can_be_omitted(identity: Identity) -> None:
    identity.turn(omit_interval=True)
    assert "interval" not in identity.ask()


def test_refresh_token_requires_offline_access_scope(identity: Identity) -> None:
    tokens = identity.tokens(MEMBER, scope="openid")
    assert "refresh_token" not in tokens
    assert "email" not in claims_of(tokens["id_token"])


def test_id_token_names_requested_organization(identity: Identity) -> None:
    tokens = identity.tokens(MEMBER, organization=ORGANIZATIONS[0])
    assert claims_of(tokens["id_token"])["org_id"] == ORGANIZATIONS[0]


@pytest.mark.parametrize(
    ("sent", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"client_id": MANAGEMENT}, 401, "invalid_client"),
        ({"client_id": CLIENT, "client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": CLIENT, "audience": "https://other"}, 403, "access_denied"),
        ({"client_id": CLIENT, "organization": "org_none"}, 400, "invalid_request"),
    ],
)
def test_invalid_device_code_request_is_refused(
    identity: Identity, sent: dict[str, str], status: int, error: str
) -> None:
    answer = identity.http.post("oauth/device/code", data=sent)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_unknown_or_missing_device_code_is_refused(identity: Identity) -> None:
    answer = identity.token(grant_type=Grant.DEVICE_CODE, device_code="made up")
    assert answer.json()["error"] == "invalid_grant"
    missing = identity.token(grant_type=Grant.DEVICE_CODE)
    assert (missing.status_code, missing.json()["error"]) == (400, "invalid_request")
