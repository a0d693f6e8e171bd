"""``aspencli users import`` on a real database: what it writes, and what it refuses."""

from __future__ import annotations

import re

import openpyxl
import pytest

from aspen.database.bulk.columns import GROUP_COLUMNS, USER_COLUMNS
from aspen.database.models import Base, Group, User
from aspencli.cli.commands.users import LIST_COLUMNS
from aspencli.users.bulk import USER_CHANGES
from tests.cli.commands.accounts_lab import ADA, MIXED, NEW_USER, Accounts, H, table

# Creates and updates


def test_imported_user_has_same_fields_as_from_users_create(accounts: Accounts) -> None:
    ended = accounts.users(H + ADA, "--yes", "--output", "json")
    assert ended.code == 0, ended.err
    (result,) = ended.json
    counts = {key: result[key] for key in ("rows", "created", "changed", "deleted", "already")}
    assert counts == {"rows": 1, "created": 1, "changed": 0, "deleted": 0, "already": 0}
    assert accounts.user("ada@lab.example.org") == ("Ada", "auth0|ada", True, "AdaG")
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin"}
    ((split, analytics, tos, policy, created),) = accounts.rows(
        "SELECT split_id, analytics_id, agreed_to_tos, acknowledged_policy_version, created_at "
        "FROM aspen.users WHERE email = 'ada@lab.example.org'"
    )
    assert re.fullmatch("[a-z0-9]{20}", split)
    assert re.fullmatch("[a-z0-9]{20}", analytics)
    assert split != analytics
    assert (tos, policy) == (False, None)
    assert created is not None


def test_imported_users_have_unique_generated_identifiers(accounts: Accounts) -> None:
    lines = (f"u{n}@lab.example.org,U,auth0|u{n},,,,\n" for n in range(500))
    assert accounts.users(H + "".join(lines)).code == 0
    ((ids, letters),) = accounts.rows(
        "SELECT count(DISTINCT analytics_id) + count(DISTINCT split_id), "
        "count(DISTINCT substr(analytics_id, 7, 1)) FROM aspen.users WHERE name = 'U'"
    )
    assert (ids, letters) == (1000, 36)


def test_import_creates_and_updates_users_in_one_file(accounts: Accounts) -> None:
    before = accounts.tables
    ended = accounts.users(MIXED, "--yes", "--output", "json")
    assert ended.code == 0, ended.err
    assert "8 rows for local: 2 users to create, 3 users to update, 1 row unchanged." in ended.err
    assert "2 users created, 3 users updated." in ended.err
    assert accounts.user("bob@lab.example.org") == ("Bob", "auth0|bob", False, None)
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin", "BDPH": "viewer"}
    assert accounts.user("member@example.org") == ("Morgan M.", "auth0|member", False, "M1")
    assert accounts.roles("member@example.org") == {"RCPHL": "member"}
    assert accounts.roles("multi@example.org") == {"BDPH": "viewer"}
    assert accounts.user("nogroup@example.org") == ("Noor Nogroup", "auth0|nogroup", True, None)
    assert accounts.roles("nogroup@example.org") == {"VSUV": "member"}
    untouched = {row[2] for row in before["users"]} - {"member@example.org", "nogroup@example.org"}
    for row in before["users"]:
        assert row[2] not in untouched or row in accounts.tables["users"]


def test_second_run_changes_nothing(accounts: Accounts) -> None:
    assert accounts.users(MIXED).code == 0
    once = accounts.tables
    ended = accounts.users(MIXED)
    assert ended.code == 0
    assert "Nothing to change." in ended.err
    assert accounts.tables == once
    assert len(accounts.undo_files) == 1


def test_clear_word_clears_values_and_blank_cells_keep_them(accounts: Accounts) -> None:
    assert accounts.users(f"{H}member@example.org,,,,G-1,,\n").code == 0
    file = "email,gisaid_submitter_id,name\nmember@example.org,none,\nviewer@example.org,\\N,\n"
    assert accounts.users(file, "--yes", "--clear-word", "none").code == 0
    assert accounts.user("member@example.org") == ("Morgan Member", "auth0|member", False, None)
    assert accounts.user("viewer@example.org") == ("Vic Viewer", "auth0|viewer", False, None)


def test_lines_of_one_user_are_merged(accounts: Accounts) -> None:
    file = (
        f"{H}new@lab.example.org,,,,,1,member\n"
        "NEW@lab.example.org,New,,yes,,2,viewer\n"
        "new@lab.example.org,New,auth0|new,,,,\n"
    )
    ended = accounts.users(file, "--yes", "--output", "json")
    assert ended.code == 0, ended.err
    assert accounts.user("new@lab.example.org") == ("New", "auth0|new", True, None)
    assert accounts.roles("new@lab.example.org") == {"RCPHL": "member", "BDPH": "viewer"}


# The output of users list


@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_output_of_users_list_imports_without_changes(form: str, accounts: Accounts) -> None:
    accounts.execute(NEW_USER.format(email="formula@example.org").replace("'A'", "'=Ada, \"B\"'"))
    listed = accounts.cli("users", "list", "--all", "-o", form)
    assert listed.code == 0, listed.err
    before = accounts.tables
    path = accounts.write(listed.out, f"users.{form}")
    ended = accounts.cli("users", "import", str(path), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    (result,) = ended.json
    assert (result["rows"], result["already"]) == (len(before["users"]),) * 2
    assert "read as a list of users; not imported: id, groups" in ended.err
    assert accounts.tables == before


def test_edited_output_of_users_list_imports_edits(accounts: Accounts) -> None:
    listed = accounts.cli("users", "list", "--all", "-o", "csv").out
    ended = accounts.users(listed.replace("Morgan Member", "Morgan M."), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["changed"], ended.json[0]["created"]) == (1, 0)
    assert accounts.user("member@example.org") == ("Morgan M.", "auth0|member", False, None)
    assert accounts.roles("member@example.org") == {"RCPHL": "member"}


def test_import_knows_all_columns_of_users_list() -> None:
    assert USER_CHANGES.listing == tuple(column.key for column in LIST_COLUMNS)


def test_plan_marks_removed_roles_and_cleared_values(accounts: Accounts) -> None:
    assert accounts.users(f"{H}member@example.org,,,,G-1,,\n").code == 0
    file = f"{H}member@example.org,,,,\\N,1,\\N\n"
    shown = accounts.users(file, "--dry-run", "-o", "table")
    assert re.search(r"role +member +\(removed\) +update", shown.out), shown.out
    assert re.search(r"gisaid_submitter_id +G-1 +\(cleared\) +update", shown.out), shown.out
    plan = accounts.users(file, "--dry-run", "-o", "json").json
    assert {row["column"]: row["after"] for row in plan} == {
        "gisaid_submitter_id": None,
        "role": None,
    }
    written = accounts.users(file, "--yes")
    assert "(cleared)" in written.err
    assert "(removed)" in written.err


# Letter case of e-mail addresses


def test_email_matches_in_any_letter_case_and_keeps_spelling(accounts: Accounts) -> None:
    ended = accounts.users(f"{H}MEMBER@Example.ORG,Renamed,,,,,\n")
    assert ended.code == 0, ended.err
    assert accounts.user("member@example.org") == ("Renamed", "auth0|member", False, None)
    assert len(accounts.rows("SELECT FROM aspen.users")) == 11


def test_exact_email_is_preferred_and_ambiguous_case_is_refused(accounts: Accounts) -> None:
    accounts.execute(NEW_USER.format(email="Member@example.org"))
    assert (
        accounts.users(f"{H}Member@example.org,Two,,,,,\nmember@example.org,One,,,,,\n").code == 0
    )
    assert accounts.user("Member@example.org") == ("Two", "auth0|2", False, None)
    assert accounts.user("member@example.org") == ("One", "auth0|member", False, None)
    ended = accounts.users(f"{H}member@EXAMPLE.org,Three,,,,1,admin\n")
    assert ended.code == 2
    assert 'line 2: email: "member@EXAMPLE.org" matches several users: 12, 3' in ended.err


def test_new_email_column_changes_letter_case(accounts: Accounts) -> None:
    file = (
        "email,new_email\n"
        "member@example.org,Morgan@Example.org\n"
        "viewer@example.org,Viewer@example.org\n"
    )
    assert accounts.users(file).code == 0
    emails = {row[0] for row in accounts.rows("SELECT email FROM aspen.users")}
    assert {"Morgan@Example.org", "Viewer@example.org"} <= emails


# Unique values


def test_swap_of_emails_and_auth0_ids_is_written_and_undone(accounts: Accounts) -> None:
    file = (
        "email,new_email,auth0_user_id\n"
        "member@example.org,viewer@example.org,auth0|viewer\n"
        "viewer@example.org,member@example.org,auth0|member\n"
    )
    ended = accounts.users(file)
    assert ended.code == 0, ended.err
    assert accounts.rows("SELECT id, email, auth0_user_id FROM aspen.users WHERE id IN (3, 4)") == [
        (3, "viewer@example.org", "auth0|viewer"),
        (4, "member@example.org", "auth0|member"),
    ]
    once = accounts.tables
    again = accounts.users(file)
    assert again.code == 0, again.err
    assert "already wrote this file" in again.err
    assert accounts.tables == once
    assert accounts.undo("users").code == 0
    assert accounts.rows("SELECT id, email FROM aspen.users WHERE id IN (3, 4)") == [
        (3, "member@example.org"),
        (4, "viewer@example.org"),
    ]


def test_new_user_can_take_auth0_id_freed_in_same_file(accounts: Accounts) -> None:
    file = (
        "email,new_email,name,auth0_user_id\n"
        "viewer@example.org,old@example.org,,auth0|old\n"
        "new@example.org,,New,auth0|viewer\n"
    )
    ended = accounts.users(file)
    assert ended.code == 0, ended.err
    assert accounts.user("new@example.org") == ("New", "auth0|viewer", False, None)
    assert accounts.user("old@example.org") == ("Vic Viewer", "auth0|old", False, None)
    once = accounts.tables
    again = accounts.users(file)
    assert (again.code, accounts.tables) == (0, once), again.err
    assert "Nothing to change." in again.err


def test_rerun_finds_renamed_user_only_without_other_changes(accounts: Accounts) -> None:
    file = "email,new_email,name\nviewer@example.org,v@example.org,V\n"
    assert accounts.users(file).code == 0
    assert accounts.users(file, "--yes", "--encoding", "utf-8").code == 0
    ended = accounts.users(file.replace(",V\n", ",W\n"))
    assert ended.code == 2
    assert 'line 2: email: there is no user "viewer@example.org"' in ended.err
    role = "email,new_email,group,role\nviewer@example.org,v@example.org,1,admin\n"
    ended = accounts.users(role)
    assert ended.code == 2
    assert 'line 2: email: there is no user "viewer@example.org"' in ended.err


KEPT = 'is already used by user "sysadmin@example.org"'
BAD: list[tuple[str, str]] = [
    ("x@y.org,,auth0|x,,,,", "line 2: name: is required for a new user"),
    (
        "x@y.org,X,,,,,",
        "line 2: auth0_user_id: is required for a new user: create the user at Auth0",
    ),
    (",X,auth0|x,,,,", "line 2: email: is blank"),
    ("x.y.org,X,auth0|x,,,,", "line 2: email: is not a valid e-mail address"),
    (f"{'x' * 250}@y.org,X,auth0|x,,,,", "is not a valid e-mail address"),
    ("mailto:b@lab.example.org,B,auth0|x,,,,", "line 2: email: starts with 'mailto:'"),
    (
        "x@y\u200b.org,Z,auth0|x,,,,",
        "line 2: email: contains U+200B ZERO WIDTH SPACE at position 4",
    ),
    ("\u202aq@y.org\u202c,Q,auth0|x,,,,", "line 2: email: contains U+202A LEFT-TO-RIGHT EMBEDDING"),
    ("#REF!,Q,auth0|x,,,,", "line 2: email: contains the error #REF!"),
    ("q@y.org,#NAME?,auth0|x,,,,", "line 2: name: contains the error #NAME?"),
    ("q@y.org,N/A,auth0|x,,,,", 'line 2: name: is "N/A", which usually means a missing'),
    ("x@y.org,X,auth0| x,,,,", "line 2: auth0_user_id: contains white space"),
    ("x@y.org,X,auth0|x,maybe,,,", 'line 2: system_admin: "maybe" is not true or false'),
    ("member@example.org,\\N,,,,,", "line 2: name: cannot be cleared: every user needs one"),
    ("member@example.org,,\\N,,,,", "line 2: auth0_user_id: cannot be cleared"),
    ("member@example.org,,,\\N,,,", "line 2: system_admin: cannot be cleared"),
    ('member@example.org,"a\nb",,,,,', "line 2: name: contains a line feed (U+000A) at position 2"),
    ("member@example.org,a\u202eb,,,,,", "line 2: name: contains U+202E RIGHT-TO-LEFT OVERRIDE"),
    (f"member@example.org,{'x' * 1001},,,,,", "is too long: 1001 characters (maximum 1000)"),
    ("member@example.org,,,,,1,boss", 'line 2: role: there is no role "boss"'),
    ("member@example.org,,,,,RCPHLL,admin", 'there is no group "RCPHLL"; did you mean "RCPHL"?'),
    ("member@example.org,,,,,99,admin", 'line 2: group: there is no group "99"'),
    ("member@example.org,,,,,,admin", "line 2: role: requires a group"),
    (
        "member@example.org,,,,,2,",
        'line 2: role: is blank, but "member@example.org" has no role in that group',
    ),
    ("x@y.org,X,auth0|x,,,1,", 'line 2: role: is blank, but "x@y.org" has no role in that group'),
    ("member@example.org,,auth0|sysadmin,,,,", f'line 2: auth0_user_id: "auth0|sysadmin" {KEPT}'),
    ("x@y.org,X,auth0|sysadmin,,,,", f'line 2: auth0_user_id: "auth0|sysadmin" {KEPT}'),
    ("member@example.org,,,", "line 2: has too few cells: 4 (the header has 7)"),
    (
        "member@example.org,,,,,1,admin\nMember@example.org,,,,,RCPHL,viewer",
        "line 3: email: duplicate of line 2, with the same group",
    ),
    (
        "x@y.org,X,auth0|x,,,,\nX@y.org,,,,,,",
        "line 3: email: duplicate of line 2",
    ),
    (
        "x@y.org,X,auth0|x,,,1,admin\nX@y.org,Y,,,,2,admin",
        'line 3: name: "Y" conflicts with line 2, which has "X"',
    ),
    (
        "x@y.org,X,auth0|x,,,,\ny@y.org,Y,auth0|x,,,,",
        "line 3: auth0_user_id: duplicate of line 2",
    ),
]


@pytest.mark.parametrize(("lines", "says"), BAD, ids=range(len(BAD)))
def test_invalid_line_is_named_and_nothing_is_written(
    lines: str, says: str, accounts: Accounts
) -> None:
    before = accounts.tables
    ended = accounts.users(f"{H}{lines}\n")
    assert (ended.code, ended.out) == (2, ""), ended.err
    assert says in ended.err
    assert "1 problem; nothing was written" in ended.err
    assert accounts.tables == before


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (
            "email,new_email\nmember@example.org,SYSADMIN@example.org\n",
            f'line 2: email: "SYSADMIN@example.org" {KEPT}',
        ),
        (
            "email,new_email,name,auth0_user_id\nmember@example.org,x@y.org,,\nX@y.org,,X,auth0|x\n",
            "line 3: email: duplicate of line 2",
        ),
        ("email,new_email\nx@y.org,z@y.org\n", 'line 2: email: there is no user "x@y.org"'),
        ("email,role\nmember@example.org,admin\n", "has the column role but no column group"),
        ("email,name,group\nmember@example.org,M,1\n", "has the column group but no column role"),
        ("email\nmember@example.org\n", "has no column to update"),
        ("name\nMember\n", "has no column that identifies the user of each row"),
        ("email,emails,name\na@b.org,,\n", "ignored columns: emails"),
    ],
    ids=range(8),
)
def test_invalid_file_is_refused(file: str, says: str, accounts: Accounts) -> None:
    before = accounts.tables
    ended = accounts.users(file)
    assert ended.code == 2, ended.err
    assert says in ended.err
    assert accounts.tables == before


def test_user_with_several_roles_in_group_is_refused(accounts: Accounts) -> None:
    accounts.execute(
        "INSERT INTO aspen.user_roles (user_id, group_id, role_id) VALUES (3, 1, 1), (3, 1, 2) "
        "ON CONFLICT DO NOTHING"
    )
    ended = accounts.users(f"{H}member@example.org,,,,,1,viewer\n")
    assert ended.code == 2
    assert 'line 2: role: "member@example.org" has several roles in that group' in ended.err


def test_number_matching_group_id_and_prefix_is_ambiguous(accounts: Accounts) -> None:
    accounts.execute("UPDATE aspen.groups SET prefix = '1' WHERE id = 2")
    ended = accounts.users(f"{H}member@example.org,,,,,1,viewer\n")
    assert ended.code == 2
    assert 'line 2: group: "1" matches several groups: 1, 2' in ended.err
    accounts.execute("UPDATE aspen.groups SET prefix = '2' WHERE id = 2")
    assert accounts.users(f"{H}member@example.org,,,,,2,viewer\n").code == 0


def test_all_problems_are_named_at_once(accounts: Accounts) -> None:
    ended = accounts.users(
        f"{H}x,X,auth0|x,,,,\ny@y.org,,,,,77,boss\nz@z.org,Z,auth0|z,,,1,admin\n"
    )
    assert ended.code == 2
    for says in (
        "line 2: email:",
        "line 3: name: is required for a new user",
        "line 3: auth0_user_id: is required for a new user",
        'line 3: group: there is no group "77"',
        'line 3: role: there is no role "boss"',
        "5 problems; nothing was written",
    ):
        assert says in ended.err, says


# Other keys


def test_key_option_finds_users_by_auth0_id(accounts: Accounts) -> None:
    file = "auth0_user_id,email,name\nauth0|member,morgan@lab.example.org,\nauth0|n,n@n.org,N\n"
    ended = accounts.users(file, "--yes", "--key", "auth0_user_id")
    assert ended.code == 0, ended.err
    member = ("Morgan Member", "auth0|member", False, None)
    assert accounts.user("morgan@lab.example.org") == member
    assert accounts.user("n@n.org") == ("N", "auth0|n", False, None)
    ended = accounts.users("auth0_user_id,name\nauth0|o,O\n", "--yes", "--key", "auth0_user_id")
    assert ended.code == 2
    assert "line 2: email: is required for a new user" in ended.err


# Plan, confirmation, report, and rejects


def test_dry_run_shows_plan_and_writes_nothing(accounts: Accounts) -> None:
    before = accounts.tables
    ended = accounts.users(MIXED, "--dry-run", "--output", "json")
    assert ended.code == 0
    assert accounts.tables == before
    plan = ended.json
    keys = ["line", "key", "group", "column", "before", "after", "action", "outcome"]
    assert list(plan[0]) == keys
    ada = [(row["column"], row["after"], row["action"]) for row in plan if row["line"] == 2]
    assert ada == [
        ("email", "ada@lab.example.org", "create"),
        ("name", "Ada", "create"),
        ("auth0_user_id", "auth0|ada", "create"),
        ("system_admin", "true", "create"),
        ("gisaid_submitter_id", "AdaG", "create"),
        ("role", "admin", "create"),
    ]
    (role,) = [row for row in plan if row["line"] == 6]
    assert (role["before"], role["after"], role["action"]) == ("member", None, "update")
    assert role["group"] == "Redwood County Public Health Laboratory"
    assert {row["action"] for row in plan if row["line"] == 9} == {"unchanged"}


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--no-input"], 3, "--yes"),
        (["--env", "prod", "--yes"], 3, "--confirm prod"),
        (["--env", "prod", "--confirm", "prod"], 0, "--env prod users undo"),
    ],
)
def test_import_off_terminal_requires_yes_or_confirm(
    options: list[str], code: int, says: str, accounts: Accounts
) -> None:
    before = accounts.tables
    ended = accounts.users(H + ADA + "member@example.org,M,,,,,\n", *options)
    assert ended.code == code
    assert says in ended.err
    assert (accounts.tables == before) == bool(code)
    if code:
        assert "create 1 user and update 1 user" in ended.err or "--confirm" in ended.err


def test_report_lists_outcomes_and_rejects_lists_invalid_rows(accounts: Accounts) -> None:
    report, rejects = accounts.folder / "report.csv", accounts.folder / "rejects.csv"
    options = ("--yes", "--report", str(report), "--rejects", str(rejects))
    bad = MIXED + "x@y.org,X,,,,,\n"
    assert accounts.users(bad, *options).code == 2
    (row,) = table(rejects)
    assert (row["line"], row["email"]) == ("10", "x@y.org")
    assert row["reason"].startswith("auth0_user_id: is required for a new user")
    fixed = rejects.read_text(encoding="utf-8-sig").replace(",X,,", ",X,auth0|x,")
    assert accounts.users(fixed).code == 0
    assert accounts.user("x@y.org") == ("X", "auth0|x", False, None)
    assert accounts.users(MIXED, *options).code == 0
    told = table(report)
    assert list(told[0]) == [
        *("line", "key", "group", "column", "before", "after", "outcome", "reason")
    ]
    outcomes = {(row["line"], row["column"]): row["outcome"] for row in told}
    assert outcomes["2", "name"] == "created"
    assert outcomes["4", "role"] == "created"
    assert outcomes["9", "role"] == "unchanged"


def test_map_option_reads_workbook_with_other_headers(accounts: Accounts) -> None:
    book = openpyxl.Workbook()
    sheet = book.create_sheet("People")
    sheet.append(["Mail", "Who", "auth0_user_id", "Lab", "role"])
    sheet.append(["ada@lab.example.org", "Ada", "auth0|ada", 1, "admin"])
    path = accounts.folder / "users.xlsx"
    book.save(path)
    words = ["users", "import", str(path), "--sheet", "People", "--yes"]
    maps = [word for pair in ("Mail=email", "Who=name", "Lab=group") for word in ("--map", pair)]
    ended = accounts.cli(*words, *maps)
    assert ended.code == 0, ended.err
    assert accounts.roles("ada@lab.example.org") == {"RCPHL": "admin"}


def test_delimiter_and_encoding_options_are_applied(accounts: Accounts) -> None:
    path = accounts.folder / "latin.csv"
    path.write_bytes("email;name\nmember@example.org;Zoë\n".encode("cp1252"))
    ended = accounts.cli(
        *("users", "import", str(path), "--encoding", "cp1252", "--delimiter", "semicolon", "--yes")
    )
    assert ended.code == 0, ended.err
    assert accounts.user("member@example.org") == ("Zoë", "auth0|member", False, None)


# Columns of the tables


@pytest.mark.parametrize(("model", "columns"), [(User, USER_COLUMNS), (Group, GROUP_COLUMNS)])
def test_undo_covers_every_table_column(model: type[Base], columns: dict[str, object]) -> None:
    own = {
        column.stored  # type: ignore[attr-defined]
        for column in columns.values()
        if not column.side  # type: ignore[attr-defined]
    }
    assert own | {"id"} == set(model.__table__.columns.keys())
