"""Sign-in from a web application: authorization codes, invitations, and signing out."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.local.auth0.lab import (
    CALLBACK,
    CLIENT,
    MANAGEMENT,
    ORGANIZATIONS,
    WEB_SECRET,
    Identity,
    claims_of,
    submit,
)

MEMBER = "member@example.org"
VERIFIER = "a-verifier-of-at-least-43-characters-0123456789"
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
)
REQUEST = {
    "response_type": "code",
    "client_id": CLIENT,
    "redirect_uri": CALLBACK,
    "scope": "openid profile email",
    "state": "the state",
    "nonce": "the nonce",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


@pytest.fixture
def browser(identity: Identity) -> Iterator[httpx.Client]:
    """Yield a browser; `follow` follows its redirects within the provider."""
    with httpx.Client(base_url=identity.issuer, timeout=30) as client:
        yield client


def follow(browser: httpx.Client, answer: httpx.Response) -> httpx.Response:
    while answer.has_redirect_location and answer.headers["location"].startswith("/"):
        answer = browser.get(answer.headers["location"])
    return answer


def authorize(browser: httpx.Client, **changes: str | None) -> httpx.Response:
    sent = {name: value for name, value in {**REQUEST, **changes}.items() if value is not None}
    return follow(browser, browser.get("authorize", params=sent))


def sign_in(browser: httpx.Client, email: str = MEMBER, **changes: str | None) -> httpx.Response:
    return follow(browser, submit(browser, authorize(browser, **changes), email=email))


def sent_back(answer: httpx.Response) -> dict[str, str]:
    location = answer.headers["location"]
    assert location.startswith(CALLBACK)
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def exchange(identity: Identity, code: str, **changes: str) -> httpx.Response:
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    return identity.token(**{**sent, "code_verifier": VERIFIER, **changes})


def test_authorization_code_is_exchanged_for_user_tokens(
    identity: Identity, browser: httpx.Client
) -> None:
    back = sent_back(sign_in(browser))
    assert back["state"] == "the state"
    tokens = exchange(identity, back["code"]).raise_for_status().json()
    claims = claims_of(tokens["id_token"])
    assert (claims["sub"], claims["nonce"], claims["aud"]) == ("auth0|member", "the nonce", CLIENT)
    assert "refresh_token" not in tokens


def test_signed_in_user_gets_code_without_prompt(browser: httpx.Client) -> None:
    sign_in(browser)
    assert "code" in sent_back(authorize(browser))
    assert "code" in sent_back(authorize(browser, prompt="none"))


@pytest.mark.parametrize("again", [{"prompt": "login"}, {"max_age": "0"}])
def test_prompt_login_or_max_age_forces_new_sign_in(
    browser: httpx.Client, again: dict[str, str]
) -> None:
    sign_in(browser)
    time.sleep(0.01)
    assert "Choose an account to continue to" in authorize(browser, **again).text
    assert "code" in sent_back(sign_in(browser, "viewer@example.org", **again))


def test_prompt_none_without_session_returns_login_required(browser: httpx.Client) -> None:
    assert sent_back(authorize(browser, prompt="none"))["error"] == "login_required"


def test_login_hint_prefills_email_address(browser: httpx.Client) -> None:
    assert f'value="{MEMBER}" required' in authorize(browser, login_hint=MEMBER).text


def test_reused_authorization_code_revokes_its_tokens(
    identity: Identity, browser: httpx.Client
) -> None:
    code = sent_back(sign_in(browser, scope="openid offline_access"))["code"]
    tokens = exchange(identity, code).json()
    assert exchange(identity, code).json()["error"] == "invalid_grant"
    token = tokens["refresh_token"]
    answer = identity.token(grant_type="refresh_token", refresh_token=token)
    assert answer.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": VERIFIER + "x"}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:8/v2/auth/callback"}, "invalid_grant"),
        ({"redirect_uri": ""}, "invalid_grant"),
        ({"code": "made up"}, "invalid_grant"),
        ({"code": ""}, "invalid_request"),
        ({"client_secret": "wrong"}, "invalid_client"),
    ],
)
def test_invalid_code_exchange_is_refused(
    identity: Identity, browser: httpx.Client, changes: dict[str, str], error: str
) -> None:
    code = sent_back(sign_in(browser))["code"]
    assert exchange(identity, **{"code": code, **changes}).json()["error"] == error
    assert exchange(identity, code).status_code == 200


def test_expired_authorization_code_is_refused(identity: Identity, browser: httpx.Client) -> None:
    identity.turn(code_seconds=0.2)
    code = sent_back(sign_in(browser))["code"]
    time.sleep(0.3)
    assert exchange(identity, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("basic", [True, False])
def test_client_with_secret_does_not_need_pkce(
    identity: Identity, browser: httpx.Client, basic: bool
) -> None:
    code = sent_back(sign_in(browser, code_challenge=None, code_challenge_method=None))["code"]
    sent = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
    without = identity.token(**sent)
    assert without.json()["error"] == "invalid_grant"
    proof: dict[str, Any] = {"data": {**sent, "client_id": CLIENT, "client_secret": WEB_SECRET}}
    if basic:
        proof = {"data": sent, "auth": (CLIENT, WEB_SECRET)}
    assert identity.http.post("oauth/token", **proof).status_code == 200


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"audience": "https://unknown"}, "access_denied"),
        ({"organization": "org_none"}, "invalid_request"),
    ],
)
def test_invalid_authorize_request_redirects_error_to_client(
    browser: httpx.Client, changes: dict[str, str], error: str
) -> None:
    back = sent_back(authorize(browser, **changes))
    assert (back["error"], back["state"]) == (error, "the state")


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"client_id": MANAGEMENT},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example/v2/auth/callback"},
        {"redirect_uri": "http://127.0.0.1:9/elsewhere"},
        {"redirect_uri": "http://127.0.0.1:9@evil.example/v2/auth/callback"},
        {"redirect_uri": "http://user@127.0.0.1:9/v2/auth/callback"},
        {"redirect_uri": "http://127.0.0.1:x/v2/auth/callback"},
        {"redirect_uri": "https://127.0.0.1:9/v2/auth/callback"},
        {"redirect_uri": "http://127.0.0.1:9/v2/auth/callback#part"},
    ],
)
def test_unregistered_redirect_uri_gets_no_redirect(
    browser: httpx.Client, changes: dict[str, str | None]
) -> None:
    answer = authorize(browser, **changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_repeated_authorize_parameters_are_refused(browser: httpx.Client) -> None:
    answer = browser.get("authorize?client_id=a&client_id=b")
    assert answer.status_code == 400


def test_only_members_can_sign_in_to_organization(
    identity: Identity, browser: httpx.Client
) -> None:
    redwood = {"organization": ORGANIZATIONS[0]}
    page = authorize(browser, **redwood)
    assert "member@example.org" in page.text
    assert "g2member@example.org" not in page.text
    refused = submit(browser, page, email="g2member@example.org")
    assert refused.status_code == 403
    assert "is not a member of Redwood" in refused.text
    code = sent_back(sign_in(browser, **redwood))["code"]
    claims = claims_of(exchange(identity, code).json()["id_token"])
    assert claims["org_id"] == ORGANIZATIONS[0]
    # A signed-in user who is not a member is asked again.
    assert "Sign in to Bayside" in authorize(browser, organization=ORGANIZATIONS[1]).text


def invitation(identity: Identity, email: str) -> dict[str, Any]:
    with identity.management() as api:
        roles = api.get("roles", params={"name_filter": "viewer"}).json()
        body = {
            "inviter": {"name": "Gale <Admin>"},
            "invitee": {"email": email},
            "client_id": CLIENT,
            "roles": [roles[0]["id"]],
            "app_metadata": {"from": "an invitation"},
        }
        path = f"organizations/{ORGANIZATIONS[1]}/invitations"
        return dict(api.post(path, json=body).raise_for_status().json())


def accept(browser: httpx.Client, invited: dict[str, Any]) -> httpx.Response:
    link = httpx.URL(invited["invitation_url"]).params
    return authorize(browser, **dict(link))


@pytest.mark.parametrize("email", ["guest@example.org", "nogroup@example.org"])
def test_accepted_invitation_makes_user_a_member(
    identity: Identity, browser: httpx.Client, email: str
) -> None:
    sign_in(browser)  # someone else, who is not invited
    invited = invitation(identity, email)
    page = accept(browser, invited)
    assert "Join Bayside Department of Public Health" in page.text
    assert "Gale &lt;Admin&gt;" in page.text
    code = sent_back(follow(browser, submit(browser, page)))["code"]
    claims = claims_of(exchange(identity, code).json()["id_token"])
    assert (claims["email"], claims["org_id"]) == (email, ORGANIZATIONS[1])
    with identity.management() as api:
        path = f"organizations/{ORGANIZATIONS[1]}"
        held = api.get(f"{path}/members/{claims['sub']}/roles").json()
        assert [role["name"] for role in held] == ["viewer"]
        assert invited["id"] not in [i["id"] for i in api.get(f"{path}/invitations").json()]
    assert "is no longer valid" in accept(browser, invited).text


@pytest.mark.parametrize(
    ("typed", "name"),
    [("Nell <New>", "Nell <New>"), ("  Nell  ", "Nell"), (" ", "newcomer@example.org")],
)
def test_newcomer_signs_up_with_invited_address_and_own_name(
    identity: Identity, browser: httpx.Client, typed: str, name: str
) -> None:
    page = accept(browser, invitation(identity, "newcomer@example.org"))
    assert "Create an account to accept" in page.text
    assert "<strong>newcomer@example.org</strong>" in page.text
    sent = {"name": typed, "email": "other@example.org"}  # the address cannot be changed
    code = sent_back(follow(browser, submit(browser, page, **sent)))["code"]
    claims = claims_of(exchange(identity, code).json()["id_token"])
    assert (claims["email"], claims["name"]) == ("newcomer@example.org", name)
    assert claims["email_verified"] is True
    with identity.management() as api:
        assert api.get(f"users/{claims['sub']}").json()["app_metadata"] == {"from": "an invitation"}
        api.delete(f"users/{claims['sub']}")


def test_sign_up_with_invalid_name_is_refused_and_can_be_repeated(
    identity: Identity, browser: httpx.Client
) -> None:
    page = accept(browser, invitation(identity, "wordy@example.org"))
    refused = submit(browser, page, name="x" * 301)
    assert (refused.status_code, "at most 300 characters" in refused.text) == (400, True)
    with identity.management() as api:
        found = api.get("users-by-email", params={"email": "wordy@example.org"}).json()
    assert found == []
    assert "code" in sent_back(follow(browser, submit(browser, refused, name="x" * 300)))


def test_account_created_after_sign_up_page_was_shown_is_used(
    identity: Identity, browser: httpx.Client
) -> None:
    email = "twice@example.org"
    page = accept(browser, invitation(identity, email))
    with identity.management() as api:
        body = {"connection": "Username-Password-Authentication", "password": "x", "email": email}
        made = api.post("users", json={**body, "name": "Already There"}).json()
    code = sent_back(follow(browser, submit(browser, page, name="Typed")))["code"]
    claims = claims_of(exchange(identity, code).json()["id_token"])
    assert (claims["sub"], claims["name"]) == (made["user_id"], "Already There")


def test_user_with_account_is_not_asked_to_sign_up(
    identity: Identity, browser: httpx.Client
) -> None:
    page = accept(browser, invitation(identity, "NoGroup@example.org"))
    assert "Accept invitation" in page.text
    assert "Create an account" not in page.text


def test_deleted_or_mismatched_invitation_is_refused(
    identity: Identity, browser: httpx.Client
) -> None:
    invited = invitation(identity, "late@example.org")
    page = accept(browser, invited)
    other = authorize(browser, invitation=invited["ticket_id"], organization=ORGANIZATIONS[0])
    assert other.status_code == 400
    with identity.management() as api:
        path = f"organizations/{ORGANIZATIONS[1]}/invitations/{invited['id']}"
        api.delete(path).raise_for_status()
    assert submit(browser, page).status_code == 400


def test_logout_ends_session_and_redirects(browser: httpx.Client) -> None:
    sign_in(browser)
    target = "http://127.0.0.1:4000/"
    answer = browser.get("v2/logout", params={"client_id": CLIENT, "returnTo": target})
    assert (answer.status_code, answer.headers["location"]) == (302, target)
    assert "Choose an account to continue to" in authorize(browser).text


def test_logout_redirects_only_to_registered_address(browser: httpx.Client) -> None:
    for sent in (
        {"client_id": CLIENT, "returnTo": "https://evil.example/"},
        {"returnTo": "http://127.0.0.1:4000/"},
    ):
        answer = browser.get("v2/logout", params=sent)
        assert answer.status_code == 400
    assert "You are signed out" in browser.get("v2/logout").text
