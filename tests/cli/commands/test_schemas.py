"""``aspencli schema``: every command with JSON output has a schema, and keeps to it.

The output of every other test that asks for JSON is checked too; see `tests.cli.schema_check`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from aspencli.cli.output.formats import Column, Results, results_of
from aspencli.cli.schemas import DRAFT, schema_of, schema_of_type
from tests.cli import schema_check
from tests.cli.commands.test_writes_alike import WRITES
from tests.cli.schema_check import asked_form, command_words, require_valid, validator_of
from tests.cli.test_frame import COMMANDS, LEAVES

if TYPE_CHECKING:
    from tests.cli.commands.api_lab import ApiLab
    from tests.cli.commands.conftest import Cli
    from tests.conftest import CliRunner

Words = tuple[str, ...]
ROOT = Path(__file__).parents[3]
WITHOUT = {
    "samples download": "saves FASTA",
    "samples submission-template": "saves a form",
    "phylo-trees download": "saves a tree",
    "phylo-trees selected-samples": "saves a list",
    "files download": "saves a file",
    "qc-mutations download": "saves a table",
    "jobs logs": "prints a log",
    "local logs": "prints logs",
    "db interact": "prints what the code prints",
    "db psql": "becomes psql",
    "db tunnel": "prints variables for a shell",
    "auth login": "has no result",
    "auth switch": "has no result",
    "auth logout": "has no result",
    "auth token": "prints a token",
    "config set": "has no result",
    "config unset": "has no result",
}
"""Commands without JSON output, and why."""
BOTH: dict[str, Words] = {
    "samples list": ("--limit", "50"),
    "samples show": ("1", "2"),
    "groups show": ("RCPHL",),
    "groups members": ("1",),
    "phylo-runs list": ("--group", "1"),
    "usher get-tree-versions": (),
    "locations list": ("--depth", "division"),
    "locations search": ("--country", "USA"),
    "pathogens list": (),
}
"""Reading commands of both backends, with their arguments."""
READS: dict[str, Words] = {
    "samples validate-ids": ("RCPHL-0000001", "--group", "1"),
    "users list": (),
    "users show": ("1",),
    "users me": (),
    "groups list": (),
    "auspice link": ("TREE", "--group", "1"),
    "usher get-link": ("RCPHL-0000001", "--group", "1"),
    "lineages list-pango": (),
    "history list": (),
    "history verify": (),
    "db current": (),
    "db history": (),
    "db check": (),
    "db status": (),
    "db activity": ("--all",),
    "db locks": (),
    "db sizes": (),
    "db indexes": ("--all",),
    "db bloat": (),
    "db settings": ("--all",),
    "db doctor": (),
    "db profile": ("--sql", "SELECT 1; SELECT count(*) FROM samples", "--explain"),
    "auth list": (),
    "auth status": (),
    "config show": (),
    "config get": ("env",),
    "target list": (),
    "target check": (),
}
"""Other reading commands."""
ELSEWHERE = {
    "groups invites": "cli/commands/test_groups_api.py",
    "db outliers": "cli/commands/test_db_diagnostics.py",
    "history show": "cli/commands/test_history.py",
    "history check": "cli/commands/test_history.py",
    "history sync": "deployments/test_audit_trail.py",
    "users roles list": "cli/commands/test_users_editing.py",
    "identity diff": "cli/commands/test_identity_diff.py",
    "files list": "cli/commands/test_files.py",
    "files show": "cli/commands/test_files.py",
    "files check": "cli/commands/test_files.py",
    "jobs list": "jobs/test_listing.py",
    "jobs show": "jobs/test_listing.py",
    "jobs why": "jobs/test_causes.py",
    "jobs outputs": "jobs/test_listing.py",
    "jobs schedule list": "jobs/test_listing.py",
    "phylo-trees open": "cli/commands/test_phylo_trees_open.py",
    "samples resume": "cli/commands/test_renames_accidents.py",
    "stacks list": "deployments/test_reaching.py",
    "db revision": "cli/commands/test_db_schema.py",
    "db dump": "copies/test_dumps.py",
    "db dumps verify": "copies/test_dumps.py",
    "db access ensure-readonly": "deployments/test_readonly_role.py",
    "local up": "cli/commands/test_local.py",
    "local init": "cli/commands/test_local.py",
    "local down": "cli/commands/test_local.py",
    "local status": "cli/commands/test_local.py",
    "local mail": "cli/commands/test_local.py",
    "local reset": "cli/commands/test_local.py",
    "local seed": "cli/commands/test_local.py",
}
"""Commands that need a site of their own, and the tests that run them."""
_SAME = {"samples get": "samples show", "groups get": "groups show"}
_SAME |= {"phylo-runs rename": "phylo-runs update"}


def _names(leaves: Sequence[Words]) -> set[str]:
    return {" ".join(words) for words in leaves}


WITH = _names([words for words in LEAVES if results_of(COMMANDS[words]) is not None])


def test_every_command_with_json_output_has_a_schema() -> None:
    assert _names(LEAVES) - WITH == set(WITHOUT)


def test_every_schema_is_checked_by_a_run() -> None:
    written = {name.partition(" --")[0].partition(" of ")[0] for name in WRITES}
    run = {*BOTH, *READS, *ELSEWHERE, *written}
    assert run == {_SAME.get(name, name) for name in WITH}
    for name, path in ELSEWHERE.items():
        text = (ROOT / "tests" / path).read_text()
        assert "json" in text, (name, path)


@pytest.mark.parametrize("name", sorted(WITH))
def test_schema_is_valid_and_complete(name: str) -> None:
    results = results_of(COMMANDS[tuple(name.split())])
    assert results is not None
    schema = schema_of(results, name)
    assert schema["$schema"] == DRAFT
    Draft202012Validator.check_schema(schema)
    text = json.dumps(schema)
    for column in results.columns():
        assert results.document is not None or f'"{column.key}"' in text


@pytest.mark.parametrize("backend", ["db", "api"])
@pytest.mark.parametrize("name", BOTH)
def test_output_of_both_backends_matches_schema(
    shared_lab: ApiLab, name: str, backend: str
) -> None:
    _require_output(shared_lab, (*name.split(), *BOTH[name], "--via", backend))


@pytest.mark.parametrize("name", READS)
def test_output_matches_schema(shared_lab: ApiLab, name: str) -> None:
    words = (*name.split(), *READS[name])
    if "TREE" in words:
        runs = shared_lab("phylo-runs", "list", "--group", "1", "-o", "json").json
        tree = next(str(run["phylo_tree"]) for run in runs if run["phylo_tree"])
        words = tuple(tree if word == "TREE" else word for word in words)
    _require_output(shared_lab, words)


def _require_output(lab: ApiLab, words: Words) -> None:
    whole = lab(*words, "-o", "json", who="gadmin")
    assert whole.out, whole.err
    validator = validator_of(command_words(words))
    assert validator is not None
    assert validator.is_valid(whole.json)
    lines = lab(*words, "-o", "jsonl", who="gadmin").out.splitlines()
    assert isinstance(whole.json, dict) or len(lines) == len(whole.json) or "db" in words


# The command


def test_schema_command_prints_schema(cli: Cli) -> None:
    ended = cli("schema", "samples", "list")
    results = results_of(COMMANDS["samples", "list"])
    assert results is not None
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out) == schema_of(results, "aspencli samples list")
    fields = json.loads(ended.out)["items"]["properties"]
    assert fields["id"] == {"title": "Id", "type": "integer"}
    assert fields["private_identifier"]["type"] == ["string", "null"]
    assert fields["collection_date"]["format"] == "date"


def test_schema_command_lists_commands_with_json_output(cli: Cli) -> None:
    listed = {row["command"] for row in cli("schema", "-o", "json").json}
    assert listed == {name for name in WITH if name not in _SAME} | {"doctor", "schema"}
    below = cli("schema", "users", "roles", "-o", "json").json
    assert [row["command"] for row in below] == [
        f"users roles {v}" for v in ("list", "add", "remove")
    ]
    assert below[0]["columns"][:2] == ["group_id", "group"]
    table = cli("schema", "users", "roles", "-o", "table").out.splitlines()
    assert table[0].split() == ["Command", "Columns"]
    assert "group_id, group" in table[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("samples", "download"), "aspencli samples download has no JSON output."),
        (("samples", "nope"), "No such command 'nope'."),
    ],
)
def test_schema_command_refuses_others(cli: Cli, words: Words, message: str) -> None:
    ended = cli("schema", *words)
    assert (ended.code, ended.out) == (2, "")
    assert f"Error: {message}" in ended.err


def test_schema_command_loads_no_database(run_cli: CliRunner) -> None:
    ended = run_cli("schema", "db", "profile", "--jq", ".anyOf | length")
    assert (ended.code, ended.out, ended.err) == (0, "2\n", "")


# Types


def test_outcome_of_writes_is_one_of_the_known_words() -> None:
    results = results_of(COMMANDS["samples", "delete"])
    assert results is not None
    words = schema_of(results, "x")["items"]["properties"]["outcome"]["enum"]
    assert {"delete", "deleted", "unchanged", "failed"} <= set(words)


@pytest.mark.parametrize(
    ("of", "schema"),
    [
        (int | None, {"type": ["integer", "null"]}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (dict[str, Any], {"type": "object"}),
        (Any, {}),
        (str | Any, {}),
        (
            list[int] | None,
            {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        ),
    ],
)
def test_type_becomes_schema(of: Any, schema: dict[str, Any]) -> None:
    assert schema_of_type(of) == schema


def test_type_without_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON schema for"):
        schema_of_type(complex)


# The check itself


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "name": "Ada"},
        {"id": 1},
        {"id": 1, "name": "Ada", "more": 0},
        {"id": None, "name": "Ada"},
    ],
)
def test_check_refuses_output_that_breaks_schema(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = (Column("id", "Id", of=int), Column("name", "Name"))
    validator = Draft202012Validator(schema_of(Results((columns,)), "x"))
    monkeypatch.setattr(schema_check, "validator_of", lambda _words: validator)
    require_valid(["users", "list", "-o", "json"], '[{"id": 1, "name": null}]')
    with pytest.raises(AssertionError, match="users list: "):
        require_valid(["users", "list", "-o", "json"], json.dumps([row]))


def test_check_refuses_json_of_command_without_schema() -> None:
    with pytest.raises(AssertionError, match="prints JSON, but has no schema"):
        require_valid(["--env", "local", "auth", "token", "-o", "json"], "[]")


@pytest.mark.parametrize(
    ("arguments", "words", "form"),
    [
        (["--env", "prod", "user", "list", "-o", "json"], ("users", "list"), "json"),
        (["samples", "show", "list", "--output", "jsonl"], ("samples", "show"), "jsonl"),
        (["samples", "list", "-o", "json", "--columns", "id"], ("samples", "list"), None),
        (["db", "psql", "--", "-o", "json"], ("db", "psql"), None),
        (["history", "--target", "prod", "-o", "json"], ("history", "list"), "json"),
    ],
)
def test_check_recognizes_command(arguments: list[str], words: Words, form: str | None) -> None:
    assert command_words(arguments) == words
    assert asked_form(arguments) == form
