"""Groups, their members, and invitations, with a real provider's Management API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Group, Location, Role, UserRole
from tests.api.conftest import PRINCIPALS, Api, ApiFactory, managed_by, use_organizations
from tests.local.auth0.lab import ORGANIZATIONS, Identity

_PASSED_ON = {"authorization", "content-type", "accept"}
Refused = tuple[int, dict[str, Any]]


@pytest.fixture
def lab(make_api: ApiFactory, seeded: Database, identity: Identity) -> Api:
    use_organizations(seeded)
    return make_api(seeded, **managed_by(identity))


def wanted(api: Api, **changes: Any) -> dict[str, Any]:
    with api.database.reading() as session:
        place = session.scalars(sa.select(Location.id).order_by(Location.id)).first()
    unique = uuid4().hex[:8]  # all tests of this module share the provider
    body = {"name": f"Group {unique}", "prefix": unique, "default_tree_location_id": place}
    return {**body, **changes}


def organizations(identity: Identity) -> dict[str, str]:
    with identity.management() as management:
        found = management.get("organizations", params={"per_page": 100}).json()
    return {organization["name"]: organization["id"] for organization in found}


def groups(api: Api) -> list[str]:
    with api.database.reading() as session:
        return list(session.scalars(sa.select(Group.name).order_by(Group.id)))


def ask(api: Api, method: str, path: str, principal: str | None, **options: Any) -> Refused:
    answer = api(method, path, principal, **options)
    return answer.status_code, answer.json()


# --- creating groups ---


def test_create_group_creates_its_organization(lab: Api, identity: Identity) -> None:
    body = wanted(lab, prefix=f"Ab-{uuid4().hex[:6]} ä", submitting_lab="The Lab", address="Here 1")
    status, made = ask(lab, "POST", "/v2/groups/", "sysadmin", json=body)
    assert status == 200, made
    assert made == {
        "id": made["id"],
        "name": body["name"],
        "address": "Here 1",
        "prefix": body["prefix"],
        "submitting_lab": "The Lab",
        "default_tree_location": made["default_tree_location"],
    }
    assert made["default_tree_location"]["id"] == body["default_tree_location_id"]
    name = f"group-{body['prefix'][:9].lower().replace('-', '_')}__"
    with lab.database.reading() as session:
        organization = session.get_one(Group, made["id"]).auth0_org_id
    assert organizations(identity)[name] == organization
    with identity.management() as management:
        known = management.get(f"organizations/{organization}").json()
    assert known["display_name"] == body["name"]


def test_submitting_lab_defaults_to_group_name(lab: Api) -> None:
    body = wanted(lab, prefix=f"L-{uuid4().hex[:6]}")
    _, made = ask(lab, "POST", "/v2/groups/", "sysadmin", json=body)
    assert made["submitting_lab"] == body["name"]


@pytest.mark.parametrize("principal", [name for name in PRINCIPALS if not name.startswith("sys")])
def test_create_group_requires_system_admin(shared_api: Api, principal: str) -> None:
    refused = (403, {"error": "Not authorized"})
    assert ask(shared_api, "POST", "/v2/groups/", principal, json={}) == refused


@pytest.mark.parametrize("field", ["name", "prefix"])
def test_create_group_with_taken_name_or_prefix_creates_nothing(
    lab: Api, identity: Identity, field: str
) -> None:
    with lab.database.reading() as session:
        taken = getattr(session.get_one(Group, 1), field)
    before = organizations(identity), groups(lab)
    body = wanted(lab, **{field: taken})
    assert ask(lab, "POST", "/v2/groups/", "sysadmin", json=body) == (
        409,
        {"error": "a group with this name or prefix already exists", "fields": [field]},
    )
    assert (organizations(identity), groups(lab)) == before


def test_create_group_with_unknown_location_creates_nothing(lab: Api, identity: Identity) -> None:
    before = organizations(identity), groups(lab)
    body = wanted(lab, default_tree_location_id=99_999)
    assert ask(lab, "POST", "/v2/groups/", "sysadmin", json=body) == (
        400,
        {"error": "default_tree_location_id 99999 not found"},
    )
    assert (organizations(identity), groups(lab)) == before


def test_create_group_does_not_take_over_existing_organization(
    lab: Api, identity: Identity
) -> None:
    body = wanted(lab)
    name = f"group-{body['prefix']}"
    with identity.management() as management:
        management.post("organizations", json={"name": name}).raise_for_status()
    before = groups(lab)
    status, answer = ask(lab, "POST", "/v2/groups/", "sysadmin", json=body)
    assert (status, answer["organization"]) == (409, name)
    assert groups(lab) == before
    assert name in organizations(identity)


def test_concurrent_creates_of_same_group_create_one(lab: Api, identity: Identity) -> None:
    before, body = set(organizations(identity)), wanted(lab)
    with ThreadPoolExecutor(6) as threads:
        answers = list(
            threads.map(lambda _: lab("POST", "/v2/groups/", "sysadmin", json=body), range(6))
        )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]
    assert groups(lab).count(body["name"]) == 1
    assert set(organizations(identity)) - before == {f"group-{body['prefix']}"}


def test_failed_commit_of_group_deletes_its_organization(lab: Api, identity: Identity) -> None:
    with lab.database.begin() as session:
        # This constraint is checked only at commit.
        session.execute(
            sa.text(
                "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN RAISE EXCEPTION ''not today''; END'"
            )
        )
        session.execute(
            sa.text(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON aspen.groups DEFERRABLE"
                " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.refuse()"
            )
        )
    before = organizations(identity), groups(lab)
    assert lab("POST", "/v2/groups/", "sysadmin", json=wanted(lab)).status_code == 500
    assert (organizations(identity), groups(lab)) == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "ab"}, "name"),
        ({"name": "x" * 129}, "name"),
        ({"name": 123}, "name"),
        ({"prefix": " x "}, "prefix"),
        ({"prefix": "x" * 26}, "prefix"),
        ({"prefix": "a\0b"}, "prefix"),
        ({"address": ""}, "address"),
        ({"submitting_lab": "xy"}, "submitting_lab"),
        ({"default_tree_location_id": "x"}, "default_tree_location_id"),
        ({"default_tree_location_id": 2**31}, "default_tree_location_id"),
    ],
    ids=str,
)
def test_create_group_with_invalid_value_returns_422_with_field(
    shared_api: Api, changes: dict[str, Any], field: str
) -> None:
    body = wanted(shared_api, **changes)
    status, answer = ask(shared_api, "POST", "/v2/groups/", "sysadmin", json=body)
    assert status == 422
    assert [finding["loc"] for finding in answer["detail"]] == [["body", field]]


def test_create_group_during_provider_outage_returns_503(
    make_api: ApiFactory, seeded: Database, identity: Identity
) -> None:
    away = managed_by(identity) | {"AUTH0_MANAGEMENT_DOMAIN": "http://127.0.0.1:1"}
    for settings in (away, {}):
        api = make_api(seeded, **settings)
        before = groups(api)
        answer = api("POST", "/v2/groups/", "sysadmin", json=wanted(api))
        assert answer.status_code == 503
        assert answer.json() == {"error": "the identity provider cannot be reached"}
        assert groups(api) == before


def test_create_group_with_wrong_management_secret_returns_503(
    make_api: ApiFactory, seeded: Database, identity: Identity
) -> None:
    settings = managed_by(identity) | {"AUTH0_MANAGEMENT_CLIENT_SECRET": "wrong"}
    api = make_api(seeded, **settings)
    assert api("POST", "/v2/groups/", "sysadmin", json=wanted(api)).status_code == 503


@contextmanager
def losing_answers(identity: Identity) -> Iterator[tuple[str, list[str]]]:
    """Yield a proxy that loses the provider's answer to a new organization, and its requests."""
    seen: list[str] = []

    class Lossy(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            # A token is issued for the provider's address, not for the proxy's.
            own = f"http://{self.headers['Host']}/".encode()
            body = body.replace(own, identity.issuer.encode())
            headers = {k: v for k, v in self.headers.items() if k.lower() in _PASSED_ON}
            url = identity.issuer.rstrip("/") + self.path
            with httpx.Client(trust_env=False) as client:
                answer = client.request(self.command, url, content=body, headers=headers)
            seen.append(f"{self.command} {self.path}")
            if seen[-1] == "POST /api/v2/organizations":
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_DELETE = pass_on  # noqa: N815 - named by the library

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Lossy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_create_group_recovers_from_lost_organization_response(
    make_api: ApiFactory, seeded: Database, identity: Identity
) -> None:
    with losing_answers(identity) as (address, seen):
        api = make_api(seeded, **managed_by(identity) | {"AUTH0_MANAGEMENT_DOMAIN": address})
        body = wanted(api)
        status, made = ask(api, "POST", "/v2/groups/", "sysadmin", json=body)
    assert status == 200, (made, seen)
    with api.database.reading() as session:
        organization = session.get_one(Group, made["id"]).auth0_org_id
    assert organizations(identity)[f"group-{body['prefix']}"] == organization
    assert seen.count("POST /api/v2/organizations") == 1


# --- reading groups ---


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_group_is_visible_to_its_admins_and_members_only(shared_api: Api, principal: str) -> None:
    status, answer = ask(shared_api, "GET", "/v2/groups/1/", principal)
    if principal in {"gadmin", "member", "sysmember", "multi"}:
        assert (status, answer["prefix"]) == (200, "RCPHL")
        assert set(answer) == {
            *("id", "name", "address", "prefix", "default_tree_location", "submitting_lab")
        }
    else:
        assert (status, answer) == (400, {"error": "Not found"})
    assert ask(shared_api, "GET", "/v2/groups/99/", principal) == (400, {"error": "Not found"})


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_group_members_are_visible_to_admins_and_members_only(
    shared_api: Api, principal: str
) -> None:
    for path in ("/v2/groups/1/members/", "/v2/groups/99/members/"):
        status, answer = ask(shared_api, "GET", path, principal)
        if principal in {"gadmin", "member", "sysmember", "multi"} and "/1/" in path:
            found = {member["email"].partition("@")[0]: member for member in answer["members"]}
            assert {name: row["role"] for name, row in found.items()} == {
                "gadmin": "admin",
                "member": "member",
                "viewer": "viewer",
                "sysmember": "member",
                "multi": "member",
            }
            assert set(found["member"]) == {
                *("id", "name", "agreed_to_tos", "acknowledged_policy_version", "email", "role")
            }
            assert [row["id"] for row in answer["members"]] == sorted(
                row["id"] for row in answer["members"]
            )
        else:
            assert (status, answer) == (403, {"error": "unauthorized"})


def test_member_with_several_roles_is_listed_with_strongest(api: Api) -> None:
    with api.database.begin() as session:
        viewer = session.scalars(sa.select(Role).where(Role.name == "viewer")).one()
        query = sa.select(UserRole).join(UserRole.role)
        admin = session.scalars(query.where(UserRole.group_id == 1, Role.name == "admin")).one()
        user = admin.user_id
        session.add(UserRole(user_id=user, group_id=1, role=viewer))
    members = api("GET", "/v2/groups/1/members/", "member").json()["members"]
    assert [row["role"] for row in members if row["id"] == user] == ["admin"]


# --- invitations ---


def invitations(lab: Api, principal: str = "member", group: int = 1) -> list[dict[str, Any]]:
    answer = lab("GET", f"/v2/groups/{group}/invitations/", principal)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["invitations"]
    return found


@pytest.mark.parametrize("principal", ["gadmin", "sysadmin", "sysmember"])
def test_group_admins_and_system_admins_can_invite(
    lab: Api, identity: Identity, principal: str
) -> None:
    fine, bad = f"{uuid4().hex}@example.org", "no address"
    body = {"role": "member", "emails": [fine, bad, fine]}
    status, answer = ask(lab, "POST", "/v2/groups/1/invitations/", principal, json=body)
    assert status == 200
    first, second = answer["invitations"]
    assert first == {"email": fine, "success": True}
    assert (second["email"], second["success"]) == (bad, False)
    assert "email" in second["error"]
    (found,) = [row for row in invitations(lab) if row["invitee"]["email"] == fine]
    assert set(found) == {"id", "created_at", "expires_at", "inviter", "invitee"}
    with identity.management() as management:
        path = f"organizations/{ORGANIZATIONS[0]}/invitations/{found['id']}"
        kept = management.get(path).json()
        roles = {role["id"]: role["name"] for role in management.get("roles").json()}
    assert [roles[role] for role in kept["roles"]] == ["member"]


@pytest.mark.parametrize("principal", ["member", "viewer", "g2admin", "nogroup", "multi"])
def test_invite_without_admin_role_returns_403(lab: Api, principal: str) -> None:
    body = {"role": "member", "emails": []}
    assert ask(lab, "POST", "/v2/groups/1/invitations/", principal, json=body) == (
        403,
        {"error": "unauthorized"},
    )


def test_invite_to_unknown_group_returns_403(lab: Api) -> None:
    body = {"role": "member", "emails": []}
    assert ask(lab, "POST", "/v2/groups/99/invitations/", "sysadmin", json=body)[0] == 403


def test_invite_with_unknown_role_returns_400_with_valid_roles(lab: Api) -> None:
    body = {"role": "queen", "emails": ["somebody@example.org"]}
    assert ask(lab, "POST", "/v2/groups/1/invitations/", "gadmin", json=body) == (
        400,
        {"error": "role is invalid", "role": "queen", "roles": ["admin", "member", "viewer"]},
    )


@pytest.mark.parametrize(
    "body", [{}, {"role": "member"}, {"role": "x", "emails": "a@b.c"}], ids=str
)
def test_invite_with_invalid_body_returns_422(lab: Api, body: dict[str, Any]) -> None:
    assert ask(lab, "POST", "/v2/groups/1/invitations/", "gadmin", json=body)[0] == 422


def test_invitations_are_listed_across_pages_and_rate_limits(lab: Api, identity: Identity) -> None:
    emails = [f"{n}-{uuid4().hex}@example.org" for n in range(60)]
    body = {"role": "viewer", "emails": emails}
    answer = lab("POST", "/v2/groups/2/invitations/", "g2admin", json=body)
    assert all(row["success"] for row in answer.json()["invitations"])
    found = {row["invitee"]["email"] for row in invitations(lab, "g2member", 2)}
    assert set(emails) <= found
    identity.turn(throttled=2, retry_after=1)
    assert len(invitations(lab, "g2member", 2)) >= 60


@pytest.mark.parametrize("principal", ["viewer", "sysadmin", "g2admin", "nogroup"])
def test_invitations_are_hidden_from_viewers_and_outsiders(lab: Api, principal: str) -> None:
    assert ask(lab, "GET", "/v2/groups/1/invitations/", principal) == (
        403,
        {"error": "unauthorized"},
    )


def test_invitations_of_missing_organization_return_400(lab: Api) -> None:
    with lab.database.begin() as session:
        session.get_one(Group, 1).auth0_org_id = "org_gone"
    refused = (400, {"error": "Not found"})
    assert ask(lab, "GET", "/v2/groups/1/invitations/", "member") == refused


# --- names ---


def test_changed_user_name_is_sent_to_provider(lab: Api, identity: Identity) -> None:
    status, me = ask(lab, "PUT", "/v2/users/me", "viewer", json={"name": " Vic the Second "})
    assert (status, me["name"]) == (200, "Vic the Second")
    with identity.management() as management:
        assert management.get("users/auth0|viewer").json()["name"] == "Vic the Second"


def test_user_name_rejected_by_provider_changes_nothing(lab: Api) -> None:
    before = lab("GET", "/v2/users/me", "member").json()
    changes = {"name": "x" * 301, "agreed_to_tos": False}
    status, answer = ask(lab, "PUT", "/v2/users/me", "member", json=changes)
    assert (status, answer["error"]) == (400, "name is invalid")
    assert lab("GET", "/v2/users/me", "member").json() == before


def test_unchanged_user_name_needs_no_provider(api: Api) -> None:
    name = api("GET", "/v2/users/me", "member").json()["name"]
    assert ask(api, "PUT", "/v2/users/me", "member", json={"name": name})[0] == 200
    assert ask(api, "PUT", "/v2/users/me", "member", json={"name": "Another"})[0] == 503
