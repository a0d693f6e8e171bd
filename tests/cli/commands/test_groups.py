"""``aspencli groups``, on a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Group, UserRole

if TYPE_CHECKING:
    from tests.cli.commands.conftest import Cli

LIST_KEYS = ["id", "name", "prefix", "default_tree_location", "users", "samples"]
SHOW_KEYS = [
    *LIST_KEYS,
    "address",
    "division",
    "location",
    "submitting_lab",
    "auth0_org_id",
    "tree_parameters",
    "members",
]


def test_group_list_counts_users_and_samples(cli: Cli) -> None:
    rows = cli("groups", "list", "-o", "json").json
    assert [list(row) for row in rows] == [LIST_KEYS] * 3
    assert [(row["prefix"], row["users"], row["samples"]) for row in rows] == [
        ("RCPHL", 5, 60),
        ("BDPH", 3, 0),
        ("VSUV", 2, 0),
    ]
    assert rows[0]["default_tree_location"] == "North America / USA / California / Humboldt County"


def test_user_with_two_roles_counts_once(cli: Cli, seeded: Database) -> None:
    with seeded.begin() as session:
        session.add(UserRole(user_id=2, group_id=1, role_id=2))
    assert cli("groups", "list", "-o", "json").json[0]["users"] == 5
    members = cli("groups", "show", "1", "-o", "json").json[0]["members"]
    assert next(member for member in members if member["id"] == 2)["roles"] == ["admin", "viewer"]


def test_group_show_has_documented_keys(cli: Cli) -> None:
    row = cli("groups", "show", "RCPHL", "-o", "json").json[0]
    assert list(row) == SHOW_KEYS
    assert row["members"][0] == {
        "id": 2,
        "name": "Gale Admin",
        "email": "gadmin@example.org",
        "roles": ["admin"],
    }
    assert [member["name"] for member in row["members"]] == sorted(
        member["name"] for member in row["members"]
    )


@pytest.mark.parametrize("alias", ["group", "groups"])
@pytest.mark.parametrize("key", ["2", "BDPH", "bayside department of public health"])
def test_group_is_shown_by_id_prefix_or_name(cli: Cli, alias: str, key: str) -> None:
    assert cli(alias, "show", key).ids == [2]


def test_group_table_shows_one_member_per_line(cli: Cli) -> None:
    out = cli("groups", "show", "2", "-o", "table").out
    assert "id: 10, name: Mo Multi, email: multi@example.org, roles: admin" in out


def test_ambiguous_group_key_is_refused(cli: Cli, seeded: Database) -> None:
    with seeded.begin() as session:
        session.execute(sa.update(Group).where(Group.id == 3).values(prefix="2"))
    ended = cli("groups", "show", "2")
    assert (ended.code, ended.out) == (2, "")
    assert "2  Bayside Department of Public Health (prefix BDPH)" in ended.err
    assert "3  Valley State University Virology (prefix 2)" in ended.err


def test_exact_case_match_of_group_prefix_wins(cli: Cli, seeded: Database) -> None:
    with seeded.begin() as session:
        session.execute(sa.update(Group).where(Group.id == 3).values(prefix="bdph"))
    assert cli("groups", "show", "BDPH").ids == [2]
    assert cli("groups", "show", "bdph").ids == [3]
    assert cli("groups", "show", "Bdph").code == 2


def test_unknown_group_is_not_found(cli: Cli) -> None:
    ended = cli("groups", "show", "redwood")
    assert (ended.code, ended.out) == (6, "")
    assert "similar: 1  Redwood County" in ended.err
    assert "aspencli groups list" in ended.err
