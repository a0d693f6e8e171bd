"""``aspencli groups onboard``: organization, group, and first admin."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from aspen.identity.management import Patience
from aspencli.remote import identity as remote_identity
from tests.cli.commands.ending import Ended
from tests.cli.commands.people_lab import PeopleLab
from tests.local.auth0.detour import Detour

KEYS = [
    *("id", "name", "prefix", "auth0_org_id", "admin", "account", "membership", "user"),
    *("invitation", "password_link", "changes", "reason", "outcome"),
]


def _onboard(people: PeopleLab, prefix: str, /, *words: str, **changes: str) -> Ended:
    options = {
        "name": f"Group {prefix}",
        "prefix": prefix,
        "default-tree-location": "1",
        "admin": f"{prefix}@example.org",
        "admin-name": "Ada Admin",
        **changes,
    }
    given = [word for name, value in options.items() for word in (f"--{name}", value)]
    return people("groups", "onboard", *given, "--yes", "-o", "json", *words)


@pytest.fixture
def prefix() -> str:
    return f"G{uuid4().hex[:8]}"


def _row(people: PeopleLab, prefix: str) -> dict[str, Any] | None:
    query = "SELECT * FROM aspen.groups WHERE prefix = :prefix"
    with people.database.reading() as session:
        found = session.execute(sa.text(query), {"prefix": prefix}).mappings().one_or_none()
    return dict(found) if found else None


def _organization(people: PeopleLab, prefix: str) -> dict[str, Any] | None:
    with people.identity.management() as api:
        answer = api.get(f"organizations/name/group-{prefix.lower()}")
    return dict(answer.json()) if answer.is_success else None


def _is_complete(people: PeopleLab, prefix: str) -> None:
    group, organization = _row(people, prefix), _organization(people, prefix)
    assert group is not None
    assert organization is not None
    assert group["auth0_org_id"] == organization["id"]
    assert organization["display_name"] == group["name"]
    account, user = people.account(f"{prefix}@example.org"), people.user(f"{prefix}@example.org")
    assert account is None or account.roles == {organization["id"]: ["admin"]}
    user = people.user(f"{prefix.lower()}@example.org")
    assert user is not None
    assert user.roles == {organization["id"]: "admin"}


def test_group_onboard_creates_organization_group_and_admin(people: PeopleLab, prefix: str) -> None:
    ended = _onboard(people, prefix, division="California", address="Here 1")
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == KEYS
    assert row["outcome"] == "created"
    assert {row[part] for part in ("account", "membership", "user", "invitation")} == {"created"}
    group = _row(people, prefix)
    assert group is not None
    assert (row["id"], row["auth0_org_id"]) == (group["id"], group["auth0_org_id"])
    assert (group["division"], group["address"]) == ("California", "Here 1")
    assert group["submitting_lab"] == group["name"]
    _is_complete(people, prefix)
    assert people.invited(row["auth0_org_id"]) == [f"{prefix.lower()}@example.org"]
    assert f"To undo: aspencli --env local users offboard {prefix.lower()}@example.org" in ended.err
    assert f"Then: aspencli --env local groups delete {prefix}" in ended.err


def test_new_admin_needs_a_name(people: PeopleLab, prefix: str) -> None:
    words = ("groups", "onboard", "--name", f"Group {prefix}", "--prefix", prefix, "--yes")
    ended = people(*words, "--default-tree-location", "1", "--admin", f"{prefix}@example.org")
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert "Pass --admin-name." in ended.err
    assert (_row(people, prefix), _organization(people, prefix)) == (None, None)


def test_second_group_onboard_changes_nothing(people: PeopleLab, prefix: str) -> None:
    assert _onboard(people, prefix).code == 0
    again = _onboard(people, prefix)
    assert again.code == 0, again.err
    assert again.json[0]["outcome"] == "unchanged"
    assert "Nothing to change" in again.err


def test_group_dry_run_writes_nothing(people: PeopleLab, prefix: str) -> None:
    ended = _onboard(people, prefix, "--dry-run")
    assert ended.code == 0, ended.err
    assert ended.json[0]["outcome"] == "create"
    assert (_row(people, prefix), _organization(people, prefix)) == (None, None)


@pytest.mark.parametrize("there", ["organization", "group"])
def test_group_that_exists_in_part_gets_the_rest(
    people: PeopleLab, prefix: str, there: str
) -> None:
    name = f"Group {prefix}"
    if there == "organization":
        with people.identity.management() as api:
            body = {"name": f"group-{prefix.lower()}", "display_name": name}
            api.post("organizations", json=body).raise_for_status()
    else:
        people.execute(
            "INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)"
            " VALUES (:name, :prefix, 1, :prefix)",
            name=name,
            prefix=prefix,
        )
    ended = _onboard(people, prefix)
    assert ended.code == 0, ended.err
    assert ended.json[0]["outcome"] == "updated"
    _is_complete(people, prefix)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"name": "Redwood County Public Health Laboratory"}, 7, "has this name or prefix already"),
        ({"prefix": "RCPHL"}, 7, "has this name or prefix already"),
        ({"prefix": "X"}, 2, "The prefix has 1 characters."),
        ({"default-tree-location": "Atlantis"}, 6, "No such location: 'Atlantis'"),
        ({"admin": "nobody"}, 2, "Invalid e-mail address"),
    ],
)
def test_refused_group_onboard_writes_nothing(
    people: PeopleLab, prefix: str, changes: dict[str, str], code: int, said: str
) -> None:
    ended = _onboard(people, prefix, **changes)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err
    assert (_row(people, prefix), _organization(people, prefix)) == (None, None)


def test_organization_with_another_display_name_is_a_conflict(
    people: PeopleLab, prefix: str
) -> None:
    with people.identity.management() as api:
        body = {"name": f"group-{prefix.lower()}", "display_name": "Someone else"}
        api.post("organizations", json=body).raise_for_status()
    ended = _onboard(people, prefix)
    assert ended.code == 7
    assert "another display name, 'Someone else'" in ended.err


@pytest.mark.parametrize("path", ["^organizations$", "^users$", "/members$", "/invitations$"])
def test_failed_step_of_a_group_leaves_nothing_and_rerun_completes(
    people: PeopleLab,
    prefix: str,
    detour: Detour,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_identity, "PATIENCE", Patience(seconds=1, tries=2, persists=True))
    detour.fail("POST", path, status=409)
    ended = _onboard(people, prefix)
    assert ended.code == 7, ended.err
    assert (_row(people, prefix), _organization(people, prefix)) == (None, None)
    assert people.account(f"{prefix}@example.org") is None
    detour.rules.clear()
    again = _onboard(people, prefix)
    assert again.code == 0, again.err
    _is_complete(people, prefix)


def test_organization_that_cannot_be_deleted_again_is_named(
    people: PeopleLab, prefix: str, detour: Detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_identity, "PATIENCE", Patience(seconds=1, tries=2, persists=True))
    detour.fail("POST", "^users$", status=409)
    detour.fail("DELETE", "^organizations", status=500)
    ended = _onboard(people, prefix)
    assert ended.code == 7
    organization = _organization(people, prefix)
    assert organization is not None
    assert f"Organization {organization['id']} remains" in ended.err
    detour.rules.clear()
    again = _onboard(people, prefix)
    assert again.code == 0, again.err
    _is_complete(people, prefix)
