"""The pages as a browser without scripts shows them."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.local.auth0.lab import ORGANIZATIONS, Identity, submit

MEMBER = "member@example.org"


@pytest.fixture
def browser(identity: Identity) -> Iterator[httpx.Client]:
    with identity.client() as client:
        yield client


def to_confirm(browser: httpx.Client, identity: Identity, **asked: str) -> httpx.Response:
    page = browser.get(identity.ask(**asked)["verification_uri_complete"])
    return submit(browser, page, email=MEMBER) if "confirm" not in page.url.path else page


def test_user_code_is_accepted_in_any_form(browser: httpx.Client, identity: Identity) -> None:
    code = identity.ask()["user_code"]
    for typed in (code, code.lower(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
        page = submit(browser, browser.get("activate"), user_code=typed)
        assert "Choose an account to continue to" in page.text


@pytest.mark.parametrize("typed", ["", "BBBB-BBBB", "nonsense", "<script>alert(1)</script>", "%00"])
def test_unknown_user_code_is_reported_as_invalid(browser: httpx.Client, typed: str) -> None:
    page = submit(browser, browser.get("activate"), user_code=typed)
    assert page.status_code == 400
    assert "Invalid code" in page.text
    assert "<script>" not in page.text


def test_expired_or_used_user_code_is_refused(browser: httpx.Client, identity: Identity) -> None:
    page = to_confirm(browser, identity)
    with sqlite3.connect(identity.folder / "identity.sqlite3") as db:
        db.execute("UPDATE device_requests SET expires_at = ?", (time.time(),))
    expired = submit(browser, page, decision="approve")
    assert (expired.status_code, "has expired" in expired.text) == (400, True)
    identity.reset()
    page = to_confirm(browser, identity)
    assert "Approved" in submit(browser, page, decision="approve").text
    again = submit(browser, page, decision="deny")
    assert (again.status_code, "already used" in again.text) == (400, True)


def test_consent_page_shows_client_scopes_and_organization(
    browser: httpx.Client, identity: Identity
) -> None:
    asked = identity.ask(scope="openid email offline_access", organization=ORGANIZATIONS[0])
    page = browser.get(asked["verification_uri_complete"])
    page = submit(browser, page, email=MEMBER)
    for text in (
        "Allow aspencli to act on your behalf?",
        asked["user_code"],
        "See your e-mail address",
        "Stay signed in",
        "Access Redwood County Public Health Laboratory",
        "Member Example",
    ):
        assert text in page.text
    assert "See your name" not in page.text


def test_signed_in_user_skips_sign_in_and_can_switch_user(
    browser: httpx.Client, identity: Identity
) -> None:
    to_confirm(browser, identity)
    page = to_confirm(browser, identity)
    other = re.search(r'<a href="(/login[^"]+)">Not you\?', page.text)
    assert other
    page = submit(browser, browser.get(other[1]), email="viewer@example.org")
    assert "Viewer Example" in page.text


def test_user_who_is_not_member_must_sign_in_again(
    browser: httpx.Client, identity: Identity
) -> None:
    page = to_confirm(browser, identity)
    asked = identity.ask(organization=ORGANIZATIONS[1])
    page = browser.get(asked["verification_uri_complete"])
    assert "Sign in to Bayside" in page.text
    refused = submit(browser, page, email=MEMBER)
    assert (refused.status_code, "is not a member of Bayside" in refused.text) == (403, True)


def test_unknown_email_address_is_reported_and_escaped(
    browser: httpx.Client, identity: Identity
) -> None:
    page = browser.get(identity.ask()["verification_uri_complete"])
    failed = submit(browser, page, email='"><b>nobody</b>@example.org')
    assert failed.status_code == 400
    assert "No user has the e-mail address" in failed.text
    assert "<b>nobody" not in failed.text


def test_form_from_another_browser_is_refused(browser: httpx.Client, identity: Identity) -> None:
    page = to_confirm(browser, identity)
    with identity.client() as attacker:
        prepared = to_confirm(attacker, identity)
        # The victim's browser sends the form from the attacker's page, and vice versa.
        assert submit(browser, prepared, decision="approve").status_code == 403
        assert submit(attacker, page, decision="approve").status_code == 403
    with identity.client() as bare:
        assert submit(bare, page, decision="approve").status_code == 403
    assert "Approved" in submit(browser, page, decision="approve").text


@pytest.mark.parametrize("path", ["activate", "activate/confirm", "login"])
def test_form_without_valid_csrf_token_is_refused(browser: httpx.Client, path: str) -> None:
    assert browser.post(path, data={"user_code": "x", "decision": "approve"}).status_code == 403
    assert browser.post(path, data={"token": "made.up"}).status_code == 403


def test_forged_sign_in_state_is_refused(browser: httpx.Client) -> None:
    for state in ("", "made.up.state", "eyJ0aGVuIjoiaHR0cHM6Ly9ldmlsIn0.x.y"):
        assert browser.get("login", params={"state": state}).status_code == 400


def test_invalid_decision_neither_approves_nor_denies(
    browser: httpx.Client, identity: Identity
) -> None:
    page = to_confirm(browser, identity)
    assert submit(browser, page, decision="perhaps").status_code == 400
    assert "Approved" in submit(browser, page, decision="approve").text


def test_pages_have_strict_security_headers(browser: httpx.Client, identity: Identity) -> None:
    pages = [browser.get("activate"), to_confirm(browser, identity), browser.get("v2/logout")]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"


def test_cookies_are_http_only_and_same_site(browser: httpx.Client, identity: Identity) -> None:
    page = browser.get(identity.ask()["verification_uri_complete"])
    with identity.client(cookies=browser.cookies) as plain:
        plain.follow_redirects = False
        answer = submit(plain, page, email=MEMBER)
    for cookie in [*answer.headers.get_list("set-cookie"), *page.headers.get_list("set-cookie")]:
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie


def test_pages_have_no_scripts_and_load_only_local_assets(
    browser: httpx.Client, identity: Identity
) -> None:
    page = to_confirm(browser, identity)
    for text in (browser.get("activate").text, page.text, browser.get("nothing").text):
        assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) <= {
            "data:,",
            "/assets/style.css",
            *re.findall(r'href="(/login[^"]*)"', text),
        }
        assert "<script" not in text
        assert " style=" not in text
    style = browser.get("assets/style.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "@import" not in style.text


def test_unknown_path_returns_html_to_browsers_and_json_to_programs(browser: httpx.Client) -> None:
    page = browser.get("nothing<b>", headers={"Accept": "text/html"})
    assert (page.status_code, "Page not found" in page.text) == (404, True)
    assert "<b>" not in page.text
    assert browser.get("nothing").json()["statusCode"] == 404


def test_user_codes_are_not_logged(browser: httpx.Client, identity: Identity) -> None:
    asked = identity.ask()
    page = browser.get(asked["verification_uri_complete"])
    submit(browser, submit(browser, page, email=MEMBER), decision="approve")
    assert asked["user_code"] not in identity.log


def test_long_account_list_ends_with_hint_to_enter_address(
    browser: httpx.Client, identity: Identity
) -> None:
    with identity.management() as api:
        for number in range(15):
            body = {"connection": "Username-Password-Authentication", "password": "x"}
            api.post("users", json={**body, "email": f"many{number}@example.org"})
    page = browser.get(identity.ask()["verification_uri_complete"])
    assert "more. To use one of them, enter its e-mail address" in page.text
    page = submit(browser, page, email="many14@example.org")
    assert "Allow aspencli" in page.text
