"""``aspencli users undo``, on a real database."""

from __future__ import annotations

import pytest

from tests.cli.commands.accounts_lab import ADA, MIXED, NEW_USER, Accounts, H, table

_IS_ADA = "email = 'ada@lab.example.org'"
_OF_ADA = f"user_id = (SELECT id FROM aspen.users WHERE {_IS_ADA})"
_LAB = "Bayside Department of Public Health"
_ADMIN = "(SELECT id FROM aspen.roles WHERE name = 'admin')"


def test_import_is_undone_and_redone_exactly(accounts: Accounts) -> None:
    before = accounts.tables
    assert accounts.users(MIXED).code == 0
    after = accounts.tables
    ended = accounts.undo("users")
    assert ended.code == 0, ended.err
    assert "3 users updated, 2 users deleted." in ended.err
    assert accounts.tables == before
    again = accounts.undo("users", which=0)
    assert (again.code, accounts.tables) == (0, before)
    assert "Nothing to change." in again.err
    ended = accounts.undo("users", which=1)
    assert ended.code == 0, ended.err
    assert "2 users created, 3 users updated." in ended.err
    assert accounts.tables == after
    ended = accounts.undo("users", which=2)
    assert (ended.code, accounts.tables) == (0, before)


def test_undo_dry_run_names_users_by_email(accounts: Accounts) -> None:
    assert accounts.users(MIXED).code == 0
    after = accounts.tables
    ended = accounts.undo("users", "--dry-run", "--output", "json")
    assert (ended.code, accounts.tables) == (0, after)
    found = {(row["key"], row["group"], row["column"], row["action"]) for row in ended.json}
    lab = "Bayside Department of Public Health"
    assert ("ada@lab.example.org", lab, "role", "update") in found
    assert ("bob@lab.example.org", lab, "auth0_user_id", "delete") in found
    assert not {column for _key, _group, column, _action in found} & {"analytics_id", "split_id"}


def test_undo_skips_user_with_samples_entirely(accounts: Accounts) -> None:
    before = accounts.tables
    assert accounts.users(MIXED).code == 0
    after = accounts.tables
    ((ada,),) = accounts.rows("SELECT id FROM aspen.users WHERE email = 'ada@lab.example.org'")
    accounts.execute("UPDATE aspen.samples SET uploaded_by_id = :ada WHERE id = 1", ada=ada)
    report = accounts.folder / "report.csv"
    ended = accounts.undo("users", "--yes", "--report", str(report))
    assert ended.code == 7
    assert (
        'Skipped line 3: email: "ada@lab.example.org" is now in use in aspen.samples' in ended.err
    )
    assert 'line 5: id: other lines for "ada@lab.example.org" are skipped' in ended.err
    assert "2 of 7 rows skipped (listed above)" in ended.err
    assert "aspencli users show EMAIL" in ended.err
    kept = [row for row in after["users"] if row[0] == ada]
    assert accounts.tables["users"] == [*before["users"], *kept]
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin", "BDPH": "viewer"}
    told = table(report)
    assert {row["outcome"] for row in told if row["key"] == "ada@lab.example.org"} == {"skipped"}
    accounts.execute("UPDATE aspen.samples SET uploaded_by_id = 2 WHERE id = 1")
    assert accounts.undo("users", which=0).code == 0
    assert accounts.tables == before


@pytest.mark.parametrize(
    ("since", "says"),
    [
        (
            f"UPDATE aspen.users SET agreed_to_tos = true WHERE {_IS_ADA}",
            '"ada@lab.example.org" now has agreed_to_tos true, expected false',
        ),
        (
            f"UPDATE aspen.users SET acknowledged_policy_version = '2023-01-01' WHERE {_IS_ADA}",
            (
                '"ada@lab.example.org" now has acknowledged_policy_version "2023-01-01", '
                "expected nothing"
            ),
        ),
        (
            f"UPDATE aspen.user_roles SET role_id = {_ADMIN} WHERE group_id = 2 AND {_OF_ADA}",
            f'"ada@lab.example.org" in group "{_LAB}" now has role "admin", expected "viewer"',
        ),
        (
            f"INSERT INTO aspen.user_roles SELECT 1, id, 3 FROM aspen.users WHERE {_IS_ADA}",
            '"ada@lab.example.org" is now in use in aspen.user_roles',
        ),
    ],
    ids=["terms", "policy", "role", "group"],
)
def test_undo_skips_user_changed_since_entirely(since: str, says: str, accounts: Accounts) -> None:
    before = accounts.tables
    assert accounts.users(MIXED).code == 0
    accounts.execute(since)
    changed = accounts.tables
    ended = accounts.undo("users")
    assert ended.code == 7
    assert says in ended.err
    ada = [row for row in changed["users"] if row[2] == "ada@lab.example.org"]
    assert accounts.tables["users"] == [*before["users"], *ada]
    mine = ada[0][0]
    assert [row for row in accounts.tables["user_roles"] if row[1] == mine] == [
        row for row in changed["user_roles"] if row[1] == mine
    ]


def test_undo_with_force_reverts_later_changes(accounts: Accounts) -> None:
    before = accounts.tables
    assert accounts.users(MIXED).code == 0
    accounts.execute(
        "UPDATE aspen.users SET name = 'Changed', agreed_to_tos = true "
        "WHERE email IN ('ada@lab.example.org', 'member@example.org')"
    )
    changed = accounts.tables
    ended = accounts.undo("users", "--yes", "--force")
    assert ended.code == 0, ended.err
    assert "Because of --force, this also reverts" in ended.err
    assert accounts.user("member@example.org") == ("Morgan Member", "auth0|member", False, None)
    assert {row[0] for row in accounts.tables["users"]} == {row[0] for row in before["users"]}
    assert accounts.undo("users").code == 0
    assert accounts.tables == changed


def test_undo_does_not_restore_user_whose_email_is_taken(accounts: Accounts) -> None:
    assert accounts.users(MIXED).code == 0
    assert accounts.undo("users").code == 0
    accounts.execute(NEW_USER.format(email="Ada@lab.example.org"))
    ended = accounts.undo("users")
    assert ended.code == 7
    assert (
        'line 3: email: "ada@lab.example.org" is already used by user "Ada@lab.example.org"'
        in ended.err
    )
    assert 'line 5: id: other lines for "ada@lab.example.org" are skipped' in ended.err
    assert accounts.user("bob@lab.example.org") == ("Bob", "auth0|bob", False, None)


def test_undo_names_users_deleted_since(accounts: Accounts) -> None:
    assert accounts.users(f"{H}nogroup@example.org,N,,,,1,member\n").code == 0
    accounts.execute("DELETE FROM aspen.user_roles WHERE user_id = 11")
    accounts.execute("DELETE FROM aspen.users WHERE id = 11")
    ended = accounts.undo("users")
    assert ended.code == 7
    assert 'email: user "nogroup@example.org" no longer exists' in ended.err


def test_undo_by_run_id_works_only_for_same_kind(accounts: Accounts) -> None:
    before = accounts.tables
    ended = accounts.users(H + ADA, "--yes", "--output", "json")
    run = ended.json[0]["run"]
    shown = accounts.cli("history", "show", run)
    assert f"aspencli --env local users undo {run}" in shown.err
    wrong = accounts.cli("samples", "undo", run, "--yes")
    assert wrong.code == 2
    assert "undoes an update of users, not of samples" in wrong.err
    assert f"aspencli --env local users undo {run}" in wrong.err
    assert accounts.cli("users", "undo", run, "--yes").code == 0
    assert accounts.tables == before
    rows = accounts.cli("history", "--output", "json").json
    assert [row["command"] for row in rows] == ["users undo", "users import"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (('"rows": 7', '"rows": 8'), "the file has 7 rows, but was written with 8"),
        (("auth0|bob,\\N", "auth0|bob,"), "line 4: auth0_user_id: is damaged"),
        (("bob@lab.example.org,2,", "bob@lab.example.org,BDPH,"), 'group: is not a number: "BDPH"'),
    ],
    ids=["rows", "half", "group"],
)
def test_damaged_undo_file_is_refused(
    damage: tuple[str, str], says: str, accounts: Accounts
) -> None:
    assert accounts.users(MIXED).code == 0
    after = accounts.tables
    (file,) = accounts.undo_files
    text = file.read_text().replace(*damage)
    ended = accounts.cli("users", "undo", str(accounts.write(text, "damaged.csv")), "--yes")
    assert (ended.code, accounts.tables) == (2, after)
    assert says in ended.err
