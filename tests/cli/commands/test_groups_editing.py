"""``aspencli groups update``, ``archive``, and ``delete``, on a real database and provider."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands.both_lab import BDPH, VSUV, Both
from tests.cli.commands.conftest import AddSample
from tests.cli.commands.identity_lab import IdentityLab
from tests.identity.population import organization, population
from tests.identity.site import Site
from tests.local.auth0.lab import running_identity

NAME = "Valley State University Virology"
NEW = (
    "INSERT INTO aspen.groups (name, prefix, default_tree_location_id, auth0_org_id)"
    " VALUES ('Lake County', 'LAKE', 1, :organization)"
)


@pytest.fixture
def no_provider(both: Both, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Return both sides without credentials for the provider."""
    for name in ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"AUTH0_MANAGEMENT_{name}")
    return both


def lake(both: Both) -> str:
    """Add the group LAKE, without members, and return its organization."""
    body = {"name": "group-lake", "display_name": "Lake County"}
    with both.identity.management() as provider:
        found = provider.post("organizations", json=body).raise_for_status().json()
    both.accounts.execute(NEW, organization=found["id"])
    return str(found["id"])


def shown(both: Both, key: str) -> dict[str, Any]:
    (row,) = both("groups", "show", key, "-o", "json").json
    return dict(row)


# update


def test_update_changes_both_sides_and_undo_restores_them(both: Both) -> None:
    before = both.state
    words = (
        *("groups", "update", "VSUV", "--name", "Valley Virology", "--prefix", "VV U"),
        *("--address", "9 New Road", "--submitting-lab", "Valley Lab", "--clear", "division"),
        *("--location", "Kern County"),
        *("--default-tree-location", "north america / usa  /california/alameda county"),
    )
    planned = both(*words, "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert both.state == before
    done = both.ok(*words)
    assert [(row["side"], row["field"], row["after"]) for row in done.json[-2:]] == [
        ("identity provider", "display_name", "Valley Virology"),
        ("identity provider", "name", "group-vv_u"),
    ]
    found = shown(both, "VV U")
    assert (found["name"], found["address"]) == ("Valley Virology", "9 New Road")
    assert (found["division"], found["location"]) == (None, "Kern County")
    assert found["submitting_lab"] == "Valley Lab"
    assert found["default_tree_location"].endswith("Alameda County")
    organization = both.organization(VSUV)
    assert organization is not None
    assert (organization["name"], organization["display_name"]) == ("group-vv_u", "Valley Virology")
    again = both.ok(*("groups", "update", "VV U"), *words[3:])
    assert again.json == []
    assert "Nothing to change: the group already has these values." in again.err
    run = both.last_run()
    assert (run["command"], run["outcome"]) == ("groups update", "written")
    both.ok("groups", "undo", run["run"])
    assert both.state == before


def test_organization_with_a_name_of_its_own_keeps_it(both: Both) -> None:
    with both.identity.management() as provider:
        provider.patch(f"organizations/{VSUV}", json={"name": "virology"}).raise_for_status()
    done = both.ok("groups", "update", "VSUV", "--prefix", "VV")
    assert {row["side"] for row in done.json} == {"database"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("VSUV",), 2, "Nothing to update."),
        (("VSUV", "--name", "XY"), 2, "--name is too short: 2 characters (minimum 3)"),
        (("VSUV", "--prefix", "V"), 2, "--prefix is too short: 1 characters (minimum 2)"),
        (("VSUV", "--submitting-lab", ""), 2, "--submitting-lab is"),
        (("VSUV", "--clear", "name"), 2, "submitting-lab"),
        (("VSUV", "--clear", "address", "--address", "X"), 2, "contradict each other"),
        (("VSUV", "--default-tree-location", "Atlantis"), 6, "No such location: 'Atlantis'"),
        (("VSUV", "--name", "N", "--via", "api"), 2, "--name is too short"),
        (("VSUV", "--name", "New", "--via", "api"), 2, "The API cannot update groups."),
        (("XX", "--name", "New"), 6, "No such group: 'XX'"),
        (("VSUV", "--prefix", "rcphl"), 7, "The prefix rcphl already belongs to another group"),
        (
            ("VSUV", "--name", "bayside department OF public health"),
            7,
            "group 2 Bayside Department of Public Health (prefix BDPH)",
        ),
    ],
)
def test_update_is_refused(words: tuple[str, ...], code: int, says: str, both: Both) -> None:
    before = both.state
    for flag in ("--yes", "--dry-run"):
        ended = both("groups", "update", *words, flag)
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert says in " ".join(ended.err.split())
    assert both.state == before


def test_name_of_another_organization_is_a_conflict(both: Both) -> None:
    with both.identity.management() as provider:
        provider.post("organizations", json={"name": "group-vv"}).raise_for_status()
    before = both.state
    ended = both("groups", "update", "VSUV", "--prefix", "VV", "--yes")
    assert ended.code == 7, ended.err
    assert "An organization with this name already exists.; nothing was written" in ended.err or (
        "An organization with this name already exists; nothing was written." in ended.err
    )
    assert both.state == before
    assert both.last_run()["outcome"] == "rolled back"
    assert both.kept_files == []


def test_group_without_organization_changes_in_the_database_only(both: Both) -> None:
    both.accounts.execute("UPDATE aspen.groups SET auth0_org_id = 'org_gone' WHERE id = 3")
    done = both.ok("groups", "update", "3", "--name", "Valley Virology")
    assert {row["side"] for row in done.json} == {"database"}
    assert "has no organization org_gone" in done.err


def test_update_without_credentials_says_what_is_left(no_provider: Both) -> None:
    both = no_provider
    done = both.ok("groups", "update", "3", "--name", "Valley Virology", "--prefix", "VV")
    assert (
        "Left to do at the identity provider: change the display name to 'Valley Virology' and the "
        f"name to 'group-vv' of organization {VSUV}." in " ".join(done.err.split())
    )
    both.ok("groups", "undo", both.last_run()["run"])
    assert shown(both, "3")["name"] == NAME


# archive


def test_archived_group_keeps_its_data_and_gets_its_members_back(
    both: Both, add_sample: AddSample
) -> None:
    add_sample(submitting_group_id=2)
    both.invite(BDPH, "new@example.org")
    with both.identity.management() as provider:  # a member whom the database does not know
        members = {"members": ["auth0|viewer"]}
        provider.post(f"organizations/{BDPH}/members", json=members).raise_for_status()
    samples = both.accounts.rows("SELECT * FROM aspen.samples ORDER BY id")
    tables = both.accounts.tables
    planned = both("groups", "archive", "BDPH", "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert both.members(BDPH)

    done = both.ok("groups", "archive", "BDPH")
    assert [(row["side"], row["kind"], row["item"].partition(" ")[0]) for row in done.json] == [
        ("database", "role", "g2admin@example.org"),
        ("database", "role", "g2member@example.org"),
        ("database", "role", "multi@example.org"),
        ("identity provider", "role", "g2admin@example.org"),
        ("identity provider", "role", "g2member@example.org"),
        ("identity provider", "role", "multi@example.org"),
        ("identity provider", "membership", "g2admin@example.org"),
        ("identity provider", "membership", "g2member@example.org"),
        ("identity provider", "membership", "multi@example.org"),
        ("identity provider", "membership", "viewer@example.org"),
        ("identity provider", "invitation", "new@example.org"),
    ]
    assert {row["outcome"] for row in done.json} == {"deleted"}
    assert (both.members(BDPH), both.invited(BDPH)) == ({}, [])
    assert both.organization(BDPH) is not None
    assert both.accounts.roles("multi@example.org") == {"RCPHL": "member"}
    assert shown(both, "BDPH")["members"] == []
    assert both.accounts.rows("SELECT * FROM aspen.samples ORDER BY id") == samples
    again = both.ok("groups", "archive", "BDPH")
    assert "Nothing to change: the group has no members and no invitations." in again.err

    undone = both.ok("groups", "undo", both.last_run()["run"])
    assert "Cannot be restored: invitation new@example.org to BDPH" in undone.err
    assert both.accounts.tables == tables
    assert both.members(BDPH) == {
        "g2admin": ["admin"],
        "g2member": ["member"],
        "multi": ["admin"],
        "viewer": [],
    }
    assert both.invited(BDPH) == []


def test_members_who_are_gone_are_not_restored(both: Both) -> None:
    both.ok("groups", "archive", "BDPH")
    run = both.last_run()["run"]
    both.ok("users", "delete", "g2member@example.org")
    with both.identity.management() as provider:
        provider.delete("users/auth0|multi").raise_for_status()
    ended = both("groups", "undo", run, "--yes")
    assert ended.code == 7, ended.err
    assert ended.err.count("no longer exists") == 3
    assert both.members(BDPH) == {"g2admin": ["admin"], "g2member": ["member"]}
    assert both.accounts.roles("g2admin@example.org") == {"BDPH": "admin"}
    assert both.accounts.roles("multi@example.org") == {"RCPHL": "member", "BDPH": "admin"}


def test_archiving_is_refused_without_credentials(no_provider: Both) -> None:
    both = no_provider
    before = both.state
    ended = both("groups", "archive", "BDPH", "--yes")
    assert ended.code == 4, ended.err
    assert both.state == before
    done = both.ok("groups", "archive", "BDPH", "--database-only")
    assert f"remove all members and invitations of organization {BDPH}" in done.err
    assert set(both.members(BDPH)) == {"g2admin", "g2member", "multi"}
    both.ok("groups", "undo", both.last_run()["run"])
    assert both.state == before


def test_large_group_is_archived_and_restored(both: Both) -> None:
    people = [f"auth0|many{number:03}" for number in range(61)]
    with both.identity.management() as provider:
        for account in people:
            body = {
                "user_id": account.removeprefix("auth0|"),
                "email": f"{account.removeprefix('auth0|')}@example.org",
                "password": "p",
                "connection": "Username-Password-Authentication",
            }
            provider.post("users", json=body).raise_for_status()
        members = {"members": people}
        provider.post(f"organizations/{VSUV}/members", json=members).raise_for_status()
    before = both.state
    both.ok("groups", "archive", "VSUV")
    assert both.members(VSUV) == {}
    both.ok("groups", "undo", both.last_run()["run"])
    assert both.state == before


# delete


def test_group_with_anything_in_it_is_not_deleted(both: Both) -> None:
    both.accounts.execute(
        "WITH run AS (INSERT INTO aspen.workflows"
        " (workflow_type, workflow_status, software_versions)"
        " VALUES ('PHYLO_RUN', 'COMPLETED', '{}') RETURNING id),"
        " tree AS (INSERT INTO aspen.entities (entity_type, group_id) VALUES ('PHYLO_TREE', 1))"
        " INSERT INTO aspen.phylo_runs"
        " (workflow_id, group_id, tree_type, pathogen_id, contextual_repository_id)"
        " SELECT id, 1, 'OVERVIEW', 1, 1 FROM run"
    )
    before = both.state
    for flag in ("--yes", "--dry-run"):
        ended = both("groups", "delete", "RCPHL", flag)
        assert (ended.code, ended.out) == (7, ""), ended.err
        for words in (
            "samples: 60",
            "phylo runs: 1",
            "phylo trees: 1",
            "roles of members: 5",
            "roles of other groups in this one: 1",
            "members at the identity provider: 5",
        ):
            assert words in ended.err
        assert "aspencli groups archive 1" in ended.err
    assert both.state == before
    ended = both("groups", "delete", "BDPH", "--yes")
    assert "roles of this group in others: 1" in ended.err


def test_members_at_the_provider_alone_block_the_deletion(both: Both) -> None:
    place = lake(both)
    with both.identity.management() as provider:
        members = {"members": ["auth0|viewer"]}
        provider.post(f"organizations/{place}/members", json=members).raise_for_status()
    ended = both("groups", "delete", "LAKE", "--yes")
    assert ended.code == 7, ended.err
    assert "members at the identity provider: 1" in ended.err


def test_empty_group_is_deleted_with_its_organization(both: Both) -> None:
    before = both.state
    place = lake(both)
    both.invite(place, "new@example.org")
    done = both.ok("groups", "delete", "Lake County")
    assert [(row["side"], row["kind"], row["outcome"]) for row in done.json] == [
        ("database", "group", "deleted"),
        ("identity provider", "organization", "deleted"),
    ]
    assert "Invitations that are deleted with it: 1" in done.err
    assert both.state == before
    assert both.kept_files == ["deleted"]
    run = both.last_run()
    assert (run["command"], run["outcome"]) == ("groups delete", "written")
    gone = both("groups", "delete", "LAKE", "--yes")
    assert (gone.code, "No such group: 'LAKE'" in gone.err) == (6, True)


def test_group_is_deleted_without_credentials_and_restored(no_provider: Both) -> None:
    both = no_provider
    place = lake(both)
    before = both.state
    done = both.ok("groups", "delete", "LAKE")
    assert f"Left to do at the identity provider: delete organization {place}." in done.err
    assert both.organization(place) is not None
    both.ok("groups", "undo", both.last_run()["run"])
    assert both.state == before


def test_organization_left_over_is_deleted_by_its_id(both: Both) -> None:
    place = lake(both)
    both.accounts.execute("DELETE FROM aspen.groups WHERE prefix = 'LAKE'")
    done = both.ok("groups", "delete", place)
    assert [row["kind"] for row in done.json] == ["organization"]
    assert both.organization(place) is None
    again = both("groups", "delete", place, "--yes")
    assert again.code == 6, again.err


def test_organization_in_use_is_not_deleted_by_its_id(both: Both) -> None:
    place = lake(both)
    ended = both("groups", "delete", place, "--yes")
    assert ended.code == 7, ended.err
    assert f"Organization {place} belongs to group Lake County now" in ended.err
    both.accounts.execute("UPDATE aspen.groups SET auth0_org_id = 'org_else' WHERE id = 3")
    ended = both("groups", "delete", VSUV, "--yes")
    assert ended.code == 7, ended.err
    assert f"Organization {VSUV} still has 2 members" in ended.err


def test_group_commands_do_not_work_through_the_api(both: Both) -> None:
    for words in (("archive", "3"), ("delete", "3")):
        ended = both("groups", *words, "--via", "api", "--yes")
        assert (ended.code, "The API cannot" in ended.err) == (2, True), ended.err


def test_large_group_is_archived_and_restored_under_a_rate_limit(
    identity_lab: IdentityLab, tmp_path: Path
) -> None:
    made, place = population(160, 2, 0, seed=4), organization(0)
    for key in made.database.people:
        if key.startswith("auth0|"):
            for side in (made.provider, made.database):
                side.roles.setdefault((place, key), {"viewer"})
    made.invitations += [(place, f"guest{number}@example.org", 1000.0) for number in range(30)]
    with running_identity(tmp_path / "limited", "--burst", "10", "--rate", "80") as identity:
        lab = identity_lab
        lab.site = Site(identity, lab.site.database)
        lab.fill(made)
        before = lab.site.provider_side, lab.site.database_side
        began = time.monotonic()
        ended = lab("groups", "archive", "Laboratory 0", "--yes", "-o", "json")
        assert ended.code == 0, ended.err
        assert {row["outcome"] for row in lab.rows(ended)} == {"deleted"}
        for side in (lab.site.provider_side, lab.site.database_side):
            assert not [one for one in side.roles if one[0] == place]
        assert time.monotonic() - began < 60
        (run, *_) = lab("history", "list", "-o", "json").json
        undone = lab("groups", "undo", run["run"], "--yes", "-o", "json")
        assert undone.code == 0, undone.err
        assert (lab.site.provider_side, lab.site.database_side) == before
        assert "Cannot be restored: invitation guest" in undone.err
