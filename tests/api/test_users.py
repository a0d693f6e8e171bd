"""The signed-in user, and new ones."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import Role, User, UserRole
from tests.api.conftest import PRINCIPALS, Api

NEW: dict[str, Any] = {
    "name": "Nell New",
    "email": "nell@example.org",
    "group_id": 2,
    "auth0_user_id": "auth0|nell",
}


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_users_me_returns_signed_in_user(shared_api: Api, principal: str) -> None:
    me = shared_api("GET", "/v2/users/me", principal).json()
    assert set(me) == {
        *("id", "name", "agreed_to_tos", "acknowledged_policy_version", "split_id"),
        *("analytics_id", "gisaid_submitter_id", "groups"),
    }
    expected = {
        "gadmin": [(1, ["admin"])],
        "member": [(1, ["member"])],
        "viewer": [(1, ["viewer"])],
        "multi": [(1, ["member"]), (2, ["admin"])],
        "nogroup": [],
        "sysadmin": [],
    }
    if principal in expected:
        assert [(group["id"], group["roles"]) for group in me["groups"]] == expected[principal]


def test_users_me_with_trailing_slash_is_redirected(shared_api: Api) -> None:
    answer = shared_api("GET", "/v2/users/me/", "member")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{shared_api.url}/v2/users/me"


def test_user_without_split_id_can_sign_in(api: Api) -> None:
    with api.database.begin() as session:
        session.execute(
            sa.update(User).where(User.auth0_user_id == "auth0|member").values(split_id=None)
        )
    assert api("GET", "/v2/users/me", "member").json()["split_id"] == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"agreed_to_tos": False}, {"agreed_to_tos": False}),
        ({"agreed_to_tos": "off"}, {"agreed_to_tos": False}),
        ({"agreed_to_tos": None}, {}),
        (
            {"acknowledged_policy_version": "2022-06-22"},
            {"acknowledged_policy_version": "2022-06-22"},
        ),
        ({"acknowledged_policy_version": 0}, {"acknowledged_policy_version": "1970-01-01"}),
        ({"gisaid_submitter_id": "  somebody "}, {"gisaid_submitter_id": "somebody"}),
        ({"gisaid_submitter_id": 12}, {"gisaid_submitter_id": "12"}),
        ({"name": ""}, {"name": ""}),
        ({"system_admin": True, "id": 1, "email": "x@example.org"}, {}),
    ],
    ids=str,
)
def test_users_me_update_changes_only_given_fields(
    api: Api, changes: dict[str, Any], expected: dict[str, Any]
) -> None:
    before = api("GET", "/v2/users/me", "member").json()
    answer = api("PUT", "/v2/users/me", "member", json=changes)
    assert (answer.status_code, answer.json()) == (200, {**before, **expected})
    assert api("GET", "/v2/users/me", "member").json() == {**before, **expected}
    with api.database.reading() as session:
        user = session.scalars(sa.select(User).where(User.auth0_user_id == "auth0|member")).one()
        assert not user.system_admin
        assert user.email == "member@example.org"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"agreed_to_tos": "perhaps"}, "agreed_to_tos"),
        ({"acknowledged_policy_version": "2022-02-30"}, "acknowledged_policy_version"),
        ({"acknowledged_policy_version": "2022-06-22T10:00:00"}, "acknowledged_policy_version"),
        ({"name": "a\0b"}, "name"),
        ({"gisaid_submitter_id": ["x"]}, "gisaid_submitter_id"),
    ],
    ids=str,
)
def test_users_me_update_with_invalid_value_returns_422_with_field(
    shared_api: Api, changes: dict[str, Any], field: str
) -> None:
    answer = shared_api("PUT", "/v2/users/me", "member", json=changes)
    assert answer.status_code == 422
    (finding,) = answer.json()["detail"]
    assert finding["loc"] == ["body", field]


def test_system_admin_creates_user_with_role(api: Api) -> None:
    answer = api("POST", "/v2/users/", "sysadmin", json=NEW)
    assert answer.status_code == 200, answer.text
    assert answer.json()["groups"] == [
        {"id": 2, "name": "Bayside Department of Public Health", "roles": ["member"]}
    ]
    me = api("GET", "/v2/users/me", "nell")
    assert (me.status_code, me.json()) == (200, answer.json())
    assert api("GET", "/v2/orgs/2/usher/tree_versions/", "nell").status_code == 200
    assert api("POST", "/v2/users/", "nell", json=NEW).status_code == 403


def test_new_user_can_be_system_admin(api: Api) -> None:
    answer = api("POST", "/v2/users/", "sysadmin", json={**NEW, "system_admin": "yes"})
    assert answer.status_code == 200
    assert api("POST", "/v2/users/", "nell", json=NEW).status_code == 409


@pytest.fixture
def untouched(shared_api: Api) -> Iterator[None]:
    def count() -> tuple[int, int]:
        with shared_api.database.reading() as session:
            tables = User, UserRole
            users, roles = (
                session.scalars(sa.select(sa.func.count()).select_from(t)).one() for t in tables
            )
        return users, roles

    before = count()
    yield
    assert count() == before


@pytest.mark.parametrize("principal", [name for name in PRINCIPALS if not name.startswith("sys")])
def test_create_user_requires_system_admin(
    shared_api: Api, untouched: None, principal: str
) -> None:
    answer = shared_api("POST", "/v2/users/", principal, json=NEW)
    assert (answer.status_code, answer.json()) == (403, {"error": "Not authorized"})
    # Permissions are checked before the body.
    assert shared_api("POST", "/v2/users/", principal, json=[]).status_code == 403


@pytest.mark.parametrize(
    ("changes", "status", "body"),
    [
        ({"group_id": 99}, 400, {"error": "group_id 99 not found"}),
        (
            {"email": "MEMBER@example.org"},
            409,
            {
                "error": "a user with this email or auth0_user_id already exists",
                "fields": ["email"],
            },
        ),
        (
            {"auth0_user_id": "auth0|viewer"},
            409,
            {
                "error": "a user with this email or auth0_user_id already exists",
                "fields": ["auth0_user_id"],
            },
        ),
    ],
    ids=str,
)
def test_create_user_names_unknown_group_or_taken_field(
    shared_api: Api, untouched: None, changes: dict[str, Any], status: int, body: dict[str, Any]
) -> None:
    answer = shared_api("POST", "/v2/users/", "sysadmin", json={**NEW, **changes})
    assert (answer.status_code, answer.json()) == (status, body)


@pytest.mark.parametrize("missing", ["name", "email", "group_id", "auth0_user_id"])
def test_create_user_requires_each_field(shared_api: Api, untouched: None, missing: str) -> None:
    body = {name: value for name, value in NEW.items() if name != missing}
    answer = shared_api("POST", "/v2/users/", "sysadmin", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", missing]


def test_concurrent_creates_of_same_user_create_one(api: Api) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: api("POST", "/v2/users/", "sysadmin", json=NEW), range(8))
        )
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]
    with api.database.reading() as session:
        query = sa.select(Role.name).join(UserRole).join(User).where(User.email == NEW["email"])
        assert session.scalars(query).all() == ["member"]
