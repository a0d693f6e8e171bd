"""Refresh tokens: exchanged once, and ended by reuse, by revocation, and by time."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    MANAGEMENT_SECRET,
    ORGANIZATIONS,
    Identity,
    claims_of,
    running_identity,
)

MEMBER = "member@example.org"


def refresh(identity: Identity, token: str, **parameters: str) -> httpx.Response:
    return identity.token(grant_type="refresh_token", refresh_token=token, **parameters)


def revoke(identity: Identity, **parameters: str) -> httpx.Response:
    return identity.http.post("oauth/revoke", data={"client_id": CLIENT, **parameters})


def refused(answer: httpx.Response) -> bool:
    known = {"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}
    return answer.status_code == 403 and answer.json() == known


def test_refresh_returns_new_tokens_for_same_session(identity: Identity) -> None:
    first = identity.tokens(MEMBER, organization=ORGANIZATIONS[0])
    second = refresh(identity, first["refresh_token"]).raise_for_status().json()
    assert second["refresh_token"] != first["refresh_token"]
    claims = claims_of(second["id_token"])
    assert (claims["sub"], claims["org_id"]) == ("auth0|member", ORGANIZATIONS[0])
    assert claims["auth_time"] == claims_of(first["id_token"])["auth_time"]
    assert second["scope"] == first["scope"]
    third = refresh(identity, second["refresh_token"])
    assert third.status_code == 200


def test_refresh_token_reuse_revokes_whole_family(identity: Identity) -> None:
    stolen = identity.tokens(MEMBER)["refresh_token"]
    current = refresh(identity, stolen).json()["refresh_token"]
    assert refused(refresh(identity, stolen))
    assert refused(refresh(identity, current))
    assert '"event": "refresh.reused"' in identity.log


def test_refresh_token_reuse_does_not_affect_other_sign_ins(identity: Identity) -> None:
    stolen, other = (identity.tokens(MEMBER)["refresh_token"] for _ in range(2))
    refresh(identity, stolen)
    refresh(identity, stolen)
    assert refresh(identity, other).status_code == 200


def test_invalid_refresh_token_in_rfc_dialect_returns_400(identity: Identity) -> None:
    identity.turn(dialect="rfc")
    answer = refresh(identity, "made up")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_refresh_cannot_widen_scope(identity: Identity) -> None:
    token = identity.tokens(MEMBER, scope="openid offline_access")["refresh_token"]
    more = refresh(identity, token, scope="openid email")
    assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")
    assert refresh(identity, token, scope="openid").json()["scope"] == "openid offline_access"


def test_expired_refresh_token_is_refused(identity: Identity) -> None:
    identity.turn(refresh_token_seconds=1)
    token = identity.tokens(MEMBER)["refresh_token"]
    time.sleep(1.1)
    assert refused(refresh(identity, token))


def test_refresh_token_of_another_client_is_refused(identity: Identity) -> None:
    token = identity.tokens(MEMBER)["refresh_token"]
    other = {"client_id": MANAGEMENT, "client_secret": MANAGEMENT_SECRET}
    answer = refresh(identity, token, **other)
    assert answer.json()["error"] == "unauthorized_client"
    assert refresh(identity, token).status_code == 200


def test_blocked_user_cannot_refresh_tokens(identity: Identity) -> None:
    token = identity.tokens("viewer@example.org")["refresh_token"]
    with identity.management() as api:
        api.patch("users/auth0|viewer", json={"blocked": True}).raise_for_status()
        assert refresh(identity, token).json()["error"] == "invalid_grant"
        api.patch("users/auth0|viewer", json={"blocked": False}).raise_for_status()
    assert refresh(identity, token).status_code == 200


def test_user_removed_from_organization_gets_no_tokens_for_it(identity: Identity) -> None:
    redwood = ORGANIZATIONS[0]
    token = identity.tokens("sysmember@example.org", organization=redwood)["refresh_token"]
    asked = identity.ask(organization=redwood)
    identity.decide(asked["user_code"], "sysmember@example.org")
    members = {"members": ["auth0|sysmember"]}
    with identity.management() as api:
        api.request("DELETE", f"organizations/{redwood}/members", json=members).raise_for_status()
    for answer in (refresh(identity, token), identity.poll(asked["device_code"])):
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
        assert "is not part of the org_" in answer.json()["error_description"]


@pytest.mark.parametrize("sent", [{}, {"refresh_token": ""}])
def test_missing_refresh_token_is_named_in_error(identity: Identity, sent: dict[str, str]) -> None:
    answer = identity.token(grant_type="refresh_token", **sent)
    assert answer.json() == {
        "error": "invalid_request",
        "error_description": "Missing required parameter: refresh_token",
    }


def test_revoked_refresh_token_is_refused(identity: Identity) -> None:
    first = identity.tokens(MEMBER)["refresh_token"]
    second = refresh(identity, first).json()["refresh_token"]
    for _ in range(2):
        assert revoke(identity, token=second).status_code == 200
    assert refused(refresh(identity, second))


def test_revocation_requires_known_client_and_refresh_token(identity: Identity) -> None:
    assert revoke(identity, token="unknown").status_code == 200
    assert revoke(identity).json()["error"] == "invalid_request"
    assert revoke(identity, token="x", client_id="nobody").status_code == 401
    answer = revoke(identity, token="x", token_type_hint="access_token")
    assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type")


def test_concurrent_refresh_in_two_processes_succeeds_once(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with running_identity(folder) as one, running_identity(folder) as two:
        for _ in range(5):
            token = one.tokens(MEMBER)["refresh_token"]
            with ThreadPoolExecutor(8) as many:
                answers = list(many.map(refresh, [one, two] * 4, [token] * 8))
            assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7
            won = next(answer for answer in answers if answer.status_code == 200).json()
            assert refused(refresh(two, won["refresh_token"]))


def test_refresh_token_can_be_reused_within_reuse_interval(tmp_path: Path) -> None:
    with running_identity(tmp_path / "state", "--reuse-seconds", "1") as identity:
        first = identity.tokens(MEMBER)["refresh_token"]
        lost = refresh(identity, first)
        again = refresh(identity, first)
        assert (lost.status_code, again.status_code) == (200, 200)
        time.sleep(1.1)
        assert refused(refresh(identity, first))
        assert refused(refresh(identity, again.json()["refresh_token"]))


def test_issued_tokens_are_not_stored_or_logged_in_plain_text(identity: Identity) -> None:
    tokens: dict[str, Any] = identity.tokens(MEMBER)
    asked = identity.ask()
    secrets = [tokens["refresh_token"], tokens["access_token"], asked["device_code"]]
    for file in identity.folder.iterdir():
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content]
    assert not [secret for secret in [*secrets, tokens["id_token"]] if secret in identity.log]
