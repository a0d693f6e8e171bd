"""Auth0's tenant log: its entries, and the two ways to read it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.requests import HTTPConnection

from aspen.local.auth0 import tenant_log
from aspen.local.auth0.audit import AuditEvent, audit, collecting
from aspen.local.auth0.store import ProviderStore, seed
from aspen.local.auth0.tenant_log import TenantLogMiddleware
from tests.local.auth0.lab import (
    CALLBACK,
    CLIENT,
    MANAGEMENT,
    ORGANIZATIONS,
    PRINCIPALS,
    Identity,
    submit,
)

MEMBER = "member@example.org"
Entry = dict[str, Any]


@pytest.fixture
def api(identity: Identity) -> Iterator[httpx.Client]:
    with identity.management() as client:
        yield client


def newest(api: httpx.Client) -> str | None:
    """Return the ID of the newest entry."""
    found = api.get("logs", params={"per_page": 1}).json()
    return found[0]["log_id"] if found else None


def since(api: httpx.Client, checkpoint: str | None) -> list[Entry]:
    """Return all entries after a checkpoint, oldest first."""
    query: dict[str, Any] = {"take": 100, **({"from": checkpoint} if checkpoint else {})}
    return list(api.get("logs", params=query).raise_for_status().json())


def types(entries: list[Entry]) -> list[str]:
    return [entry["type"] for entry in entries]


def failure(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json().get("errorCode")


# Entries


def test_device_sign_in_is_logged_with_user_client_and_origin(
    identity: Identity, api: httpx.Client
) -> None:
    before, began = newest(api), time.time()
    identity.tokens(MEMBER)
    signed_in, exchanged = since(api, before)
    assert (signed_in["type"], exchanged["type"]) == ("s", "sede")
    for entry in (signed_in, exchanged):
        assert (entry["user_id"], entry["user_name"]) == ("auth0|member", MEMBER)
        assert (entry["client_id"], entry["client_name"]) == (CLIENT, "aspencli")
        assert entry["ip"] == "127.0.0.1"
        assert entry["user_agent"].startswith("python-httpx/")
        assert entry["connection"] == "Username-Password-Authentication"
        assert began - 1 < datetime.fromisoformat(entry["date"]).timestamp() < time.time() + 1
        assert entry["_id"] == entry["log_id"]
        assert entry["log_id"].isdecimal()
    assert signed_in["log_id"] < exchanged["log_id"]


def test_client_credentials_exchange_is_logged(identity: Identity, api: httpx.Client) -> None:
    before = newest(api)
    identity.management().close()
    refused = identity.token(grant_type="client_credentials", client_id=CLIENT, audience="x")
    assert refused.is_error
    good, bad = since(api, before)
    assert (good["type"], good["client_id"]) == ("seccft", MANAGEMENT)
    assert "user_id" not in good
    assert (bad["type"], bad["client_id"]) == ("feccft", CLIENT)
    assert "not allowed" in bad["description"]


def test_refresh_revocation_and_reuse_are_logged(identity: Identity, api: httpx.Client) -> None:
    token = identity.tokens(MEMBER)["refresh_token"]
    before = newest(api)
    sent = {"grant_type": "refresh_token", "refresh_token": token}
    second = identity.token(**sent).json()["refresh_token"]
    assert identity.token(**sent).is_error  # a second time, which ends all tokens of the sign-in
    assert identity.token(**{**sent, "refresh_token": second}).is_error
    third = identity.tokens(MEMBER)["refresh_token"]
    identity.http.post("oauth/revoke", data={"client_id": CLIENT, "token": third})
    identity.http.post("oauth/revoke", data={"client_id": CLIENT, "token": "unknown"})
    entries = since(api, before)
    assert types(entries) == ["sertft", "ferrt", "fertft", "s", "sede", "srrt"]
    assert {entry["user_id"] for entry in entries} == {"auth0|member"}


def test_failed_sign_ins_are_logged_with_reason(identity: Identity, api: httpx.Client) -> None:
    before = newest(api)
    for email, organization in (("nobody@example.org", None), (MEMBER, ORGANIZATIONS[1])):
        asked = identity.ask(**({"organization": organization} if organization else {}))
        with identity.client() as browser:
            page = browser.get(asked["verification_uri_complete"])
            assert submit(browser, page, email=email).is_error
    unknown, stranger = since(api, before)
    assert (unknown["type"], unknown["user_name"]) == ("fu", "nobody@example.org")
    assert (stranger["type"], stranger["user_id"]) == ("f", "auth0|member")
    assert stranger["organization_id"] == ORGANIZATIONS[1]
    assert stranger["description"] == "user is not part of the organization"


def test_browser_sign_in_and_sign_out_are_logged(identity: Identity, api: httpx.Client) -> None:
    before = newest(api)
    sent = {"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code"}
    with identity.client() as browser:
        silent = browser.get("authorize", params={**sent, "prompt": "none"}, follow_redirects=False)
        assert "login_required" in silent.headers["location"]
        page = browser.get("authorize", params=sent)
        browser.follow_redirects = False
        submit(browser, page, email=MEMBER)
        browser.get("v2/logout")
        browser.get("v2/logout")
    entries = since(api, before)
    assert types(entries) == ["fsa", "s", "slo"]
    assert [entry.get("user_id") for entry in entries] == [None, "auth0|member", "auth0|member"]


def test_sign_up_and_used_invitation_are_logged(identity: Identity, api: httpx.Client) -> None:
    path = f"organizations/{ORGANIZATIONS[0]}/invitations"
    body = {"inviter": {"name": "Gale"}, "client_id": CLIENT}
    made = api.post(path, json={**body, "invitee": {"email": "joining@example.org"}}).json()
    sent = {"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code"}
    sent |= {"organization": ORGANIZATIONS[0], "invitation": made["ticket_id"]}
    before = newest(api)
    with identity.client() as browser:
        page = browser.get("authorize", params=sent)
        browser.follow_redirects = False
        for _ in range(2):
            submit(browser, page, name="Joe")
    entries = since(api, before)
    assert types(entries) == ["ss", "si", "s", "fi"]
    assert {entry.get("user_name") for entry in entries[:3]} == {"joining@example.org"}
    assert {entry["organization_id"] for entry in entries[1:]} == {ORGANIZATIONS[0]}
    assert entries[3]["description"] == "This invitation is no longer valid"


def test_denied_device_and_refused_device_request_are_logged(
    identity: Identity, api: httpx.Client
) -> None:
    before = newest(api)
    asked = identity.ask()
    identity.decide(asked["user_code"], MEMBER, approve=False)
    identity.poll(asked["device_code"])
    refused = identity.http.post(
        "oauth/device/code", data={"client_id": CLIENT, "audience": "https://no.example.org"}
    )
    assert refused.is_error
    assert types(since(api, before)) == ["s", "fdecc", "fede", "fdeaz"]


def test_polling_is_not_logged(identity: Identity, api: httpx.Client) -> None:
    asked, before = identity.ask(), newest(api)
    assert identity.poll(asked["device_code"]).json()["error"] == "authorization_pending"
    assert identity.poll(asked["device_code"]).json()["error"] == "slow_down"
    assert since(api, before) == []


def test_successful_management_writes_are_logged(api: httpx.Client) -> None:
    before = newest(api)
    api.patch("users/auth0|viewer", json={"nickname": "vee"}).raise_for_status()
    api.get("users/auth0|viewer").raise_for_status()
    assert api.patch("users/auth0|nobody", json={}).status_code == 404
    (entry,) = since(api, before)
    assert (entry["type"], entry["client_id"]) == ("sapi", MANAGEMENT)
    assert entry["description"].startswith("Update the given fields of a user")
    assert entry["details"] == {
        "request": {"method": "PATCH", "path": "/api/v2/users/auth0|viewer"},
        "response": {"statusCode": 200},
    }
    assert "vee" not in str(entry)


def test_deleted_user_is_logged_by_name(api: httpx.Client) -> None:
    body = {"connection": "Username-Password-Authentication", "password": "x"}
    made = api.post("users", json={**body, "email": "leaving@example.org"}).json()
    before = newest(api)
    for _ in range(2):
        api.delete(f"users/{made['user_id']}").raise_for_status()
    deleted, *calls = since(api, before)
    assert (deleted["type"], deleted["user_id"]) == ("sdu", made["user_id"])
    assert deleted["user_name"] == "leaving@example.org"
    assert types(calls) == ["sapi", "sapi"]


def test_password_and_verification_are_logged(identity: Identity, api: httpx.Client) -> None:
    who = {"user_id": "auth0|viewer"}
    password = api.post("tickets/password-change", json=who).json()["ticket"]
    verification = api.post("tickets/email-verification", json=who).json()["ticket"]
    before = newest(api)
    with identity.client() as browser:
        page = browser.get(password)
        for _ in range(2):
            submit(browser, page, password="x", repeated="x")
        browser.get(verification)
    entries = since(api, before)
    assert types(entries) == ["scp", "fcp", "sv"]
    assert entries[1]["description"] == "This link was already used"


# Reading


def test_checkpoint_paging_returns_each_entry_once_in_order(
    identity: Identity, api: httpx.Client
) -> None:
    before = newest(api)
    for number in range(7):
        api.patch("users/auth0|viewer", json={"nickname": str(number)})
    expected = [entry["log_id"] for entry in since(api, before)]
    seen: list[str] = []
    answer = api.get("logs", params={"from": before, "take": 3})
    while answer.json():
        seen += [entry["log_id"] for entry in answer.json()]
        link = answer.headers["link"]
        assert link.endswith('>; rel="next"')
        answer = api.get(link[1:].partition(">")[0])
    assert seen == expected
    assert len(seen) == 7
    # At the end, the link leads to the same place, where new entries appear.
    again = answer.headers["link"][1:].partition(">")[0]
    assert parse_qs(urlsplit(again).query) == {"from": [seen[-1]], "take": ["3"]}
    api.patch("users/auth0|viewer", json={"nickname": "last"})
    assert len(api.get(again).json()) == 1


def test_checkpoint_paging_without_checkpoint_begins_with_oldest(api: httpx.Client) -> None:
    api.patch("users/auth0|viewer", json={"nickname": "x"})
    oldest = api.get("logs", params={"sort": "date:1", "per_page": 2}).json()
    assert api.get("logs", params={"take": 2}).json() == oldest


@pytest.mark.parametrize("checkpoint", ["x", "1", "-1", "9" * 35, "900²" + "0" * 50])
def test_invalid_checkpoint_is_refused(api: httpx.Client, checkpoint: str) -> None:
    answer = api.get("logs", params={"from": checkpoint})
    assert failure(answer) == (400, "invalid_query_string")


def test_numbered_pages_are_newest_first(api: httpx.Client) -> None:
    for number in range(5):
        api.patch("users/auth0|viewer", json={"nickname": str(number)})
    query: dict[str, Any] = {"per_page": 2, "include_totals": "true"}
    first = api.get("logs", params=query).json()
    assert {name: first[name] for name in ("start", "limit", "length", "total")} == {
        "start": 0,
        "limit": 2,
        "length": 2,
        "total": 2,
    }
    second = api.get("logs", params={**query, "page": 1}).json()
    ids = [entry["log_id"] for entry in [*first["logs"], *second["logs"]]]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 4
    beyond = api.get("logs", params={"page": 10, "per_page": 100})
    assert failure(beyond) == (400, "invalid_paging")


def test_search_and_fields_select_entries(identity: Identity, api: httpx.Client) -> None:
    identity.tokens("g2member@example.org")
    query = {"q": 'user_id:"auth0|g2member" AND type:s', "fields": "type,user_name"}
    assert api.get("logs", params=query).json() == [
        {"type": "s", "user_name": "g2member@example.org"}
    ]
    both = api.get("logs", params={"q": "user_name:g2member*"}).json()
    assert types(both) == ["sede", "s"]
    assert api.get("logs", params={"q": "user_name:G2member*"}).json() == []  # case-sensitive
    today = f"{datetime.now(UTC):%Y-%m}"
    assert api.get("logs", params={"q": f"type:sede AND date:[{today} TO *]"}).json()
    assert not api.get("logs", params={"q": f"date:[* TO {today}}}"}).json()


@pytest.mark.parametrize(
    "query",
    [{"q": "sede"}, {"q": "shoe:44"}, {"sort": "shoe:1"}, {"per_page": 101}, {"take": 101}],
    ids=str,
)
def test_invalid_log_query_is_refused(api: httpx.Client, query: dict[str, Any]) -> None:
    assert failure(api.get("logs", params=query)) == (400, "invalid_query_string")


@pytest.mark.parametrize("scope", ["read:logs", "read:logs_users"])
def test_logs_require_their_scope(identity: Identity, scope: str) -> None:
    with identity.management(scope=scope) as api:
        assert api.get("logs").status_code == 200
    with identity.management(scope="read:users") as api:
        assert failure(api.get("logs")) == (403, "insufficient_scope")


def test_log_is_kept_when_provider_restarts(identity: Identity, api: httpx.Client) -> None:
    before = newest(api)
    identity.tokens(MEMBER)
    identity.stop()
    identity.start()
    with identity.management() as again:
        entries = since(again, before)
    assert types(entries) == ["s", "sede", "seccft"]


# Storing


def record(store: ProviderStore, *events: AuditEvent) -> None:
    sender = HTTPConnection({"type": "http", "client": ("127.0.0.1", 1), "headers": []})
    TenantLogMiddleware(None, store)._record(sender, events)  # type: ignore[arg-type] # not called


def signed_in(at: float) -> AuditEvent:
    return AuditEvent("user.signed_in", at, {"user": "auth0|member"})


def test_log_drops_oldest_entries_and_keeps_their_ids_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenant_log, "_MOST", 3)
    seed(tmp_path, PRINCIPALS)
    store = ProviderStore(tmp_path)
    for number in range(8):
        record(store, signed_in(number))
    with store.reading() as db:
        kept = db.execute("SELECT * FROM logs ORDER BY id").fetchall()
    assert [row["date"] for row in kept] == [5, 6, 7]
    assert [row["id"] for row in kept] == [6, 7, 8]
    documents = [tenant_log._document(row) for row in kept]
    assert [tenant_log._number(one["log_id"]) for one in documents] == [6, 7, 8]
    assert documents[0]["log_id"].startswith("90019700101000005000")


def test_request_without_logged_events_stores_nothing(tmp_path: Path) -> None:
    store = ProviderStore(tmp_path)
    record(store, AuditEvent("key.rotated", 1, {"kid": "x"}))
    with store.reading() as db:
        assert db.execute("SELECT count(*) FROM logs").fetchone()[0] == 0


def test_events_are_collected_only_within_block() -> None:
    audit("user.signed_out")
    with collecting() as events:
        audit("user.signed_in", user="auth0|member", organization=None)
    audit("user.signed_out")
    assert [(event.name, event.details) for event in events] == [
        ("user.signed_in", {"user": "auth0|member"})
    ]
