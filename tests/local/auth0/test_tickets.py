"""Password tickets, verification tickets, and verification e-mails, with the pages they lead to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

from aspen.local.auth0.outbox import Message, Outbox
from tests.local.auth0.lab import CLIENT, ORGANIZATIONS, Identity, submit

CONNECTION = "Username-Password-Authentication"
PASSWORD, VERIFICATION = "tickets/password-change", "tickets/email-verification"
FIVE_DAYS = 432_000


@pytest.fixture
def api(identity: Identity) -> Iterator[httpx.Client]:
    with identity.management() as client:
        yield client


@pytest.fixture
def browser(identity: Identity) -> Iterator[httpx.Client]:
    with identity.client() as client:
        yield client


@pytest.fixture
def user(api: httpx.Client) -> Iterator[dict[str, Any]]:
    """Yield a user whose address is not verified, and who got no e-mail."""
    body = {"connection": CONNECTION, "email": "new@example.org", "password": "x"}
    made = api.post("users", json={**body, "verify_email": False}).raise_for_status().json()
    yield made
    api.delete(f"users/{made['user_id']}")


def ticket(api: httpx.Client, path: str, **body: Any) -> str:
    answer = api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json().keys() == {"ticket"}
    return str(answer.json()["ticket"])


def is_verified(api: httpx.Client, user: dict[str, Any]) -> bool:
    return bool(api.get(f"users/{user['user_id']}").json()["email_verified"])


def mail_to(identity: Identity, email: str) -> list[Message]:
    return Outbox(identity.folder).messages(email)


def expire_tickets(identity: Identity) -> None:
    with closing(sqlite3.connect(identity.folder / "identity.sqlite3")) as db, db:
        db.execute("UPDATE tickets SET expires_at = ?", (time.time(),))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["errorCode"]


def set_password(browser: httpx.Client, page: httpx.Response) -> httpx.Response:
    return submit(browser, page, password="correct horse", repeated="correct horse")


# Password tickets


def test_password_ticket_sets_password_once(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, PASSWORD, user_id=user["user_id"])
    assert link.startswith(f"{identity.issuer}u/reset-verify?ticket=")
    page = browser.get(link)
    assert "Signing in on this machine requires no password" in page.text
    assert "<strong>new@example.org</strong>" in page.text
    done = set_password(browser, page)
    assert (done.status_code, "Your password is set" in done.text) == (200, True)
    assert not is_verified(api, user)
    for again in (browser.get(link), set_password(browser, page)):
        assert (again.status_code, "already used" in again.text) == (400, True)
    assert mail_to(identity, "new@example.org") == []  # the link is only in the response


def test_password_ticket_verifies_address_if_asked(
    api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    connection = api.get("connections").json()[0]["id"]
    link = ticket(
        api,
        PASSWORD,
        email="NEW@example.org",
        connection_id=connection,
        mark_email_as_verified=True,
    )
    assert not is_verified(api, user)
    set_password(browser, browser.get(link))
    assert is_verified(api, user)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "Enter a password."),
        ({"password": "one"}, "The passwords are not the same."),
        ({"password": "one", "repeated": "other"}, "The passwords are not the same."),
    ],
)
def test_invalid_password_is_refused_and_ticket_still_works(
    api: httpx.Client,
    browser: httpx.Client,
    user: dict[str, Any],
    fields: dict[str, str],
    problem: str,
) -> None:
    page = browser.get(ticket(api, PASSWORD, user_id=user["user_id"]))
    refused = submit(browser, page, **fields)
    assert (refused.status_code, problem in refused.text) == (400, True)
    assert "one" not in refused.text.replace(problem, "").split('"')  # no password is sent back
    assert "Your password is set" in set_password(browser, refused).text


def test_password_is_not_stored(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    set_password(browser, browser.get(ticket(api, PASSWORD, user_id=user["user_id"])))
    for file in identity.folder.iterdir():
        assert b"correct horse" not in file.read_bytes()


@pytest.mark.parametrize("ttl", [None, 0, 60])
def test_ticket_expires(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any], ttl: Any
) -> None:
    link = ticket(
        api, PASSWORD, user_id=user["user_id"], **({} if ttl is None else {"ttl_sec": ttl})
    )
    with closing(sqlite3.connect(identity.folder / "identity.sqlite3")) as db:
        query = "SELECT max(expires_at) FROM tickets WHERE used_at IS NULL AND user_id = ?"
        (until,) = db.execute(query, (user["user_id"],)).fetchone()
    assert abs(until - time.time() - (ttl or FIVE_DAYS)) < 50
    page = browser.get(link)
    expire_tickets(identity)
    for late in (browser.get(link), set_password(browser, page)):
        assert (late.status_code, "has expired" in late.text) == (400, True)


@pytest.mark.parametrize("path", ["u/reset-verify", "u/email-verification"])
@pytest.mark.parametrize("query", ["", "?ticket=", "?ticket=made-up"])
def test_unknown_ticket_is_refused(browser: httpx.Client, path: str, query: str) -> None:
    page = browser.get(path + query)
    assert (page.status_code, "This link is not valid" in page.text) == (400, True)


def test_ticket_works_only_for_its_purpose(
    api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, PASSWORD, user_id=user["user_id"])
    other = link.replace("u/reset-verify", "u/email-verification")
    assert browser.get(other).status_code == 400
    assert not is_verified(api, user)


def test_ticket_is_invalid_after_address_changes(
    api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, VERIFICATION, user_id=user["user_id"])
    api.patch(f"users/{user['user_id']}", json={"email": "newer@example.org"})
    assert browser.get(link).status_code == 400
    assert not is_verified(api, user)


def test_ticket_of_deleted_user_is_invalid(
    api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, PASSWORD, user_id=user["user_id"])
    api.delete(f"users/{user['user_id']}")
    assert browser.get(link).status_code == 400


def test_password_form_from_another_browser_is_refused(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, PASSWORD, user_id=user["user_id"])
    with identity.client() as other:
        assert set_password(browser, other.get(link)).status_code == 403
    assert set_password(browser, browser.get(link)).status_code == 200


def test_used_ticket_redirects_to_result_url(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    who = {"user_id": user["user_id"]}
    result = "http://127.0.0.1:9/welcome?from=aspen"
    link = ticket(api, PASSWORD, **who, result_url=result, includeEmailInRedirect=True)
    browser.follow_redirects = False
    page = browser.get(link)
    assert "form-action 'self' http://127.0.0.1:9;" in page.headers["content-security-policy"]
    back = set_password(browser, page).headers["location"]
    assert back.startswith(f"{result}&")
    sent = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    assert (sent["from"], sent["success"], sent["email"]) == ("aspen", "true", "new@example.org")
    verified = browser.get(ticket(api, VERIFICATION, **who, result_url=result))
    assert verified.headers["location"].startswith(f"{result}&success=true&message=Your+e-mail")
    assert is_verified(api, user)


def test_used_ticket_offers_to_continue_to_its_client(
    api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    where = {"client_id": CLIENT, "organization_id": ORGANIZATIONS[0]}
    link = ticket(api, PASSWORD, user_id=user["user_id"], **where)
    done = set_password(browser, browser.get(link))
    start = "http://127.0.0.1:9/v2/auth/login?organization=org_0000000000000001"
    assert f'href="{start}&amp;organization_name=group-rcphl"' in done.text
    assert "Continue to aspencli" in done.text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_body")),
        ({"user_id": "auth0|member", "email": "member@example.org"}, (400, "invalid_body")),
        ({"email": "member@example.org"}, (400, "invalid_body")),
        ({"user_id": "auth0|member", "connection_id": "con_x"}, (400, "invalid_body")),
        ({"user_id": "auth0|nobody"}, (404, "inexistent_user")),
        ({"email": "a@example.org", "connection_id": "con_x"}, (404, "inexistent_connection")),
        ({"user_id": "auth0|member", "ttl_sec": -1}, (400, "invalid_body")),
        ({"user_id": "auth0|member", "result_url": "javascript:x"}, (400, "invalid_body")),
        ({"user_id": "auth0|member", "client_id": "nobody"}, (404, "inexistent_client")),
        (
            {"user_id": "auth0|member", "organization_id": "org_none"},
            (404, "inexistent_organization"),
        ),
        (
            {"user_id": "auth0|member", "client_id": CLIENT, "result_url": "http://x.org/"},
            (400, "invalid_body"),
        ),
    ],
)
def test_invalid_password_ticket_is_refused(
    api: httpx.Client, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert refusal(api.post(PASSWORD, json=body)) == expected


# Verification


def test_verification_ticket_verifies_address_once(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    link = ticket(api, VERIFICATION, user_id=user["user_id"])
    assert link.startswith(f"{identity.issuer}u/email-verification?ticket=")
    assert "Your e-mail address is verified" in browser.get(link).text
    assert is_verified(api, user)
    again = browser.get(link)
    assert (again.status_code, "already used" in again.text) == (400, True)
    assert mail_to(identity, "new@example.org") == []


def test_verification_job_mails_link_that_verifies_address(
    identity: Identity, api: httpx.Client, browser: httpx.Client, user: dict[str, Any]
) -> None:
    before = len(mail_to(identity, "new@example.org"))
    answer = api.post("jobs/verification-email", json={"user_id": user["user_id"]})
    assert answer.status_code == 201
    job = answer.json()
    assert job["id"].startswith("job_")
    assert (job["type"], job["status"]) == ("verification_email", "pending")
    done = api.get(f"jobs/{job['id']}").json()
    assert done == {**job, "status": "completed"}
    message, *earlier = mail_to(identity, "new@example.org")
    assert len(earlier) == before
    assert message.subject == "Verify your e-mail address"
    assert f"\n{message.link}\n" in message.text
    assert not is_verified(api, user)
    assert browser.get(message.link).status_code == 200
    assert is_verified(api, user)


def test_verification_job_of_unknown_user_is_refused(api: httpx.Client) -> None:
    answer = api.post("jobs/verification-email", json={"user_id": "auth0|nobody"})
    assert refusal(answer) == (404, "inexistent_user")
    assert refusal(api.post("jobs/verification-email", json={})) == (400, "invalid_body")
    assert refusal(api.get("jobs/job_none")) == (404, "inexistent_job")


@pytest.mark.parametrize(
    ("fields", "mailed"),
    [
        ({}, True),
        ({"email_verified": True}, False),
        ({"verify_email": False}, False),
        ({"email_verified": True, "verify_email": True}, True),
    ],
    ids=str,
)
def test_new_user_gets_verification_mail_as_at_auth0(
    identity: Identity, api: httpx.Client, fields: dict[str, bool], mailed: bool
) -> None:
    email = f"{uuid4().hex}@example.org"
    body = {"connection": CONNECTION, "email": email, "password": "x", **fields}
    api.post("users", json=body).raise_for_status()
    assert bool(mail_to(identity, email)) == mailed


def test_update_mails_verification_to_new_address_if_asked(
    identity: Identity, api: httpx.Client, user: dict[str, Any]
) -> None:
    path = f"users/{user['user_id']}"
    api.patch(path, json={"email": "moved@example.org"}).raise_for_status()
    assert mail_to(identity, "moved@example.org") == []
    body = {"email": "moved-again@example.org", "verify_email": True}
    api.patch(path, json=body).raise_for_status()
    (message,) = mail_to(identity, "moved-again@example.org")
    assert "/u/email-verification?" in message.link


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", PASSWORD, "create:user_tickets"),
        ("POST", VERIFICATION, "create:user_tickets"),
        ("POST", "jobs/verification-email", "update:users"),
        ("GET", "jobs/job_none", "create:users,read:users"),
    ],
)
def test_ticket_and_job_endpoints_require_their_scopes(
    identity: Identity, method: str, path: str, scope: str
) -> None:
    with identity.management(scope="read:roles") as api:
        answer = api.request(method, path, json={"user_id": "auth0|member"})
    assert refusal(answer) == (403, "insufficient_scope")
    assert answer.json()["message"] == f"Insufficient scope, expected any of: {scope}"
