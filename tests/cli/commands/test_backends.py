"""Commands that can use the database or the API: same output and exit code with either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import User
from aspencli.groups import remote
from aspencli.samples.models import UNTOLD
from tests.cli.commands.api_lab import ApiLab
from tests.cli.commands.renames_lab import tangled, write_mapping
from tests.cli.test_frame import COMMANDS

BACKENDS = ("db", "api")
SAMPLES = (
    (),
    ("--private",),
    ("--public", "--reverse"),
    ("--collected-after", "2020-06-01", "--collected-before", "2020-09-30"),
    ("--collected-after", "2020-06-02", "--collected-before", "2020-06-01"),
    ("--location", "california / san"),
    ("--search", "RCPHL-000001"),
    ("--search", "nowhere"),
    ("--sort", "collection_date", "--limit", "7"),
    ("--sort", "public_identifier", "--reverse", "--limit", "3"),
    ("--limit", "5", "--after", "100"),
    ("--limit", "5", "--after", "100", "--reverse"),
    ("--after", "999999"),
    ("--pathogen", "mpx"),
    ("--pathogen", "NOPE"),
)
# Commands that take --via, and the test that runs each of them both ways.
COMPARED = {
    "samples list": "test_samples_list_matches_between_backends",
    "samples show": "test_samples_show_matches_between_backends",
    "phylo-runs list": "test_phylo_runs_list_matches_between_backends",
    "usher get-tree-versions": "test_usher_tree_versions_match_between_backends",
    "locations list": "test_locations_list_matches_between_backends",
    "locations search": "test_locations_search_matches_between_backends",
    "pathogens list": "test_pathogens_list_matches_between_backends",
    "groups show": "test_groups_show_matches_between_backends",
    "groups members": "test_groups_members_match_between_backends",
    "users create": "test_users_create_matches_between_backends",
    "samples update-public-ids": "test_rename_and_undo_match_between_backends",
    "samples undo": "test_rename_and_undo_match_between_backends",
}


def test_every_command_with_via_option_is_compared() -> None:
    both = {
        " ".join(words)
        for words, command in COMMANDS.items()
        if not command.hidden and any(map(_chooses, command.params))
    }
    assert both == set(COMPARED)
    assert set(COMPARED.values()) <= set(globals())


def _chooses(param: Any) -> bool:
    """Return True for an option that chooses between two backends."""
    return "--via" in param.opts and not str(param.help).startswith("Backend. Only")


def _by_both(lab: ApiLab, *arguments: str, **options: Any) -> None:
    ways = [lab(*arguments, "--via", backend, **options) for backend in BACKENDS]
    db, api = [(way.code, way.out, way.err) for way in ways]
    assert db == api


@pytest.mark.parametrize("narrowed", SAMPLES, ids=" ".join)
@pytest.mark.parametrize("form", ["json", "tsv"])
def test_samples_list_matches_between_backends(
    shared_lab: ApiLab, narrowed: tuple[str, ...], form: str
) -> None:
    _by_both(shared_lab, "samples", "list", "--group", "1", "-o", form, *narrowed)


@pytest.mark.parametrize(
    "keys",
    [
        ("1", "RCPHL-0000002", "hCoV-19/USA/CA-RCPHL-3/2020"),
        ("RCPHL-0000002", "--by", "private_identifier"),
        ("RCPHL-0000002", "--by", "id"),
        ("1", "nope", "neither"),
        ("0001",),
    ],
)
def test_samples_show_matches_between_backends(shared_lab: ApiLab, keys: tuple[str, ...]) -> None:
    ways = [
        shared_lab("samples", "show", *keys, "--group", "1", "-o", "json", "--via", backend)
        for backend in BACKENDS
    ]
    assert ways[0].code == ways[1].code
    assert ways[0].err == ways[1].err
    if ways[0].code == 0:
        db, api = [[_told(row) for row in json.loads(way.out)] for way in ways]
        assert db == api
        assert list(json.loads(ways[0].out)[0]) == list(json.loads(ways[1].out)[0])


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a sample that the API provides."""
    told = {key: value for key, value in row.items() if key not in UNTOLD}
    told["group"] = {**row["group"], "prefix": None}
    told["uploaded_by"] = {**row["uploaded_by"], "email": None}
    dates = ("upload_date", "sequencing_date")
    told["genome"] = row["genome"] and {key: row["genome"][key] for key in dates}
    return told


@pytest.mark.parametrize("form", ["json", "csv"])
def test_phylo_runs_list_matches_between_backends(shared_lab: ApiLab, form: str) -> None:
    _by_both(shared_lab, "phylo-runs", "list", "--group", "1", "-o", form)
    _by_both(shared_lab, "phylo_runs", "list", "--org", "1", "--pathogen", "MPX", "-o", form)


@pytest.mark.parametrize("slug", ["SC2", "MPX", "sc2", "NOPE"])
def test_usher_tree_versions_match_between_backends(shared_lab: ApiLab, slug: str) -> None:
    command = ("usher", "get-tree-versions", "--org", "1", "--pathogen-slug", slug)
    _by_both(shared_lab, *command, "-o", "json")


@pytest.mark.parametrize("form", ["json", "csv"])
@pytest.mark.parametrize(
    "words",
    [("1",), ("rcphl",), ("--org", "1"), ("--group-id", "1"), (), ("1", "--group", "2"), ("NOPE",)],
    ids=" ".join,
)
def test_groups_members_match_between_backends(
    shared_lab: ApiLab, words: tuple[str, ...], form: str
) -> None:
    command = ("groups", "members", *words, "-o", form)
    ways = [shared_lab(*command, "--via", backend) for backend in BACKENDS]
    assert (ways[0].code, ways[0].out) == (ways[1].code, ways[1].out)


@pytest.mark.parametrize("key", ["1", "RCPHL", "Redwood County Public Health Laboratory", "NOPE"])
def test_groups_show_matches_between_backends(shared_lab: ApiLab, key: str) -> None:
    db, api = [
        shared_lab("groups", "show", key, "-o", "json", "--via", backend) for backend in BACKENDS
    ]
    assert db.code == api.code
    if db.code == 0:
        (expected,), (found,) = db.json, api.json
        assert found == expected | dict.fromkeys(remote.UNTOLD)
        assert list(found) == list(expected)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--yes",), 0),
        (("--yes", "--system-admin", "--role", "MEMBER"), 0),
        (("--dry-run",), 0),
        ((), 3),
        (("--yes", "--email", "MEMBER@example.org"), 7),
        (("--yes", "--auth0-user-id", "auth0|viewer"), 7),
        (("--yes", "--group", "NOPE"), 6),
        (("--yes", "--email", "nobody"), 2),
    ],
    ids=str,
)
def test_users_create_matches_between_backends(
    api_lab: ApiLab, words: tuple[str, ...], code: int
) -> None:
    ada = {"--name": "Ada", "--email": "ada@example.org", "--auth0-user-id": "auth0|ada"}
    usual = {"--group": "Redwood County Public Health Laboratory", **ada}
    left = [word for pair in usual.items() if pair[0] not in words for word in pair]
    told = []
    for backend in BACKENDS:
        command = ("users", "create", *left, *words, "-o", "json", "--via", backend)
        ended = api_lab(*command, who="sysmember")
        told.append((ended.code, [{**row, "id": None} for row in ended.json] if ended.out else []))
        made = _forget(api_lab, "Ada")
        assert made == [(1, "member")] * (code == 0 and "--dry-run" not in words)
    assert told[0] == told[1]
    assert told[0][0] == code


def test_rename_and_undo_match_between_backends(api_lab: ApiLab, tmp_path: Path) -> None:
    listed = api_lab("samples", "list", "--group", "1", "--via", "db", "-o", "json").json
    names = {row["private_identifier"]: row["public_identifier"] for row in listed}
    mapping = write_mapping(tmp_path / "ids.csv", tangled(names, 120))
    bad = write_mapping(tmp_path / "bad.csv", {"nope": "x"})
    undo = str(tmp_path / "undo.csv")
    rename = ("samples", "update-public-ids", "--group-id", "1")
    told: list[list[Any]] = []
    for backend in BACKENDS:
        steps = [
            (*rename, "-f", str(bad), "--yes"),
            (*rename, "-f", str(mapping)),
            (*rename, "-f", str(mapping), "--yes", "--undo-file", undo),
            (*rename, "-f", str(mapping), "--yes"),
            ("samples", "undo", undo),
            ("samples", "undo", undo, "--yes"),
            ("samples", "undo", undo, "--yes"),
            ("samples", "undo", str(tmp_path / "none.csv"), "--yes"),
        ]
        ended = [api_lab(*step, "-o", "json", "--via", backend) for step in steps]
        told.append([(each.code, _lasting(each.json) if each.out else None) for each in ended])
        after = api_lab("samples", "list", "--group", "1", "--via", "db", "-o", "json").json
        assert after == listed
        Path(undo).unlink()
    assert told[0] == told[1]
    assert [code for code, _ in told[0]] == [2, 3, 0, 0, 3, 0, 0, 2]
    assert next(rows for _, rows in told[0] if rows)[0]["changed"] > 100


def _lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows without the values that differ between any two runs."""
    return [
        {key: value for key, value in row.items() if key not in {"run", "undo_file", "seconds"}}
        for row in rows
    ]


def _forget(lab: ApiLab, name: str) -> list[tuple[int, str]]:
    """Delete a user, and return the groups and roles that the user had."""
    with lab.service.database.begin() as session:
        users = session.scalars(sa.select(User).where(User.name == name)).all()
        roles = [(each.group_id, each.role.name) for user in users for each in user.roles]
        for user in users:
            for role in user.roles:
                session.delete(role)
            session.flush()
            session.delete(user)
    return roles


@pytest.mark.parametrize("form", ["json", "tsv"])
def test_pathogens_list_matches_between_backends(shared_lab: ApiLab, form: str) -> None:
    _by_both(shared_lab, "pathogens", "list", "-o", form)


@pytest.mark.parametrize("depth", [(), ("--depth", "region"), ("--max-location-depth", "division")])
def test_locations_list_matches_between_backends(
    shared_lab: ApiLab, depth: tuple[str, ...]
) -> None:
    _by_both(shared_lab, "locations", "list", "-o", "json", *depth)


@pytest.mark.parametrize(
    "typed",
    [
        ("--location", "humbolt county"),
        ("--country", "uSs"),
        ("--country", "usa", "--division", "Californa"),
        ("--region", "north amerika"),
        ("--country", "Uzbek", "--location", "\u0130" * 255),
        ("--country", "x" * 300),
        (),
        ("--country", " "),
    ],
)
def test_locations_search_matches_between_backends(
    shared_lab: ApiLab, typed: tuple[str, ...]
) -> None:
    _by_both(shared_lab, "locations", "search", *typed, "-o", "json")


def test_backend_is_shown_on_terminal_only(shared_lab: ApiLab) -> None:
    for backend, words in (
        ("db", "Target: local (database)"),
        ("api", "Target: local (API)"),
    ):
        assert shared_lab("usher", "get-tree-versions", "--via", backend).err == ""
        assert words in shared_lab.on_terminal("usher", "get-tree-versions", "--via", backend)


def test_system_admin_without_role_is_refused_with_reason(shared_lab: ApiLab) -> None:
    told = shared_lab("usher", "get-tree-versions", "--via", "api", who="sysadmin")
    assert (told.code, told.out) == (4, "")
    assert "you have no role in any" in told.err
    told = shared_lab("usher", "get-tree-versions", "--via", "api", "--org", "1", who="sysadmin")
    assert (told.code, told.out) == (4, "")
    assert "ystem administrators do not have access to every group's data" in told.err


def test_user_with_several_groups_must_name_one(shared_lab: ApiLab) -> None:
    told = shared_lab("usher", "get-tree-versions", "--via", "api", who="multi")
    assert (told.code, told.out) == (2, "")
    assert "1  Redwood County Public Health Laboratory (member)" in told.err
    assert "--org" in told.err
    for name in ("2", "Bayside Department of Public Health", "bdph"):
        ended = shared_lab("usher", "get-tree-versions", "--via", "api", "--org", name, who="multi")
        assert ended.code == 0, ended.err
    told = shared_lab("usher", "get-tree-versions", "--via", "api", "--org", "VSUV", who="multi")
    assert told.code == 6
    assert "You have no role in a group 'VSUV'" in told.err
