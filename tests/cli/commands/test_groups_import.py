"""``aspencli groups import`` and ``undo``, on a real database."""

from __future__ import annotations

import pytest

from tests.cli.commands.accounts_lab import Accounts, table

H = "prefix,name,address,division,location,default_tree_location,submitting_lab,auth0_org_id\n"
NEW = 'NEWLAB,New Laboratory,"1 Street, Town",California,Town,{place},New Lab Inc.,org_new\n'
GROUPS = (
    "SELECT prefix, name, address, division, location, submitting_lab, auth0_org_id, "
    "tree_parameters FROM aspen.groups WHERE prefix = :prefix"
)


@pytest.fixture
def place(accounts: Accounts) -> str:
    """Return a location of the seeded database, as users write it."""
    ((text,),) = accounts.rows(
        "SELECT concat_ws(' / ', region, country, division, location) FROM aspen.locations "
        "WHERE location IS NOT NULL ORDER BY id LIMIT 1"
    )
    return str(text)


@pytest.fixture
def mixed(place: str) -> str:
    return (
        H
        + NEW.format(place=place)
        + "rcphl,,\\N,,,,Redwood Lab,\n"
        + "BDPH,Bayside,,,,1,,\n"
        + "VSUV,Valley State University Virology,,,,,,\n"
    )


def test_import_creates_and_updates_groups_in_one_file(
    accounts: Accounts, mixed: str, place: str
) -> None:
    before = accounts.tables
    ended = accounts.groups(mixed, "--yes", "--output", "json")
    assert ended.code == 0, ended.err
    (result,) = ended.json
    assert [result[key] for key in ("rows", "created", "changed", "already")] == [4, 1, 2, 1]
    (new,) = accounts.rows(GROUPS, prefix="NEWLAB")
    assert new == (
        *("NEWLAB", "New Laboratory", "1 Street, Town", "California", "Town", "New Lab Inc."),
        *("org_new", {}),
    )
    ((about,),) = accounts.rows(
        "SELECT concat_ws(' / ', l.region, l.country, l.division, l.location) FROM aspen.groups g "
        "JOIN aspen.locations l ON l.id = g.default_tree_location_id WHERE g.prefix = 'NEWLAB'"
    )
    assert about == place
    (redwood,) = accounts.rows(GROUPS, prefix="RCPHL")
    assert (redwood[2], redwood[5]) == (None, "Redwood Lab")
    assert accounts.rows(
        "SELECT name, default_tree_location_id FROM aspen.groups WHERE id = 2"
    ) == [("Bayside", 1)]
    assert [row for row in accounts.tables["groups"] if row[0] == 3] == [
        row for row in before["groups"] if row[0] == 3
    ]
    once = accounts.tables
    again = accounts.groups(mixed)
    assert (again.code, accounts.tables) == (0, once)
    assert "Nothing to change." in again.err


def test_group_import_can_be_undone_and_redone(accounts: Accounts, mixed: str) -> None:
    before = accounts.tables
    ended = accounts.groups(mixed)
    assert "aspencli --env local groups undo" in ended.err
    after = accounts.tables
    assert accounts.undo("groups").code == 0
    assert accounts.tables == before
    assert accounts.undo("groups").code == 0
    assert accounts.tables == after


def test_undo_skips_group_that_is_now_in_use(accounts: Accounts, mixed: str) -> None:
    before = accounts.tables
    assert accounts.groups(mixed).code == 0
    users = "email,group,role\nmember@example.org,NEWLAB,member\n"
    assert accounts.users(users).code == 0
    report = accounts.folder / "report.csv"
    ended = accounts.undo("groups", "--yes", "--report", str(report), which=0)
    assert ended.code == 7
    assert 'name: "New Laboratory" is now in use in aspen.user_roles' in ended.err
    assert "aspencli groups show PREFIX" in ended.err
    assert accounts.tables["groups"][:3] == before["groups"]
    assert len(accounts.tables["groups"]) == 4
    outcomes = {row["key"]: row["outcome"] for row in table(report)}
    assert outcomes["New Laboratory"] == "skipped"
    assert accounts.undo("users", which=1).code == 0
    assert accounts.undo("groups", which=0).code == 0
    assert accounts.tables == before


def test_import_swaps_names_prefixes_and_organizations(accounts: Accounts) -> None:
    ((one,), (two,)) = accounts.rows(
        "SELECT auth0_org_id FROM aspen.groups WHERE id IN (1, 2) ORDER BY id"
    )
    file = (
        "name,new_name,prefix,auth0_org_id\n"
        f"Redwood County Public Health Laboratory,Bayside Department of Public Health,BDPH,{two}\n"
        f"Bayside Department of Public Health,Redwood County Public Health Laboratory,RCPHL,{one}\n"
    )
    query = "SELECT name, prefix, auth0_org_id FROM aspen.groups ORDER BY id"
    before = accounts.rows(query)
    ended = accounts.groups(file, "--yes", "--key", "name")
    assert ended.code == 0, ended.err
    assert accounts.rows(query) == [before[1], before[0], before[2]]
    assert accounts.undo("groups").code == 0
    assert (
        accounts.rows("SELECT name, prefix, auth0_org_id FROM aspen.groups ORDER BY id") == before
    )


def test_import_by_name_changes_prefix_and_can_be_repeated(accounts: Accounts) -> None:
    file = "name,prefix\nredwood county public health laboratory,RCX\n"
    ended = accounts.groups(file, "--yes", "--key", "name")
    assert ended.code == 0, ended.err
    (row,) = accounts.rows(GROUPS, prefix="RCX")
    assert row[1] == "Redwood County Public Health Laboratory"
    again = accounts.groups(file, "--yes", "--key", "name")
    assert "Nothing to change." in again.err
    ended = accounts.groups("prefix,new_prefix,address\nRCX,RCPHL,2 Way\n")
    assert ended.code == 0, ended.err
    again = accounts.groups("prefix,new_prefix,address\nRCX,RCPHL,2 Way\n")
    assert (again.code, "Nothing to change" in again.err) == (0, True)


HELD = 'is already used by group "Redwood County Public Health Laboratory"'
BAD: list[tuple[str, str]] = [
    (
        "NEW,New lab,,,,1,,",
        "auth0_org_id: is required for a new group: create the organization at Auth0",
    ),
    ("NEW,,,,,1,,org", "line 2: name: is required for a new group"),
    ("NEW,New lab,,,,,,org", "default_tree_location: is required for a new group"),
    ("N,New lab,,,,1,,org", "line 2: prefix: is too short: 1 characters (minimum 2)"),
    (f"{'N' * 26},New lab,,,,1,,org", "line 2: prefix: is too long: 26 characters (maximum 25)"),
    ("NEW,Ne,,,,1,,org", "line 2: name: is too short: 2 characters (minimum 3)"),
    (f"NEW,{'n' * 129},,,,1,,org", "line 2: name: is too long: 129 characters (maximum 128)"),
    ("NEW,New lab,,,,1,ab,org", "line 2: submitting_lab: is too short: 2 characters (minimum 3)"),
    (f"NEW,New lab,{'a' * 1001},,,1,,org", "line 2: address: is too long: 1001 characters"),
    ("NEW,New lab,,,,1,,org new", "line 2: auth0_org_id: contains white space"),
    ("NEW,New lab,,,,Atlantis,,org", 'default_tree_location: there is no location "Atlantis"'),
    ("NEW,New lab,,,,999999,,org", 'default_tree_location: there is no location "999999"'),
    ("BDPH,\\N,,,,,,", "line 2: name: cannot be cleared: every group needs one"),
    ("BDPH,,,,,\\N,,", "line 2: default_tree_location: cannot be cleared"),
    (
        "BDPH,redwood county public health LABORATORY,,,,,,",
        f'line 2: name: "redwood county public health LABORATORY" {HELD}',
    ),
    ("NEW,New lab,,,,1,,org\nnew,Lab new,,,,1,,org2", "prefix: duplicate of line 2"),
    ("NEW,New lab,,,,1,,org\nNEW2,New LAB,,,,1,,org2", "name: duplicate of line 2"),
]


@pytest.mark.parametrize(("lines", "says"), BAD, ids=range(len(BAD)))
def test_invalid_line_is_reported_and_nothing_is_written(
    lines: str, says: str, accounts: Accounts
) -> None:
    before = accounts.tables
    ended = accounts.groups(f"{H}{lines}\n")
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert says in ended.err
    assert "1 problem; nothing was written" in ended.err
    assert accounts.tables == before


def test_organization_of_another_group_is_refused(accounts: Accounts) -> None:
    ((org,),) = accounts.rows("SELECT auth0_org_id FROM aspen.groups WHERE id = 1")
    ended = accounts.groups(f"{H}NEW,New lab,,,,1,,{org}\n")
    assert ended.code == 2
    assert f'line 2: auth0_org_id: "{org}" {HELD}' in ended.err


def test_dry_run_and_unconfirmed_import_write_nothing(
    accounts: Accounts, mixed: str, place: str
) -> None:
    before = accounts.tables
    ended = accounts.groups(mixed, "--dry-run", "--output", "json")
    assert ended.code == 0
    plan = {(row["line"], row["column"]): row for row in ended.json}
    assert plan[2, "default_tree_location"]["after"] == place
    assert plan[2, "default_tree_location"]["action"] == "create"
    assert plan[3, "address"] == {
        "line": 3,
        "key": "rcphl",
        "column": "address",
        "before": "1 Example Way, Redwood, CA",
        "after": None,
        "action": "update",
        "outcome": "update",
    }
    ended = accounts.groups(mixed, "--no-input")
    assert ended.code == 3
    assert "create 1 group and update 2 groups" in ended.err
    assert accounts.tables == before
