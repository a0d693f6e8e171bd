"""Blocked and deleted users, their sessions, and their refresh tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.local.auth0.lab import CALLBACK, CLIENT, ORGANIZATIONS, Identity, submit

CONNECTION = "Username-Password-Authentication"
EMAIL = "leaver@example.org"


@pytest.fixture
def api(identity: Identity) -> Iterator[httpx.Client]:
    with identity.management() as client:
        yield client


@pytest.fixture
def leaver(api: httpx.Client) -> Iterator[str]:
    """Yield the ID of a user, who is deleted afterward."""
    body = {"connection": CONNECTION, "email": EMAIL, "password": "x", "verify_email": False}
    made = api.post("users", json=body).raise_for_status().json()
    yield made["user_id"]
    api.delete(f"users/{made['user_id']}")


def refresh(identity: Identity, token: str) -> httpx.Response:
    return identity.token(grant_type="refresh_token", refresh_token=token)


def authorize(browser: httpx.Client, **more: str) -> httpx.Response:
    sent = {"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code", **more}
    return browser.get("authorize", params=sent, follow_redirects=False)


def sign_in(browser: httpx.Client) -> None:
    page = browser.get(authorize(browser).headers["location"])
    browser.follow_redirects = False
    assert (
        "code="
        in browser.get(submit(browser, page, email=EMAIL).headers["location"]).headers["location"]
    )


def is_signed_in(browser: httpx.Client) -> bool:
    """Return True if the browser gets a code without a question."""
    return "code=" in authorize(browser, prompt="none").headers["location"]


def block(api: httpx.Client, user_id: str) -> None:
    api.patch(f"users/{user_id}", json={"blocked": True}).raise_for_status()


# Blocked and deleted users


def test_blocked_user_is_signed_out_and_not_offered_for_sign_in(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    with identity.client() as browser:
        sign_in(browser)
        assert is_signed_in(browser)
        block(api, leaver)
        assert not is_signed_in(browser)
        page = browser.get(authorize(browser).headers["location"])
        assert EMAIL not in page.text
        refused = submit(browser, page, email=EMAIL)
        assert (refused.status_code, "is blocked" in refused.text) == (403, True)
        assert not is_signed_in(browser)


def test_blocked_user_cannot_accept_invitation(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    body = {"inviter": {"name": "Gale"}, "invitee": {"email": EMAIL}, "client_id": CLIENT}
    made = api.post(f"organizations/{ORGANIZATIONS[0]}/invitations", json=body).json()
    block(api, leaver)
    invited = {"invitation": made["ticket_id"], "organization": ORGANIZATIONS[0]}
    with identity.client() as browser:
        page = browser.get(authorize(browser, **invited).headers["location"])
        refused = submit(browser, page)
    assert (refused.status_code, "is blocked" in refused.text) == (403, True)
    assert api.get(f"users/{leaver}/organizations").json() == []


def test_blocked_user_gets_no_user_information(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    headers = {"Authorization": f"Bearer {identity.tokens(EMAIL)['access_token']}"}
    assert identity.http.get("userinfo", headers=headers).json()["sub"] == leaver
    block(api, leaver)
    assert identity.http.get("userinfo", headers=headers).status_code == 401


def test_deleted_user_cannot_refresh_or_sign_in(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    token = identity.tokens(EMAIL)["refresh_token"]
    with identity.client() as browser:
        sign_in(browser)
        api.delete(f"users/{leaver}").raise_for_status()
        assert refresh(identity, token).json()["error"] == "invalid_grant"
        assert not is_signed_in(browser)


# Sessions


def test_sessions_of_user_are_listed_and_deleted(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    path = f"users/{leaver}/sessions"
    assert api.get(path).json() == {"sessions": []}
    with identity.client() as one, identity.client() as other:
        sign_in(one)
        sign_in(other)
        sessions = api.get(path).json()["sessions"]
        assert {session["user_id"] for session in sessions} == {leaver}
        assert len({session["id"] for session in sessions}) == 2
        for session in sessions:
            began, ends = (
                datetime.fromisoformat(session[name]) for name in ("authenticated_at", "expires_at")
            )
            assert began < ends
            assert session["id"] not in str(one.cookies)
        assert pages(api, path, "sessions") == sorted(session["id"] for session in sessions)
        answer = api.delete(path)
        assert (answer.status_code, answer.content) == (202, b"")
        assert api.get(path).json() == {"sessions": []}
        assert not is_signed_in(one)
        assert not is_signed_in(other)
    assert api.delete(path).status_code == 202


def test_deleting_sessions_keeps_other_users_signed_in(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    with identity.client() as browser:
        sign_in(browser)
        api.delete("users/auth0|member/sessions").raise_for_status()
        assert is_signed_in(browser)
    assert leaver


def test_deleting_sessions_leaves_refresh_tokens_valid_as_at_auth0(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    token = identity.tokens(EMAIL)["refresh_token"]
    api.delete(f"users/{leaver}/sessions").raise_for_status()
    assert refresh(identity, token).status_code == 200


# Refresh tokens


def test_refresh_tokens_of_user_are_listed_and_revoked(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    path = f"users/{leaver}/refresh-tokens"
    assert api.get(path).json() == {"tokens": []}
    first = identity.tokens(EMAIL)["refresh_token"]
    second = identity.tokens(EMAIL, audience="https://api.example.org")["refresh_token"]
    before = {token["id"]: token for token in api.get(path).json()["tokens"]}
    assert len(before) == 2
    for token in before.values():
        assert (token["user_id"], token["client_id"]) == (leaver, CLIENT)
        assert token["rotating"] is True
    servers = sorted(token["resource_servers"][0]["audience"] for token in before.values())
    assert servers == ["", "https://api.example.org"]
    assert pages(api, path, "tokens") == sorted(before)

    first = refresh(identity, first).json()["refresh_token"]
    after = {token["id"]: token for token in api.get(path).json()["tokens"]}
    assert after.keys() == before.keys()  # the exchanged token replaces its predecessor
    assert {t["created_at"] for t in after.values()} == {t["created_at"] for t in before.values()}
    for secret in (first, second):
        assert secret not in str(after)

    answer = api.delete(path)
    assert (answer.status_code, answer.content) == (202, b"")
    assert api.get(path).json() == {"tokens": []}
    for secret in (first, second):
        assert refresh(identity, secret).json()["error"] == "invalid_grant"
    assert api.delete(path).status_code == 202


def test_revoking_refresh_tokens_leaves_sessions_and_other_users_alone(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    token = identity.tokens("member@example.org")["refresh_token"]
    with identity.client() as browser:
        sign_in(browser)
        api.delete(f"users/{leaver}/refresh-tokens").raise_for_status()
        assert is_signed_in(browser)
    assert refresh(identity, token).status_code == 200


@pytest.mark.parametrize("noun", ["sessions", "refresh-tokens"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_sessions_and_tokens_require_scope_and_known_user(
    identity: Identity, api: httpx.Client, method: str, noun: str
) -> None:
    missing = api.request(method, f"users/auth0|nobody/{noun}").json()
    assert (missing["statusCode"], missing["errorCode"]) == (404, "inexistent_user")
    verb = {"GET": "read", "DELETE": "delete"}[method]
    scope = f"{verb}:{noun.replace('-', '_')}"
    with identity.management(scope=scope) as allowed:
        assert allowed.request(method, f"users/auth0|viewer/{noun}").is_success
    with identity.management(scope="update:users") as other:
        refused = other.request(method, f"users/auth0|viewer/{noun}")
    assert refused.status_code == 403
    assert refused.json()["message"] == f"Insufficient scope, expected any of: {scope}"


# Other plans than Enterprise


def test_refresh_tokens_are_credentials_of_devices_too(
    identity: Identity, api: httpx.Client, leaver: str
) -> None:
    secret = identity.tokens(EMAIL)["refresh_token"]
    query = {"user_id": leaver, "type": "rotating_refresh_token", "include_totals": "true"}
    found = api.get("device-credentials", params=query).json()
    (credential,) = found["device_credentials"]
    assert found["total"] == 1
    assert (credential["user_id"], credential["client_id"]) == (leaver, CLIENT)
    assert secret not in str(found)
    for other in ({**query, "type": "refresh_token"}, {"user_id": leaver}):
        there = api.get("device-credentials", params={**other, "include_totals": "true"}).json()
        assert there["device_credentials"] == []
    for _ in range(2):
        assert api.delete(f"device-credentials/{credential['id']}").status_code == 204
    assert refresh(identity, secret).json()["error"] == "invalid_grant"
    assert api.get("device-credentials", params=query).json()["device_credentials"] == []


@pytest.mark.parametrize("status", [403, 404])
def test_other_plans_have_only_credentials_of_devices(
    identity: Identity, api: httpx.Client, leaver: str, status: int
) -> None:
    identity.turn(enterprise=False, refusal=status)
    for method in ("GET", "DELETE"):
        for noun in ("sessions", "refresh-tokens"):
            answer = api.request(method, f"users/{leaver}/{noun}")
            assert answer.status_code == status
            assert answer.json().get("errorCode") not in {"insufficient_scope", "inexistent_user"}
    assert api.get("device-credentials", params={"user_id": leaver}).status_code == 200


def pages(api: httpx.Client, path: str, name: str) -> list[str]:
    """Return the IDs of all items, read one by one."""
    found: list[str] = []
    query: dict[str, Any] = {"take": 1}
    while True:
        answer = api.get(path, params=query).raise_for_status().json()
        found += [item["id"] for item in answer[name]]
        if "next" not in answer:
            return found
        query["from"] = answer["next"]
