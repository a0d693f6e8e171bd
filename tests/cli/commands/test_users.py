"""``aspencli users``, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import User, UserRole
from tests import zygote

if TYPE_CHECKING:
    from tests.cli.commands.conftest import Cli
    from tests.cli.commands.ending import Ended

LIST_KEYS = ["id", "name", "email", "auth0_user_id", "system_admin", "groups"]
SHOW_KEYS = [
    *LIST_KEYS,
    "agreed_to_tos",
    "acknowledged_policy_version",
    "gisaid_submitter_id",
    "created_at",
    "samples",
]
ADA = {
    "--name": "Ada Love",
    "--email": "ada@lab.example.org",
    "--auth0-user-id": "auth0|ada",
    "--group": "RCPHL",
}


def _create(cli: Cli, *flags: str, **changes: str) -> Ended:
    options = ADA | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return cli("users", "create", *(word for pair in options.items() for word in pair), *flags)


def _users(database: Database) -> list[tuple[Any, ...]]:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(sa.text("TABLE aspen.users ORDER BY id"))]


# list and show


def test_list_keys_are_stable(cli: Cli) -> None:
    rows = cli("users", "list", "-o", "json").json
    assert [row["id"] for row in rows] == list(range(1, 12))
    assert all(list(row) == LIST_KEYS for row in rows)
    assert rows[9]["groups"] == [
        {"id": 1, "name": "Redwood County Public Health Laboratory", "roles": ["member"]},
        {"id": 2, "name": "Bayside Department of Public Health", "roles": ["admin"]},
    ]
    assert rows[10]["groups"] == []


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("--group", "VSUV"), [8, 9]),
        (("--org", "3"), [8, 9]),
        (("--role", "viewer"), [4]),
        (("--role", "ADMIN", "--group", "1"), [2]),  # 10 is an admin of another group only
        (("--system-admin",), [1, 5]),
        (("--no-system-admin", "--group", "1"), [2, 3, 4, 10]),
        (("--search", "NOGROUP@"), [11]),
        (("--search", "admin", "--limit", "2"), [1, 2]),
        (("--after", "9"), [10, 11]),
    ],
)
def test_list_filters_users(cli: Cli, arguments: tuple[str, ...], ids: list[int]) -> None:
    assert cli("users", "list", *arguments).ids == ids


def test_limited_list_shows_total_and_next_page(cli: Cli) -> None:
    ended = cli("user", "list", "--limit", "2")
    assert "2 of 11 users shown" in ended.err
    assert "--after 2" in ended.err


def test_list_table_shows_groups_with_roles(cli: Cli) -> None:
    out = cli("users", "list", "-o", "table", "--group", "3").out
    assert "Virology (admin)" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--group", "XX"), "No such group: 'XX'"), (("--role", "membre"), "Did you mean member")],
)
def test_list_with_unknown_group_or_role_exits_with_6(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    ended = cli("users", "list", *arguments)
    assert (ended.code, ended.out) == (6, "")
    assert words in ended.err


def test_empty_list_prints_note(cli: Cli) -> None:
    ended = cli("users", "list", "--search", "zzz")
    assert (ended.code, ended.err) == (0, "No users found.\n")


@pytest.mark.parametrize("key", ["2", "gadmin@example.org", "GAdmin@Example.org", "auth0|gadmin"])
def test_show_finds_user_by_id_email_or_auth0_id(cli: Cli, key: str) -> None:
    rows = cli("users", "show", key, "-o", "json").json
    assert [list(row) for row in rows] == [SHOW_KEYS]
    assert (rows[0]["id"], rows[0]["samples"]) == (2, 60)


def test_show_distinguishes_emails_that_differ_in_case(cli: Cli, seeded: Database) -> None:
    with seeded.begin() as session:
        session.execute(sa.update(User).where(User.id == 3).values(email="GADMIN@example.org"))
    assert cli("users", "show", "GADMIN@example.org").ids == [3]
    ended = cli("users", "show", "Gadmin@example.org")
    assert ended.code == 2
    assert "2  Gale Admin <gadmin@example.org> auth0|gadmin" in ended.err


def test_show_of_unknown_user_exits_with_6(cli: Cli) -> None:
    ended = cli("users", "show", "nobody@example.org")
    assert (ended.code, ended.out) == (6, "")
    assert "users list --search" in ended.err


# create


def test_create_adds_user_with_role(cli: Cli, seeded: Database) -> None:
    ended = _create(cli, "--yes", "-o", "json")
    assert ended.code == 0
    row = ended.json[0]
    assert list(row) == ["status", *LIST_KEYS, "outcome"]
    assert row == {
        "status": "created",
        "id": 12,
        "name": "Ada Love",
        "email": "ada@lab.example.org",
        "auth0_user_id": "auth0|ada",
        "system_admin": False,
        "groups": [
            {"id": 1, "name": "Redwood County Public Health Laboratory", "roles": ["member"]}
        ],
        "outcome": "created",
    }
    with seeded.reading() as session:
        user = session.get_one(User, 12)
        assert not user.agreed_to_tos
        assert len(user.analytics_id) == 20
        assert user.created_at is not None


def test_create_adds_system_admin(cli: Cli) -> None:
    row = _create(cli, "--yes", "--system-admin", "-o", "json", group="2", role="admin").json[0]
    assert row["system_admin"] is True
    assert row["groups"] == [
        {"id": 2, "name": "Bayside Department of Public Health", "roles": ["admin"]}
    ]


def test_create_of_existing_user_changes_nothing(cli: Cli, seeded: Database) -> None:
    _create(cli, "--yes")
    before = _users(seeded)
    ended = _create(cli, "-o", "json", email="ADA@Lab.Example.org")  # nothing to confirm
    assert ended.code == 0
    assert ended.json[0]["status"] == "unchanged"
    assert ended.json[0]["email"] == "ada@lab.example.org"
    assert "Nothing to change: user ada@lab.example.org already exists" in ended.err
    assert _users(seeded) == before


def test_create_ignores_other_roles_of_existing_user(cli: Cli, seeded: Database) -> None:
    _create(cli, "--yes")
    with seeded.begin() as session:
        session.add(UserRole(user_id=12, group_id=2, role_id=1))
    assert _create(cli).code == 0
    assert _create(cli, group="2", role="admin").code == 0


@pytest.mark.parametrize(
    ("changes", "flags", "words"),
    [
        ({"name": "Ada King"}, (), "its name is 'Ada Love', not 'Ada King'"),
        ({"role": "admin"}, (), "it does not have the role admin in group Redwood"),
        ({"group": "2"}, (), "it does not have the role member in group Bayside"),
        ({"auth0_user_id": "auth0|x"}, (), "its Auth0 ID is 'auth0|ada', not 'auth0|x'"),
        ({"email": "x@lab.example.org"}, (), "its e-mail address is 'ada@lab.example.org'"),
        ({"email": "ADA@LAB.EXAMPLE.ORG", "auth0_user_id": "auth0|x"}, (), "its Auth0 ID"),
        ({}, ("--system-admin",), "its system_admin is False, not True"),
        ({"email": "member@example.org"}, (), "user 3  Morgan Member"),
    ],
)
def test_create_in_conflict_with_existing_user_names_it(
    cli: Cli, seeded: Database, changes: dict[str, str], flags: tuple[str, ...], words: str
) -> None:
    _create(cli, "--yes")
    before = _users(seeded)
    ended = _create(cli, "--yes", *flags, **changes)
    assert (ended.code, ended.out) == (7, "")
    assert words in ended.err
    assert "Ada Love <ada@lab.example.org> auth0|ada" in ended.err
    assert "aspencli users show" in ended.err
    assert _users(seeded) == before


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"group": "RCPLH"}, 6, "similar: 1  Redwood"),
        ({"role": "membr"}, 6, "Did you mean member? Choose from: admin, member, viewer."),
        ({"email": "ada"}, 2, 'Invalid e-mail address: "ada"'),
        ({"email": "ada@lab"}, 2, "Invalid e-mail address"),
        ({"email": "ada@@lab.org"}, 2, "Invalid e-mail address"),
        ({"email": "ada love@lab.org"}, 2, "Invalid e-mail address"),
        ({"email": "ada@lab..org"}, 2, "Invalid e-mail address"),
        ({"email": "a" * 250 + "@b.org"}, 2, "Invalid e-mail address"),
        ({"email": "ada@lab.org\n"}, 2, "U+000A"),
        ({"name": "  "}, 2, "The name is blank"),
        ({"name": "Ada\x00"}, 2, "U+0000"),
        ({"name": "Ada\x1b[31m"}, 2, "U+001B"),
        ({"name": "\u202eada"}, 2, "U+202E"),
        ({"name": "A\u200bda"}, 2, "contains U+200B ZERO WIDTH SPACE at position 2"),
        ({"email": "mailto:ada@lab.org"}, 2, "starts with 'mailto:'"),
        ({"email": "ad\u0430@lab.org"}, 2, "U+0430 CYRILLIC SMALL LETTER A at position 3"),
        ({"auth0_user_id": "auth0|\u200bada"}, 2, "U+200B ZERO WIDTH SPACE at position 7"),
        ({"name": "\udc80"}, 2, "U+DC80"),
        ({"auth0_user_id": "auth0 ada"}, 2, "contains white space"),
        ({"auth0_user_id": ""}, 2, "The Auth0 user ID is blank"),
    ],
)
def test_create_with_invalid_values_is_refused(
    cli: Cli, seeded: Database, changes: dict[str, str], code: int, words: str
) -> None:
    before = _users(seeded)
    ended = _create(cli, "--yes", **changes)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert "bug" not in ended.err
    assert _users(seeded) == before


@pytest.mark.parametrize("name", ["Ada-José Müller", "آدا", "李 安", "O'Brien; DROP TABLE users"])
def test_create_accepts_names_of_any_script(cli: Cli, name: str) -> None:
    assert _create(cli, "--yes", "-o", "json", name=f" {name} ").json[0]["name"] == name


def test_create_dry_run_shows_plan_and_writes_nothing(cli: Cli, seeded: Database) -> None:
    before = _users(seeded)
    ended = _create(cli, "--dry-run", "-o", "json")
    assert ended.code == 0
    assert ended.json[0]["status"] == "create"
    assert ended.json[0]["id"] is None
    assert ended.json[0]["groups"][0]["roles"] == ["member"]
    assert _users(seeded) == before


def test_create_dry_run_detects_conflict(cli: Cli) -> None:
    assert _create(cli, "--dry-run", email="member@example.org").code == 7


def test_create_off_terminal_requires_yes(cli: Cli, seeded: Database) -> None:
    before = _users(seeded)
    ended = _create(cli)
    assert (ended.code, ended.out) == (3, "")
    assert "create user ada@lab.example.org in group Redwood" in ended.err
    assert "--yes" in ended.err
    assert _users(seeded) == before


def test_create_on_production_requires_confirm(cli: Cli, seeded: Database) -> None:
    before = _users(seeded)
    for flags in (("--yes",), ("--confirm", "staging")):
        assert _create(cli, "--env", "prod", *flags).code == 3
    assert _users(seeded) == before
    assert _create(cli, "--env", "prod", "--confirm", "prod").code == 0


@pytest.mark.parametrize(
    ("target", "question", "answer", "code"),
    [
        ("local", r"in group Redwood .* as member on local\? \[y/N\]", "y", 0),
        ("local", r"on local\? \[y/N\]", "", 3),
        ("prod", r"Type prod to create user", "prod", 0),
        ("prod", r"Type prod to create user", "y", 3),
    ],
)
def test_create_on_terminal_shows_plan_and_asks(
    seeded: Database,
    cli_env: Callable[[Database], dict[str, str]],
    target: str,
    question: str,
    answer: str,
    code: int,
) -> None:
    env = cli_env(seeded)
    address = env.pop("ASPEN_DATABASE_URL_LOCAL")
    env[f"ASPEN_DATABASE_URL_{target.upper()}"] = address
    words = (word for pair in ADA.items() for word in pair)
    child = zygote.at_terminal(
        ["--env", target, "users", "create", *words],
        env=env | {"TERM": "dumb"},
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 200),
    )
    child.expect("ada@lab.example.org")  # the plan comes before the question
    child.expect(question)
    child.sendline(answer)
    rest = child.read()
    child.close()
    assert child.exitstatus == code
    assert ("Created user" if code == 0 else "nothing was written") in rest
    assert len(_users(seeded)) == (12 if code == 0 else 11)


def test_create_with_missing_option_exits_with_2(cli: Cli) -> None:
    ended = cli("users", "create", "--name", "Ada")
    assert ended.code == 2
    assert "--email" in ended.err
