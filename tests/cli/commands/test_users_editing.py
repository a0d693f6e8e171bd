"""``aspencli users update``, ``roles``, and ``delete``, on a real database and a real provider."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands.both_lab import BDPH, RCPHL, VSUV, Both, ProviderRelay, broken
from tests.cli.commands.conftest import AddSample

KEYS = ["side", "kind", "item", "field", "before", "after", "outcome"]
ROLE_KEYS = ["group_id", "group", "prefix", "role", "in_database", "at_provider"]
MANAGEMENT = ("DOMAIN", "CLIENT_ID", "CLIENT_SECRET")
EMAIL = "mo@new.example.org"


@pytest.fixture
def no_provider(both: Both, monkeypatch: pytest.MonkeyPatch) -> Both:
    """Return both sides without credentials for the provider."""
    for name in MANAGEMENT:
        monkeypatch.delenv(f"AUTH0_MANAGEMENT_{name}")
    return both


def changes(ended: object) -> list[tuple[object, ...]]:
    """Return side, field, new value, and outcome of each row of a result."""
    rows = ended.json  # type: ignore[attr-defined] # the result of a command
    assert all(list(row) == KEYS for row in rows)
    return [(row["side"], row["field"], row["after"], row["outcome"]) for row in rows]


# update


def test_update_changes_both_sides_and_undo_restores_them(both: Both) -> None:
    before = both.state
    words = ("users", "update", "multi@example.org", "--name", "Mo New", "--email", EMAIL.upper())
    planned = both(*words, "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert both.state == before
    done = both.ok(*words, "--system-admin", "--gisaid-submitter-id", "mo7")
    assert changes(done) == [
        ("database", "name", "Mo New", "updated"),
        ("database", "gisaid_submitter_id", "mo7", "updated"),
        ("database", "email", EMAIL.upper(), "updated"),
        ("database", "system_admin", True, "updated"),
        ("identity provider", "name", "Mo New", "updated"),
        ("identity provider", "email", EMAIL, "updated"),
        ("identity provider", "email_verified", False, "updated"),
    ]
    assert f"A verification e-mail will be sent to {EMAIL.upper()}." in done.err
    assert both.accounts.user(EMAIL.upper()) == ("Mo New", "auth0|multi", True, "mo7")
    assert both.sign_in_name("multi") == ("Mo New", EMAIL, False)

    run = both.last_run()
    assert (run["command"], run["outcome"]) == ("users update", "written")
    undone = both.ok("users", "undo", run["run"])
    assert both.state == before, undone.err
    assert both.last_run()["command"] == "users undo"
    both.ok("users", "undo", both.last_run()["run"])
    assert both.sign_in_name("multi") == ("Mo New", EMAIL, False)
    assert both.accounts.user(EMAIL.upper()) == ("Mo New", "auth0|multi", True, "mo7")


def test_undo_restores_verification_of_an_address_verified_since(both: Both) -> None:
    both.ok("users", "update", "10", "--email", EMAIL)
    with both.identity.management() as provider:
        provider.patch("users/auth0|multi", json={"email_verified": True}).raise_for_status()
    both.ok("users", "undo", both.last_run()["run"])
    assert both.sign_in_name("multi")[1:] == ("multi@example.org", True)


def test_verified_address_stays_verified(both: Both) -> None:
    done = both.ok("users", "update", "10", "--email", EMAIL, "--email-verified")
    assert both.sign_in_name("multi")[1:] == (EMAIL, True)
    assert "A verification e-mail" not in done.err


def test_second_update_writes_nothing(both: Both) -> None:
    words = ("users", "update", "auth0|multi", "--name", "Mo New", "--email", EMAIL)
    both.ok(*words)
    state, runs = both.state, both("history", "list", "-o", "json").json
    again = both.ok(*words)
    assert again.json == []
    assert "Nothing to change: the user already has these values." in again.err
    assert both.state == state
    assert both("history", "list", "-o", "json").json == runs


@pytest.mark.parametrize("side", ["database", "identity provider"])
def test_update_completes_the_side_that_is_missing(side: str, both: Both) -> None:
    words = ("users", "update", "10", "--name", "Mo New", "--email", EMAIL)
    if side == "database":
        body = {"name": "Mo New", "email": EMAIL, "email_verified": False}
        with both.identity.management() as provider:
            provider.patch("users/auth0|multi", json=body).raise_for_status()
    else:
        both.accounts.execute(
            "UPDATE aspen.users SET name = 'Mo New', email = :email WHERE id = 10", email=EMAIL
        )
    done = both.ok(*words)
    assert {row["side"] for row in done.json} == {side}
    assert both.sign_in_name("multi") == ("Mo New", EMAIL, False)
    assert both.accounts.user(EMAIL) == ("Mo New", "auth0|multi", False, None)


def test_gisaid_id_is_cleared_and_restored(both: Both) -> None:
    both.ok("users", "update", "10", "--gisaid-submitter-id", "mo7")
    done = both.ok("users", "update", "10", "--clear", "gisaid-submitter-id")
    assert changes(done) == [("database", "gisaid_submitter_id", None, "updated")]
    user = both.accounts.user("multi@example.org")
    assert user is not None
    assert user[-1] is None
    both.ok("users", "undo", both.last_run()["run"])
    user = both.accounts.user("multi@example.org")
    assert user is not None
    assert user[-1] == "mo7"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("10",), 2, "Nothing to update."),
        (("10", "--name", " "), 2, "The name is blank."),
        (("10", "--email", "no address"), 2, "Invalid e-mail address"),
        (("10", "--email-verified"), 2, "--email-verified needs --email."),
        (("10", "--clear", "name"), 2, "gisaid-submitter-id"),
        (
            ("10", "--clear", "gisaid-submitter-id", "--gisaid-submitter-id", "x"),
            2,
            "contradict each other",
        ),
        (("10", "--name", "N", "--via", "api"), 2, "The API cannot update other users."),
        (("who@example.org", "--name", "N"), 6, "No such user: 'who@example.org'"),
        (("10", "--email", "MEMBER@example.org"), 7, "user 3 Morgan Member <member@example.org>"),
    ],
)
def test_update_is_refused(words: tuple[str, ...], code: int, says: str, both: Both) -> None:
    before = both.state
    for flag in ("--yes", "--dry-run"):
        ended = both("users", "update", *words, flag)
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert says in " ".join(ended.err.split())
    assert both.state == before


def test_address_of_another_account_is_a_conflict(both: Both) -> None:
    """The account belongs to no user of the database."""
    with both.identity.management() as provider:
        body = {"email": EMAIL, "password": "p", "connection": "Username-Password-Authentication"}
        provider.post("users", json=body).raise_for_status()
    before = both.state
    ended = both("users", "update", "10", "--email", EMAIL, "--yes")
    assert ended.code == 7, ended.err
    assert f"another account with the address {EMAIL}" in ended.err
    assert both.state == before


def test_last_system_administrator_stays_unless_allowed(both: Both) -> None:
    both.ok("users", "update", "sysmember@example.org", "--no-system-admin")
    words = ("users", "update", "sysadmin@example.org", "--no-system-admin")
    for flag in ("--yes", "--dry-run"):
        ended = both(*words, flag)
        assert ended.code == 3, ended.err
        assert "the service would have no system administrator" in ended.err
    both.ok(*words, "--allow-no-admin")
    assert not both.accounts.rows("SELECT FROM aspen.users WHERE system_admin")


def test_update_without_credentials_says_what_is_left(no_provider: Both) -> None:
    both = no_provider
    done = both.ok("users", "update", "10", "--name", "Mo New", "--email", EMAIL)
    assert {row["side"] for row in done.json} == {"database"}
    assert (
        "Left to do at the identity provider: change the name to 'Mo New' and the e-mail address "
        f"to '{EMAIL}' of account auth0|multi." in " ".join(done.err.split())
    )
    assert both.accounts.user(EMAIL) == ("Mo New", "auth0|multi", False, None)
    assert both.sign_in_name("multi") == ("Multi Example", "multi@example.org", True)


def test_database_only_leaves_the_provider_as_it_is(both: Both) -> None:
    done = both.ok("users", "update", "10", "--name", "Mo New", "--database-only")
    assert "Left to do at the identity provider" in done.err
    assert both.sign_in_name("multi")[0] == "Multi Example"


@pytest.mark.parametrize("account", ["google-oauth2|10", "auth0|unknown"])
def test_user_without_account_changes_in_the_database_only(account: str, both: Both) -> None:
    both.accounts.execute("UPDATE aspen.users SET auth0_user_id = :a WHERE id = 10", a=account)
    done = both.ok("users", "update", "10", "--name", "Mo New", "--email", EMAIL)
    assert {row["side"] for row in done.json} == {"database"}
    assert ("has no account auth0|unknown" in done.err) == account.startswith("auth0|")
    added = both.ok("users", "roles", "add", "10", "--group", "VSUV", "--role", "viewer")
    assert {row["side"] for row in added.json} == {"database"}
    removed = both.ok("users", "roles", "remove", "10", "--group", "VSUV")
    assert {row["side"] for row in removed.json} == {"database"}


def test_production_requires_the_name(both: Both) -> None:
    words = ("--env", "prod", "users", "update", "10", "--name", "Mo New")
    refused = both(*words, "--yes")
    assert refused.code == 3
    assert "pass --confirm prod" in refused.err
    done = both(*words, "--confirm", "prod")
    assert done.code == 0, done.err
    assert "aspencli --env prod users undo" in done.err
    assert both.sign_in_name("multi")[0] == "Mo New"


def test_stacks_share_their_provider(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    address = both.accounts.database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("ASPEN_DATABASE_URL_RDEV", address)
    words = ("--env", "rdev", "--stack", "mine", "users", "update", "10")
    done = both(*words, "--name", "Mo New", "--dry-run")
    assert done.code == 0, done.err
    assert "All stacks of rdev share one identity provider" in done.err
    assert "share one" not in both(*words, "--system-admin", "--dry-run").err
    assert "share one" not in both("users", "update", "10", "--name", "N", "--dry-run").err


def test_undo_file_goes_where_it_is_wanted(both: Both, tmp_path: Path) -> None:
    path = tmp_path / "undo.jsonl"
    words = ("users", "update", "10", "--undo-file", str(path))
    both.ok(*words, "--name", "Mo New")
    head, *steps = map(json.loads, path.read_text().splitlines())
    assert (head["target"], head["of"], head["steps"]) == ("local", "users", len(steps))
    assert path.stat().st_mode & 0o077 == 0
    taken = both(*words, "--name", "Mo Newer", "--yes")
    assert (taken.code, taken.out) == (2, "")
    assert "already exists" in taken.err
    both.ok("users", "undo", str(path))
    assert both.sign_in_name("multi")[0] == "Multi Example"


# undo


def test_undo_skips_what_changed_since_unless_forced(both: Both) -> None:
    both.ok("users", "update", "10", "--name", "Mo New", "--gisaid-submitter-id", "mo7")
    run = both.last_run()["run"]
    both.accounts.execute("UPDATE aspen.users SET gisaid_submitter_id = 'else' WHERE id = 10")
    with both.identity.management() as provider:
        provider.patch("users/auth0|multi", json={"name": "Else"}).raise_for_status()
    ended = both("users", "undo", run, "--yes", "-o", "json")
    assert ended.code == 7, ended.err
    assert [row["outcome"] for row in ended.json] == ["updated", "skipped", "skipped"]
    assert ended.err.count("changed since") == 3
    assert both.accounts.user("multi@example.org") == ("Mo Multi", "auth0|multi", False, "else")
    assert both.sign_in_name("multi")[0] == "Else"
    both.ok("users", "undo", run, "--force")
    assert both.accounts.user("multi@example.org") == ("Mo Multi", "auth0|multi", False, None)
    assert both.sign_in_name("multi")[0] == "Multi Example"


def test_undo_of_both_sides_needs_credentials(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    both.ok("users", "update", "10", "--name", "Mo New")
    run, state = both.last_run()["run"], both.state
    for name in MANAGEMENT:
        monkeypatch.delenv(f"AUTH0_MANAGEMENT_{name}")
    ended = both("users", "undo", run, "--yes")
    assert ended.code == 4, ended.err
    assert "also changed the identity provider" in ended.err
    assert both.state == state


def test_undo_refuses_an_address_that_someone_else_has_now(both: Both) -> None:
    both.ok("users", "update", "10", "--email", EMAIL)
    run = both.last_run()["run"]
    both.ok("users", "update", "11", "--email", "Multi@example.org")
    ended = both("users", "undo", run, "--yes")
    assert ended.code == 7, ended.err
    assert "multi@example.org already belongs to another user" in ended.err


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda text: text[:-1], "is damaged: it has"),
        (lambda text: "\n".join(text.splitlines()[:-1]) + "\n", "is damaged: it has 2 of 3 steps"),
        (lambda text: text.replace('"kind"', '"kin"'), "is damaged."),
        (lambda text: text.replace('"version": 1', '"version": 2'), "by a newer version"),
        (lambda text: text.replace('"target": "local"', '"target": "prod"'), "on prod"),
        (lambda text: text.replace('"of": "users"', '"of": "groups"'), "a change of groups"),
    ],
    ids=["cut", "short", "key", "version", "target", "noun"],
)
def test_undo_refuses_a_file_that_does_not_fit(
    edit: object, says: str, both: Both, tmp_path: Path
) -> None:
    path = tmp_path / "undo.jsonl"
    both.ok("users", "update", "10", "--name", "Mo New", "--system-admin", "--undo-file", str(path))
    state = both.state
    path.write_text(edit(path.read_text()))  # type: ignore[operator] # a function
    ended = both("users", "undo", str(path), "--yes")
    assert ended.code == 2, ended.err
    assert says in " ".join(ended.err.split())
    assert both.state == state


# roles


def test_role_is_added_and_taken_back_on_both_sides(both: Both) -> None:
    before = both.state
    done = both.ok(
        "users", "roles", "add", "nogroup@example.org", "--group", "VSUV", "--role", "Viewer"
    )
    assert [(row["side"], row["kind"], row["after"]) for row in done.json] == [
        ("database", "role", "viewer"),
        ("identity provider", "membership", True),
        ("identity provider", "role", "viewer"),
    ]
    assert both.accounts.roles("nogroup@example.org") == {"VSUV": "viewer"}
    assert both.members(VSUV)["nogroup"] == ["viewer"]
    again = both.ok("users", "roles", "add", "11", "--group", "3", "--role", "viewer")
    assert "Nothing to change: the user already has that role." in again.err
    run = both.last_run()
    assert (run["command"], run["outcome"]) == ("users roles add", "written")
    both.ok("users", "undo", run["run"])
    assert both.state == before


def test_role_is_replaced_only_on_request(both: Both) -> None:
    words = ("users", "roles", "add", "member@example.org", "--group", "RCPHL", "--role", "admin")
    before = both.state
    ended = both(*words, "--yes")
    assert ended.code == 7, ended.err
    assert "member@example.org already has the role member in group" in ended.err
    assert "--replace" in ended.err
    assert both.state == before
    both.ok(*words, "--replace")
    assert both.accounts.roles("member@example.org") == {"RCPHL": "admin"}
    assert both.members(RCPHL)["member"] == ["admin"]
    both.ok("users", "undo", both.last_run()["run"])
    assert both.state == before


def test_role_at_the_provider_alone_counts_too(both: Both) -> None:
    both.accounts.execute("DELETE FROM aspen.user_roles WHERE user_id = 9")
    ended = both("users", "roles", "add", "9", "--group", "3", "--role", "admin", "--yes")
    assert ended.code == 7, ended.err
    done = both.ok("users", "roles", "add", "9", "--group", "3", "--role", "member")
    assert [row["side"] for row in done.json] == ["database"]
    assert both.accounts.roles("g3member@example.org") == {"VSUV": "member"}


def test_last_role_ends_the_membership(both: Both) -> None:
    before = both.state
    done = both.ok("users", "roles", "remove", "multi@example.org", "--group", "RCPHL")
    assert [(row["side"], row["kind"], row["outcome"]) for row in done.json] == [
        ("database", "role", "deleted"),
        ("identity provider", "role", "deleted"),
        ("identity provider", "membership", "deleted"),
    ]
    assert both.accounts.roles("multi@example.org") == {"BDPH": "admin"}
    assert "multi" not in both.members(RCPHL)
    assert both.members(BDPH)["multi"] == ["admin"]
    again = both.ok("users", "roles", "remove", "10", "--group", "RCPHL")
    assert "Nothing to change: the user has no such role there." in again.err
    both.ok("users", "undo", both.last_run()["run"])
    assert both.state == before


def test_one_of_several_roles_is_removed(both: Both) -> None:
    """Several roles in one group happen by hand."""
    both.accounts.execute(
        "INSERT INTO aspen.user_roles (user_id, group_id, role_id) VALUES (3, 1, 1)"
    )
    words = ("users", "roles", "remove", "member@example.org", "--group", "1", "--role")
    both.ok(*words, "admin")
    assert both.accounts.roles("member@example.org") == {"RCPHL": "member"}
    assert both.members(RCPHL)["member"] == ["member"]
    same = both.ok(*words, "viewer")
    assert same.json == []
    assert "member" in both.members(RCPHL)


@pytest.mark.parametrize(
    "words",
    [
        ("roles", "remove", "gadmin@example.org", "--group", "RCPHL"),
        ("roles", "add", "2", "--group", "RCPHL", "--role", "member", "--replace"),
    ],
    ids=["remove", "replace"],
)
def test_last_administrator_of_a_group_stays_unless_allowed(
    words: tuple[str, ...], both: Both
) -> None:
    before = both.state
    for flag in ("--yes", "--dry-run"):
        ended = both("users", *words, flag)
        assert ended.code == 3, ended.err
        assert "Redwood County Public Health Laboratory would have no administrator" in ended.err
    assert both.state == before
    both.ok("users", *words, "--allow-no-admin")
    assert both.members(RCPHL).get("gadmin") != ["admin"]


def test_administrator_with_another_one_beside_may_leave(both: Both) -> None:
    both.ok("users", "roles", "remove", "g2admin@example.org", "--group", "BDPH")
    assert both.accounts.roles("g2admin@example.org") == {}


def test_roles_are_listed_with_their_sides(both: Both) -> None:
    both.accounts.execute("DELETE FROM aspen.user_roles WHERE user_id = 10 AND group_id = 1")
    both.accounts.execute(
        "INSERT INTO aspen.user_roles (user_id, group_id, role_id) VALUES (10, 3, 2)"
    )
    rows = both("users", "roles", "list", "multi@example.org", "-o", "json").json
    assert all(list(row) == ROLE_KEYS for row in rows)
    assert [tuple(row[key] for key in ROLE_KEYS[2:]) for row in rows] == [
        ("RCPHL", "member", False, True),
        ("BDPH", "admin", True, True),
        ("VSUV", "viewer", True, False),
    ]
    only = both("users", "roles", "list", "10", "--group", "BDPH", "-o", "json").json
    assert [row["prefix"] for row in only] == ["BDPH"]
    blind = both("users", "roles", "list", "10", "--database-only", "-o", "json").json
    assert [(row["prefix"], row["at_provider"]) for row in blind] == [
        ("BDPH", None),
        ("VSUV", None),
    ]
    none = both("users", "roles", "list", "nogroup@example.org")
    assert (none.code, none.err) == (0, "No roles found.\n")


def test_roles_are_listed_without_credentials(no_provider: Both) -> None:
    rows = no_provider("users", "roles", "list", "2", "-o", "json").json
    assert [(row["in_database"], row["at_provider"]) for row in rows] == [(True, None)]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (
            ("roles", "add", "11", "--group", "3", "--role", "viewer"),
            f"make account auth0|nogroup a member of {VSUV} as viewer",
        ),
        (
            ("roles", "remove", "10", "--group", "1"),
            f"take member in {RCPHL} from auth0|multi",
        ),
        (("delete", "11"), "remove account auth0|nogroup from its organizations"),
    ],
    ids=["add", "remove", "delete"],
)
def test_what_a_sign_in_would_undo_is_refused_without_credentials(
    words: tuple[str, ...], left: str, no_provider: Both
) -> None:
    both = no_provider
    before = both.state
    ended = both("users", *words, "--yes")
    assert ended.code == 4, ended.err
    assert "there are no credentials for the target's identity provider" in ended.err
    assert both.state == before
    done = both.ok("users", *words, "--database-only")
    assert f"Left to do at the identity provider: {left}." in " ".join(done.err.split())
    assert {row["side"] for row in done.json} == {"database"}


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("add", "11", "--group", "3", "--role", "boss"), 6, "No such role: 'boss'"),
        (("add", "11", "--group", "XX", "--role", "admin"), 6, "No such group: 'XX'"),
        (("add", "x@example.org", "--group", "3", "--role", "admin"), 6, "No such user"),
        (("add", "11", "--group", "3"), 2, "--role"),
        (
            ("add", "11", "--group", "3", "--role", "admin", "--via", "api"),
            2,
            "The API cannot change the roles of a member.",
        ),
        (
            ("remove", "9", "--group", "3", "--via", "api"),
            2,
            "The API cannot change the roles of a member.",
        ),
    ],
)
def test_role_change_is_refused(words: tuple[str, ...], code: int, says: str, both: Both) -> None:
    before = both.state
    ended = both("users", "roles", *words, "--yes")
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert says in " ".join(ended.err.split())
    assert both.state == before


def test_role_in_a_group_without_organization_is_refused(both: Both) -> None:
    both.accounts.execute("UPDATE aspen.groups SET auth0_org_id = 'org_gone' WHERE id = 3")
    ended = both("users", "roles", "add", "11", "--group", "3", "--role", "viewer", "--yes")
    assert ended.code == 6, ended.err
    assert "Organization org_gone of group Valley State University Virology" in ended.err


# delete


def test_user_with_data_is_not_deleted(both: Both, add_sample: AddSample) -> None:
    add_sample(uploaded_by_id=11)
    both.accounts.execute(
        "INSERT INTO aspen.workflows (workflow_type, workflow_status, software_versions, user_id)"
        " SELECT 'PHYLO_RUN', 'COMPLETED', '{}', 11 FROM generate_series(1, 3)"
    )
    before = both.state
    for flag in ("--yes", "--dry-run"):
        ended = both("users", "delete", "nogroup@example.org", flag)
        assert (ended.code, ended.out) == (7, ""), ended.err
        assert "samples uploaded: 1" in ended.err
        assert "phylo runs started: 3" in ended.err
        assert "aspencli users offboard nogroup@example.org" in ended.err
    assert both.state == before


def test_user_is_deleted_on_both_sides_and_restored(both: Both) -> None:
    before = both.state
    done = both.ok("users", "delete", "multi@example.org")
    assert [(row["side"], row["kind"], row["outcome"]) for row in done.json] == [
        *[("database", "role", "deleted")] * 2,
        ("database", "user", "deleted"),
        *[
            ("identity provider", "role", "deleted"),
            ("identity provider", "membership", "deleted"),
        ]
        * 2,
    ]
    assert both.accounts.user("multi@example.org") is None
    assert "multi" not in both.members(RCPHL).keys() | both.members(BDPH).keys()
    assert both.account("multi") is not None
    gone = both("users", "delete", "multi@example.org", "--yes")
    assert gone.code == 6, gone.err
    both.ok("users", "undo", both.last_run()["run"])
    assert both.state == before


def test_account_is_deleted_on_request_for_good(both: Both) -> None:
    done = both.ok("users", "delete", "nogroup@example.org", "--account")
    assert [(row["kind"], row["outcome"]) for row in done.json] == [
        ("user", "deleted"),
        ("account", "deleted"),
    ]
    assert both.account("nogroup") is None
    assert "Undo it" not in done.err
    assert "Record of what was deleted: " in done.err
    assert both.kept_files == ["deleted"]
    undone = both("users", "undo", both.last_run()["run"], "--yes")
    assert (undone.code, "has no undo file" in undone.err) == (2, True), undone.err


def test_account_left_over_is_deleted_by_its_id(both: Both) -> None:
    both.accounts.execute("DELETE FROM aspen.users WHERE id = 11")
    without = both("users", "delete", "auth0|nogroup", "--yes")
    assert without.code == 6, without.err
    done = both.ok("users", "delete", "auth0|nogroup", "--account")
    assert [row["kind"] for row in done.json] == ["account"]
    assert both.account("nogroup") is None
    again = both("users", "delete", "auth0|nogroup", "--account", "--yes")
    assert again.code == 6, again.err


def test_account_that_is_still_a_member_is_not_deleted_by_its_id(both: Both) -> None:
    both.accounts.execute("DELETE FROM aspen.user_roles WHERE user_id = 9")
    both.accounts.execute("DELETE FROM aspen.users WHERE id = 9")
    ended = both("users", "delete", "auth0|g3member", "--account", "--yes")
    assert ended.code == 7, ended.err
    assert f"is a member of organizations: {VSUV}" in ended.err
    assert both.account("g3member") is not None


def test_other_organizations_of_a_deleted_user_are_named(both: Both) -> None:
    both.accounts.execute("UPDATE aspen.groups SET auth0_org_id = 'org_else' WHERE id = 3")
    done = both.ok("users", "delete", "g3member@example.org")
    assert f"The account stays a member of organizations of no group in this database: {VSUV}" in (
        " ".join(done.err.split())
    )
    assert both.members(VSUV)["g3member"] == ["member"]


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("g3admin@example.org", "Valley State University Virology would have no administrator"),
        ("sysadmin@example.org", "the service would have no system administrator"),
    ],
)
def test_last_administrator_is_not_deleted_unless_allowed(user: str, says: str, both: Both) -> None:
    both.ok("users", "update", "sysmember@example.org", "--no-system-admin")
    ended = both("users", "delete", user, "--yes")
    assert ended.code == 3, ended.err
    assert says in ended.err
    both.ok("users", "delete", user, "--allow-no-admin")
    assert both.accounts.user(user) is None


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("11", "--account", "--database-only"), 2, "contradict each other"),
        (("11", "--via", "api"), 2, "The API cannot delete users."),
        (("x@example.org",), 6, "No such user: 'x@example.org'"),
        (("x@example.org", "--account"), 6, "No such user: 'x@example.org'"),
    ],
)
def test_delete_is_refused(words: tuple[str, ...], code: int, says: str, both: Both) -> None:
    ended = both("users", "delete", *words, "--yes")
    assert (ended.code, ended.out) == (code, ""), ended.err
    assert says in ended.err


def test_account_of_another_provider_cannot_be_deleted(both: Both) -> None:
    both.accounts.execute("UPDATE aspen.users SET auth0_user_id = 'google-oauth2|1' WHERE id = 11")
    ended = both("users", "delete", "11", "--account", "--yes")
    assert ended.code == 2, ended.err
    assert "has no account of the provider's own: google-oauth2|1" in ended.err
    both.ok("users", "delete", "11")


# Open invitations, with which a person could come back


def test_last_role_in_a_group_ends_its_invitations_too(both: Both) -> None:
    for place in (RCPHL, BDPH):
        both.invite(place, "multi@example.org")
        both.invite(place, "other@example.org")
    both.ok("users", "roles", "add", "10", "--group", "1", "--role", "viewer", "--replace")
    assert "multi@example.org" in both.invited(RCPHL)
    done = both.ok("users", "roles", "remove", "10", "--group", "1")
    assert ("identity provider", None, None, "deleted") in changes(done)
    assert both.invited(RCPHL) == ["other@example.org"]
    assert both.invited(BDPH) == ["multi@example.org", "other@example.org"]
    undone = both.ok("users", "undo", both.last_run()["run"])
    assert "Cannot be restored: invitation multi@example.org to RCPHL" in undone.err
    assert both.members(RCPHL)["multi"] == ["viewer"]


def test_deleted_user_has_no_invitations_left(both: Both) -> None:
    for place in (RCPHL, BDPH, VSUV):
        both.invite(place, "NoGroup@example.org")
    both.invite(VSUV, "other@example.org")
    both.ok("users", "delete", "nogroup@example.org")
    assert [both.invited(place) for place in (RCPHL, BDPH, VSUV)] == [[], [], ["other@example.org"]]


# A provider that cannot be used


_WITH_PROVIDER = (
    ("users", "roles", "list", "multi@example.org"),
    ("users", "update", "multi@example.org", "--name", "New Name"),
    ("users", "roles", "remove", "multi@example.org", "--group", "RCPHL", "--allow-no-admin"),
    ("groups", "archive", "VSUV"),
)


@pytest.mark.parametrize("words", _WITH_PROVIDER, ids=" ".join)
def test_wrong_credentials_suggest_the_database_alone(
    words: tuple[str, ...], both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = both.state
    monkeypatch.setenv("AUTH0_MANAGEMENT_CLIENT_SECRET", "wrong")
    ended = both(*words, "--yes")
    assert (ended.code, ended.out) == (4, ""), ended.err
    assert "rejected the management credentials" in ended.err
    assert "To do without the identity provider: --database-only" in ended.err
    assert both.state == before
    assert both(*words, "--database-only", "--yes").code == 0


@pytest.mark.parametrize("words", _WITH_PROVIDER, ids=" ".join)
def test_broken_provider_suggests_the_database_alone(
    words: tuple[str, ...], both: Both, relay: ProviderRelay
) -> None:
    before = both.state
    relay.fail("GET", broken, times=100)
    ended = both(*words, "--yes")
    assert (ended.code, ended.out) == (5, ""), ended.err
    assert "did not respond" in ended.err
    assert "To do without the identity provider: --database-only" in ended.err
    assert both.state == before
    assert both(*words, "--database-only", "--yes").code == 0
