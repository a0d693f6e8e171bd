"""The Management API: shapes, statuses, paging, and limits like Auth0's."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from aspen.local.auth0 import management
from aspen.local.auth0.management import Bucket
from aspen.local.auth0.store import ProviderStore, insert
from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    ORGANIZATIONS,
    Identity,
    running_identity,
)

REDWOOD = ORGANIZATIONS[0]
CONNECTION = "Username-Password-Authentication"


@pytest.fixture
def api(identity: Identity) -> Iterator[httpx.Client]:
    with identity.management() as client:
        yield client


def failure(answer: httpx.Response) -> tuple[int, str | None, str]:
    body = answer.json()
    assert body["statusCode"] == answer.status_code
    assert body["error"] == answer.reason_phrase
    return answer.status_code, body.get("errorCode"), body["message"]


def new_user(api: httpx.Client, email: str, **fields: Any) -> dict[str, Any]:
    body = {"connection": CONNECTION, "email": email, "password": "made up", **fields}
    answer = api.post("users", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


# Access


def test_management_request_without_token_is_unauthorized(identity: Identity) -> None:
    answer = identity.http.get("api/v2/users")
    assert failure(answer) == (401, None, "Missing authentication")


@pytest.mark.parametrize("token", ["made.up.token", "x"])
def test_management_request_with_invalid_token_is_unauthorized(
    identity: Identity, token: str
) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    answer = identity.http.get("api/v2/users", headers=headers)
    assert failure(answer) == (401, None, "Invalid token")


def test_management_request_with_basic_scheme_is_refused(identity: Identity) -> None:
    answer = identity.http.get("api/v2/users", headers={"Authorization": "Basic eA=="})
    assert failure(answer)[:2] == (400, "invalid_authorization_header")


def test_user_token_cannot_access_management_api(identity: Identity) -> None:
    tokens = identity.tokens("gadmin@example.org")
    for name in ("access_token", "id_token"):
        headers = {"Authorization": f"Bearer {tokens[name]}"}
        assert identity.http.get("api/v2/users", headers=headers).status_code == 401


def test_expired_management_token_is_unauthorized(identity: Identity) -> None:
    identity.turn(access_token_seconds=1)
    with identity.management() as api:
        time.sleep(2.1)
        assert failure(api.get("users"))[:2] == (401, None)


def test_management_token_is_limited_to_its_scopes(identity: Identity) -> None:
    with identity.management(scope="read:users") as api:
        assert api.get("users").status_code == 200
        answer = api.delete("users/auth0|nobody")
        assert failure(answer) == (
            403,
            "insufficient_scope",
            "Insufficient scope, expected any of: delete:users",
        )


def test_management_changes_are_logged_with_client(identity: Identity, api: httpx.Client) -> None:
    api.delete("users/auth0|nobody")
    assert f'"client": "{MANAGEMENT}", "method": "DELETE"' in identity.log


# Users


def test_user_is_returned_in_auth0_format(api: httpx.Client) -> None:
    user = api.get("users/auth0|member").json()
    assert user["user_id"] == "auth0|member"
    assert user["identities"] == [
        {"connection": CONNECTION, "user_id": "member", "provider": "auth0", "isSocial": False}
    ]
    assert (user["email"], user["email_verified"]) == ("member@example.org", True)
    assert datetime.fromisoformat(user["created_at"]).tzinfo == UTC
    assert user["created_at"].endswith("Z")


def test_users_by_email_ignores_case(api: httpx.Client) -> None:
    for email in ("member@example.org", "Member@Example.org"):
        found = api.get("users-by-email", params={"email": email}).json()
        assert [user["user_id"] for user in found] == ["auth0|member"]
    assert api.get("users-by-email", params={"email": "nobody@example.org"}).json() == []
    assert failure(api.get("users-by-email"))[:2] == (400, "invalid_query_string")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('email:"member@example.org"', {"member"}),
        ("email:g2*", {"g2admin", "g2member"}),
        ("email:g2* AND name:G2m*", {"g2member"}),
        ('user_id:"auth0|multi" OR email.raw:viewer@example.org', {"multi", "viewer"}),
        ("name:100%", set()),
        ("blocked:true", set()),
    ],
)
def test_user_search_finds_matching_users(api: httpx.Client, query: str, found: set[str]) -> None:
    users = api.get("users", params={"q": query, "search_engine": "v3"}).json()
    assert {user["user_id"].removeprefix("auth0|") for user in users} == found


@pytest.mark.parametrize("query", ["member", "shoe:44", "name:a b", "a:b AND", "(name:a)", '"'])
def test_invalid_user_search_query_is_refused(api: httpx.Client, query: str) -> None:
    assert failure(api.get("users", params={"q": query}))[:2] == (400, "invalid_query_string")


def test_user_search_finds_users_created_at_a_time_or_later(api: httpx.Client) -> None:
    made = []
    for name in ("early", "late"):
        made.append(new_user(api, f"{name}-{time.time_ns()}@example.org"))
        time.sleep(0.002)  # creation times have milliseconds
    early, late = (one["created_at"] for one in made)

    def found(query: str) -> set[str]:
        answer = api.get("users", params={"q": query, "sort": "created_at:1", "per_page": 100})
        return {one["email"] for one in answer.raise_for_status().json()}

    emails = [one["email"] for one in made]
    assert found(f"created_at:[{early} TO *]") == set(emails)
    assert found(f"created_at:{{{early} TO *]") == {emails[1]}
    assert found(f"created_at:[{late} TO *] AND name:early*") == set()


@pytest.mark.parametrize("query", ["created_at:[soon TO *]", "email:[a TO *]"])
def test_unsupported_user_search_range_is_refused(api: httpx.Client, query: str) -> None:
    assert failure(api.get("users", params={"q": query}))[:2] == (400, "invalid_query_string")


def test_user_search_mixing_and_with_or_is_refused(api: httpx.Client) -> None:
    query = "name:a AND name:b OR name:c"
    assert api.get("users", params={"q": query}).status_code == 400


def set_created(identity: Identity, **moments: float) -> None:
    """Set the creation times of users, in seconds since 1970."""
    with ProviderStore(identity.folder).writing() as db:
        for name, moment in moments.items():
            values = (moment, f"auth0|{name}")
            db.execute("UPDATE users SET created_at = ? WHERE user_id = ?", values)


FIRST = datetime(2025, 1, 31, 23, 59, 59, 999_600, UTC).timestamp()  # shown as .999Z
SECOND = datetime(2025, 2, 1, tzinfo=UTC).timestamp()
THIRD = datetime(2025, 2, 1, 12, 30, 15, 250_000, UTC).timestamp()


@pytest.mark.parametrize(
    ("span", "found"),
    [
        ("[2025-01-31T23:59:59.999Z TO 2025-02-01T00:00:00.000Z]", "gadmin member"),
        ("{2025-01-31T23:59:59.999Z TO 2025-02-01T12:30:15.250Z}", "member"),
        ("[* TO 2025-02-01T00:00:00.000Z}", "gadmin"),
        ("{2025-02-01T00:00:00.000Z TO 2025-03-01]", "viewer"),
        ("[2025-02-01 TO 2025-02-01]", "member viewer"),
        ("[2025-01 TO 2025-01]", "gadmin"),
        ("{2025-01 TO 2025-02]", "member viewer"),
        ("[2025 TO 2025]", "gadmin member viewer"),
        ("{2025-02-01T12:30 TO 2025-03]", ""),
        ("[2025-02-01T12:30:15Z TO 2025-02-01T12:30:15Z]", "viewer"),
        ("[2025-02-01T13:30:15.250+01:00 TO 2025-03]", "viewer"),
        ('["2025-02-01T12:30:15.250000Z" TO "2025-03-01"]', "viewer"),
    ],
)
def test_user_search_by_creation_time(
    identity: Identity, api: httpx.Client, span: str, found: str
) -> None:
    set_created(identity, gadmin=FIRST, member=SECOND, viewer=THIRD)
    query = {"q": f"created_at:{span} AND email:*@example.org"}
    users = api.get("users", params=query).raise_for_status().json()
    assert {user["user_id"] for user in users} == {f"auth0|{name}" for name in found.split()}


def test_user_search_by_other_times(api: httpx.Client, identity: Identity) -> None:
    identity.tokens("multi@example.org")
    since = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    users = api.get("users", params={"q": f"last_login:[{since} TO *]"}).json()
    assert "auth0|multi" in {user["user_id"] for user in users}
    assert all("last_login" in user for user in users)
    unused = api.get("users", params={"q": "last_login:[* TO *] AND name:Nogroup*"}).json()
    assert unused == []
    assert api.get("users", params={"q": "updated_at:[* TO *]"}).json()


@pytest.mark.parametrize(
    "query",
    [
        "created_at:2025",
        'created_at:"2025-01-01"',
        "created_at:[2025]",
        "created_at:[2025-01-01 2025-02-01]",
        "created_at:[2025-13 TO *]",
        "created_at:[yesterday TO *]",
        "created_at:[2025 TO *",
        "email:[a TO b]",
        "blocked:[true TO false]",
    ],
)
def test_invalid_time_range_is_refused(api: httpx.Client, query: str) -> None:
    assert failure(api.get("users", params={"q": query}))[:2] == (400, "invalid_query_string")


def test_creation_time_ranges_reach_all_of_more_than_1000_users(tmp_path: Path) -> None:
    folder, generator = tmp_path / "state", random.Random(7)
    with running_identity(folder, "--burst", "1000") as identity:
        with ProviderStore(folder).writing() as db:
            for number in range(1_234):
                created = 1_600_000_000 + generator.random() * 5
                who = {"user_id": f"auth0|many{number}", "email": f"many{number}@example.org"}
                about = {"name": "Many", "email_verified": True}
                times = {"created_at": created, "updated_at": created}
                insert(db, "users", {**who, **about, **times})
        seen: list[str] = []
        with identity.management() as api:
            start = "[*"
            while True:
                query = {"q": f"email:many* AND created_at:{start} TO *]", "sort": "created_at:1"}
                found = [
                    user
                    for page in range(10)
                    for user in api.get("users", params={**query, "page": page, "per_page": 100})
                    .raise_for_status()
                    .json()
                ]
                if not found:
                    break
                last = found[-1]["created_at"]
                # The last moment may go on in the next range, unless this was the last one.
                kept = [u for u in found if len(found) < 1000 or u["created_at"] < last]
                seen += [user["user_id"] for user in kept]
                start = f"{{{last}" if len(found) < 1000 else f"[{last}"
    assert len(seen) == len(set(seen)) == 1_234


def test_created_user_can_be_read_updated_and_deleted(api: httpx.Client) -> None:
    user = new_user(api, "Fresh@Example.org", name="Fresh", user_metadata={"a": 1, "b": 2})
    assert user["email"] == "fresh@example.org"
    assert user["user_id"].startswith("auth0|")
    changed = api.patch(
        f"users/{user['user_id']}",
        json={"nickname": "fresher", "user_metadata": {"a": None, "c": 3}, "blocked": True},
    ).json()
    assert (changed["nickname"], changed["name"]) == ("fresher", "Fresh")
    assert changed["user_metadata"] == {"b": 2, "c": 3}
    assert changed["blocked"] is True
    assert api.get(f"users/{user['user_id']}").json() == changed
    for _ in range(2):
        assert api.delete(f"users/{user['user_id']}").status_code == 204
    answer = api.get(f"users/{user['user_id']}")
    assert failure(answer) == (404, "inexistent_user", "The user does not exist.")


def test_password_is_not_stored_or_logged(identity: Identity, api: httpx.Client) -> None:
    new_user(api, "secretive@example.org", password="a password to be found")
    for file in identity.folder.iterdir():
        assert b"a password to be found" not in file.read_bytes()
    assert "a password to be found" not in identity.log


def test_user_can_be_created_with_given_id(api: httpx.Client) -> None:
    assert new_user(api, "own@example.org", user_id="own-id")["user_id"] == "auth0|own-id"


def test_duplicate_email_of_user_is_conflict(api: httpx.Client) -> None:
    body = {"connection": CONNECTION, "email": "MEMBER@example.org", "password": "x"}
    answer = api.post("users", json=body)
    assert failure(answer) == (409, "auth0_idp_error", "The user already exists.")
    answer = api.patch("users/auth0|viewer", json={"email": "member@example.org"})
    assert failure(answer)[:2] == (400, "auth0_idp_error")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"connection": None}, "'Missing required property: connection'."),
        ({"email": None}, "'Missing required property: email'."),
        (
            {"email": "no address"},
            "'Object didn't pass validation for format email: no address' on property email.",
        ),
        ({"shoe": 44}, "'Additional properties not allowed: shoe'."),
        ({"name": 7}, "'Expected type string but found type integer' on property name."),
        ({"blocked": "no"}, "'Expected type boolean but found type string' on property blocked."),
    ],
)
def test_invalid_user_body_is_explained(
    api: httpx.Client, fields: dict[str, Any], words: str
) -> None:
    body = {"connection": CONNECTION, "password": "x", "email": "a@example.org", **fields}
    sent = {name: value for name, value in body.items() if value is not None}
    assert failure(api.post("users", json=sent)) == (
        400,
        "invalid_body",
        f"Payload validation error: {words}",
    )


def test_user_in_unknown_connection_is_refused(api: httpx.Client) -> None:
    body = {"connection": "google", "email": "a@b.org", "password": "x"}
    assert failure(api.post("users", json=body))[:2] == (400, "inexistent_connection")


def test_invalid_json_body_is_refused(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    answer = api.post("users", content=b"{", headers=headers)
    assert failure(answer) == (400, None, "Invalid request payload JSON format")


def test_user_fields_can_be_included_or_excluded(api: httpx.Client) -> None:
    one = api.get("users/auth0|member", params={"fields": "email,name"}).json()
    assert set(one) == {"email", "name"}
    rest = api.get("users/auth0|member", params={"fields": "email", "include_fields": "false"})
    assert "email" not in rest.json()
    assert "user_id" in rest.json()


def test_blocked_user_cannot_sign_in(identity: Identity, api: httpx.Client) -> None:
    new_user(api, "naughty@example.org", blocked=True)
    asked = identity.ask()
    with pytest.raises(httpx.HTTPStatusError):
        identity.decide(asked["user_code"], "naughty@example.org")


# Pages


def test_numbered_pages_list_all_users_once(api: httpx.Client) -> None:
    sort = {"sort": "email:1", "per_page": "4"}
    first = api.get("users", params={**sort, "include_totals": "true", "q": "email:*@*"}).json()
    assert {name: first[name] for name in ("start", "limit", "length")} == {
        "start": 0,
        "limit": 4,
        "length": 4,
    }
    seen, page = [], 0
    while users := api.get("users", params={**sort, "page": page}).json():
        seen += [user["email"] for user in users]
        page += 1
    assert seen == sorted(seen)
    assert len(seen) == first["total"] >= 11


def test_paging_beyond_1000_users_is_refused(api: httpx.Client) -> None:
    answer = api.get("users", params={"page": 10, "per_page": 100})
    assert failure(answer)[:2] == (400, "invalid_paging")


@pytest.mark.parametrize(
    "query", [{"page": -1}, {"per_page": 101}, {"page": "x"}, {"include_totals": "perhaps"}]
)
def test_invalid_paging_parameters_are_refused(api: httpx.Client, query: dict[str, Any]) -> None:
    assert failure(api.get("users", params=query))[:2] == (400, "invalid_query_string")


def test_checkpoint_paging_lists_all_members_once(api: httpx.Client) -> None:
    seen: list[str] = []
    query: dict[str, Any] = {"take": 2}
    while True:
        answer = api.get(f"organizations/{REDWOOD}/members", params=query).json()
        seen += [member["user_id"] for member in answer["members"]]
        if "next" not in answer:
            break
        query["from"] = answer["next"]
    assert len(seen) == len(set(seen)) == 5
    assert api.get("organizations", params={"take": 100}).json().keys() == {"organizations"}


# Organizations and members


def test_organizations_are_found_by_id_name_and_list(api: httpx.Client) -> None:
    found = api.get("organizations/name/group-rcphl").json()
    assert found == {
        "id": REDWOOD,
        "name": "group-rcphl",
        "display_name": "Redwood County Public Health Laboratory",
    }
    assert api.get(f"organizations/{REDWOOD}").json() == found
    assert found in api.get("organizations").json()
    totals = api.get("organizations", params={"include_totals": "true"}).json()
    assert totals.keys() == {"start", "limit", "total", "organizations"}
    for path in ("organizations/name/none", "organizations/org_none"):
        assert failure(api.get(path))[:2] == (404, "inexistent_organization")


def test_organization_can_be_created_updated_and_deleted(api: httpx.Client) -> None:
    body = {"name": "group-made", "display_name": "Made", "metadata": {"prefix": "MADE"}}
    made = api.post("organizations", json=body)
    assert made.status_code == 201
    organization = made.json()
    assert {**body, "id": organization["id"]} == organization
    assert organization["id"].startswith("org_")
    again = api.post("organizations", json=body)
    assert failure(again) == (
        409,
        "organization_conflict",
        "An organization with this name already exists.",
    )
    path = f"organizations/{organization['id']}"
    assert api.patch(path, json={"display_name": "Other"}).json()["display_name"] == "Other"
    assert failure(api.patch(path, json={"name": "group-rcphl"}))[0] == 409
    api.post(f"{path}/members", json={"members": ["auth0|member"]})
    assert api.delete(path).status_code == 204
    assert failure(api.get(path))[0] == 404
    assert api.get("users/auth0|member").status_code == 200


def test_invalid_organization_names_are_refused(api: httpx.Client) -> None:
    for name in ("Group", "group one", "", "x" * 51):
        assert failure(api.post("organizations", json={"name": name}))[:2] == (400, "invalid_body")


def test_organization_members_and_roles_can_be_added_and_removed(api: httpx.Client) -> None:
    made = api.post("organizations", json={"name": "group-members"}).json()
    path = f"organizations/{made['id']}/members"
    roles = {role["name"]: role["id"] for role in api.get("roles").json()}
    for _ in range(2):
        answer = api.post(path, json={"members": ["auth0|viewer", "auth0|member"]})
        assert answer.status_code == 204
    held = f"{path}/auth0|viewer/roles"
    given = {"roles": [roles["viewer"], roles["member"]]}
    assert api.post(held, json=given).status_code == 204
    assert [role["name"] for role in api.get(held).json()] == ["member", "viewer"]
    assert set(api.get(held).json()[0]) == {"id", "name", "description"}
    assert api.request("DELETE", held, json={"roles": [roles["member"]]}).status_code == 204
    plain = api.get(path).json()
    assert all("roles" not in member for member in plain)
    named = api.get(path, params={"fields": "user_id,roles"}).json()
    assert {
        "user_id": "auth0|viewer",
        "roles": [{"id": roles["viewer"], "name": "viewer"}],
    } in named
    assert api.request("DELETE", path, json={"members": ["auth0|viewer"]}).status_code == 204
    assert [member["user_id"] for member in api.get(path).json()] == ["auth0|member"]
    assert failure(api.get(held))[:2] == (400, "invalid_membership")


def test_unknown_user_or_role_in_membership_changes_nothing(api: httpx.Client) -> None:
    made = api.post("organizations", json={"name": "group-refusing"}).json()
    path = f"organizations/{made['id']}/members"
    answer = api.post(path, json={"members": ["auth0|member", "auth0|nobody"]})
    assert failure(answer)[:2] == (404, "inexistent_user")
    assert api.get(path).json() == []
    api.post(path, json={"members": ["auth0|member"]})
    answer = api.post(f"{path}/auth0|member/roles", json={"roles": ["rol_none"]})
    assert failure(answer)[:2] == (404, "inexistent_role")
    assert failure(api.post(path, json={"members": []}))[:2] == (400, "invalid_body")


def test_organizations_of_user_are_listed(api: httpx.Client) -> None:
    found = api.get("users/auth0|multi/organizations").json()
    assert [organization["id"] for organization in found] == ORGANIZATIONS[:2]
    assert failure(api.get("users/auth0|nobody/organizations"))[0] == 404


def test_roles_can_be_filtered(api: httpx.Client) -> None:
    answer = api.get("roles", params={"name_filter": "VIEW", "include_totals": "true"}).json()
    assert [role["name"] for role in answer["roles"]] == ["viewer"]
    assert answer["total"] == 1


def test_connections_list_has_one_database_connection(api: httpx.Client) -> None:
    assert [c["name"] for c in api.get("connections").json()] == [CONNECTION]
    assert api.get("connections", params={"name": "other"}).json() == []
    totals = api.get("connections", params={"include_totals": "true"}).json()
    assert (totals["total"], totals["connections"][0]["name"]) == (1, CONNECTION)
    assert api.get("connections", params={"take": 5}).json().keys() == {"connections"}


# Invitations


def invite(api: httpx.Client, email: str, **fields: Any) -> httpx.Response:
    body = {"inviter": {"name": "Gale"}, "invitee": {"email": email}, "client_id": CLIENT}
    return api.post(f"organizations/{REDWOOD}/invitations", json={**body, **fields})


def test_invitation_is_returned_in_auth0_format(api: httpx.Client) -> None:
    role = api.get("roles").json()[0]["id"]
    made = invite(api, "guest@example.org", roles=[role], ttl_sec=3600)
    assert made.status_code == 200
    invitation = made.json()
    assert invitation["inviter"] == {"name": "Gale"}
    assert invitation["invitee"] == {"email": "guest@example.org"}
    assert invitation["roles"] == [role]
    link = httpx.URL(invitation["invitation_url"])
    assert link.path == "/v2/auth/login"
    assert dict(link.params) == {
        "invitation": invitation["ticket_id"],
        "organization": REDWOOD,
        "organization_name": "group-rcphl",
    }
    times = [datetime.fromisoformat(invitation[n]) for n in ("created_at", "expires_at")]
    assert round((times[1] - times[0]).total_seconds()) == 3600
    path = f"organizations/{REDWOOD}/invitations/{invitation['id']}"
    assert api.get(path).json() == invitation
    assert api.delete(path).status_code == 204
    assert failure(api.get(path))[:2] == (404, "inexistent_invitation")
    assert failure(api.delete(path))[0] == 404


def test_invitations_are_listed_newest_first_without_total(api: httpx.Client) -> None:
    made = [invite(api, f"guest{n}@example.org").json()["id"] for n in range(3)]
    path = f"organizations/{REDWOOD}/invitations"
    listed = api.get(path, params={"include_totals": "true", "per_page": 2}).json()
    assert listed.keys() == {"start", "limit", "invitations"}
    assert [i["id"] for i in listed["invitations"]] == made[:0:-1]
    upwards = api.get(path, params={"sort": "created_at:1"}).json()
    assert [i["id"] for i in upwards][-3:] == made
    assert failure(api.get("organizations/org_none/invitations"))[0] == 404


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"client_id": "nobody"}, (404, "inexistent_client")),
        ({"client_id": MANAGEMENT}, (400, "invalid_body")),
        ({"roles": ["rol_none"]}, (404, "inexistent_role")),
        ({"ttl_sec": 2_592_001}, (400, "invalid_body")),
        ({"inviter": {}}, (400, "invalid_body")),
        ({"invitee": {"email": "nonsense"}}, (400, "invalid_body")),
    ],
)
def test_invalid_invitation_is_refused(
    api: httpx.Client, fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert failure(invite(api, "guest@example.org", **fields))[:2] == expected


# Keys, limits


def test_rotated_key_signs_and_old_key_verifies_until_revoked(
    identity: Identity, api: httpx.Client
) -> None:
    def published() -> list[str]:
        keys = identity.http.get(".well-known/jwks.json").json()["keys"]
        return [key["kid"] for key in keys]

    before = published()
    kid = api.post("keys/signing/rotate").raise_for_status().json()["kid"]
    assert published() == [kid, *before]
    assert api.get("roles").status_code == 200  # with a token of the old key
    current = [key for key in api.get("keys/signing").json() if key["current"]]
    assert [key["kid"] for key in current] == [kid]
    for old in before:
        assert api.put(f"keys/signing/{old}/revoke").status_code in {200, 401}
    assert failure(api.get("roles"))[0] == 401
    with identity.management() as anew:
        assert failure(anew.put("keys/signing/none/revoke"))[:2] == (404, "inexistent_key")
        assert anew.put(f"keys/signing/{kid}/revoke").status_code == 200
    with identity.management() as again:
        keys = {key["kid"]: key for key in again.get("keys/signing").json()}
    assert keys[kid]["revoked"]
    assert len(published()) == 1
    assert kid not in published()
    assert before[0] not in published()


def test_rate_limit_responses_match_auth0(tmp_path: Path) -> None:
    with (
        running_identity(tmp_path / "state", "--burst", "3", "--rate", "2") as identity,
        identity.management() as api,
    ):
        answers = [api.get("roles") for _ in range(5)]
        assert [answer.status_code for answer in answers[:3]] == [200] * 3
        assert answers[0].headers["x-ratelimit-limit"] == "3"
        assert answers[0].headers["x-ratelimit-remaining"] == "2"
        reset = int(answers[0].headers["x-ratelimit-reset"])
        assert abs(reset - time.time()) < 60
        refused = answers[-1]
        assert failure(refused) == (429, "too_many_requests", "Global limit has been reached")
        assert refused.headers["x-ratelimit-remaining"] == "0"
        time.sleep(int(refused.headers["retry-after"]))
        assert api.get("roles").status_code == 200


def test_rate_limit_reset_is_time_of_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.25
    clock = SimpleNamespace(monotonic=lambda: now, time=lambda: now)
    monkeypatch.setattr(management, "time", clock)
    bucket = Bucket(burst=3, rate=0.5)
    told = [bucket.take() for _ in range(4)]
    assert [allowed for allowed, _ in told] == [True, True, True, False]
    headers = [answer for _, answer in told]
    assert [one["x-ratelimit-remaining"] for one in headers] == ["2", "1", "0", "0"]
    assert {one["x-ratelimit-limit"] for one in headers} == {"3"}
    # One more request is possible in 2 s, at 1000002.25; not when all three are.
    assert {one["x-ratelimit-reset"] for one in headers} == {"1000003"}
    assert headers[3]["Retry-After"] == "2"
    now += 10
    assert bucket.take()[0]


def test_unknown_management_paths_are_not_found(api: httpx.Client) -> None:
    assert failure(api.get("rules"))[0] == 404
    assert failure(api.delete("roles"))[0] == 405
