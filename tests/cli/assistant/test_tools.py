"""The tools of an assistant: what is offered of the commands, and how values become words."""

from __future__ import annotations

from typing import Any

import pytest

from aspencli.cli.assistant.tools import LISTED, Tool, all_tools
from aspencli.cli.main import command
from aspencli.errors import BadInputError
from tests.cli.commands.test_writes_alike import WRITES

TOOLS = all_tools(command())
# Whatever is added here can be given by an assistant, who may follow someone else's instructions.
OFFERED = {
    "samples_list": "group pathogen private collected_after collected_before location search sort "
    "reverse limit after via",
    "samples_show": "keys group by via",
    "users_list": "group role system_admin search limit after",
    "users_show": "key",
    "users_roles_list": "key group database_only",
    "groups_list": "",
    "groups_show": "group via",
    "groups_members": "group via",
    "groups_invites": "group",
    "phylo_runs_list": "group pathogen via",
    "files_list": "kinds run tree group limit",
    "files_show": "file tree",
    "files_check": "kinds min_age",
    "jobs_list": "kind state group since limit",
    "jobs_show": "job",
    "jobs_why": "job",
    "jobs_logs": "job step",
    "jobs_outputs": "job",
    "jobs_schedule_list": "",
    "usher_get_tree_versions": "via",
    "locations_list": "depth via",
    "locations_search": "region country division location via",
    "pathogens_list": "via",
    "lineages_list_pango": "",
    "history_list": "target everyone assistants limit",
    "history_show": "run_id",
    "history_verify": "",
    "db_status": "",
    "db_current": "",
    "db_history": "",
    "db_check": "",
    "db_activity": "everything",
    "db_locks": "",
    "db_outliers": "by limit",
    "db_sizes": "limit",
    "db_indexes": "only everything",
    "db_bloat": "limit",
    "db_settings": "words everything",
    "db_doctor": "strict",
    "db_profile": "sql explain top min_ms budget",
    "target_list": "",
    "target_check": "",
    "stacks_list": "",
    "local_status": "check",
}


def test_only_listed_arguments_are_offered() -> None:
    assert {name: " ".join(tool.arguments) for name, tool in TOOLS.items()} == OFFERED


def test_no_writing_command_is_a_tool() -> None:
    listed = {" ".join(each.words) for each in LISTED}
    assert not listed.intersection(name.partition(" --")[0] for name in WRITES)
    assert not listed.intersection({"db psql", "db interact", "db tunnel", "auth token"})


@pytest.mark.parametrize("tool", TOOLS.values(), ids=lambda tool: tool.name)
def test_schema_follows_from_the_command(tool: Tool) -> None:
    schema = tool.schema(["local", "staging"], "local")
    assert schema["additionalProperties"] is False
    assert schema["properties"]["env"]["enum"] == ["local", "staging"]
    assert "stack" not in schema["properties"]
    params = {param.name: param for param in tool.command.params}
    for name, argument in tool.arguments.items():
        about = schema["properties"][name]
        assert params[name].param_type_name == "argument" or about["description"]
        assert (name in schema.get("required", ())) == argument.required
    assert tool.description.startswith(tool.command.help.strip().split("\n")[0].split("  ")[0][:20])
    assert "--write" not in tool.description


@pytest.mark.parametrize(
    ("tool", "given", "words"),
    [
        ("samples_list", {}, "--limit=100"),
        ("samples_list", {"limit": 5, "reverse": True}, "--limit=5 --reverse"),
        ("samples_list", {"private": True, "limit": 1}, "--private --limit=1"),
        ("samples_list", {"private": False, "limit": 1}, "--public --limit=1"),
        ("samples_list", {"search": "--env=prod", "limit": 1}, "--search=--env=prod --limit=1"),
        ("files_list", {"kinds": ["tree", "log"], "limit": 1}, "--kind=tree --kind=log --limit=1"),
        ("samples_show", {"keys": ["--yes", "-o"], "by": "id"}, "--by=id -- --yes -o"),
        ("db_settings", {"words": []}, ""),
        ("db_doctor", {"strict": False}, ""),
    ],
)
def test_values_become_words_that_are_no_options(
    tool: str, given: dict[str, Any], words: str
) -> None:
    name = list(TOOLS[tool].listed.words)
    assert TOOLS[tool].words(given) == [*name, *words.split()]


@pytest.mark.parametrize(
    ("tool", "given", "message"),
    [
        ("samples_list", {"write": True}, "Unknown argument of samples_list: 'write'"),
        ("samples_list", {"everything": True}, "Unknown argument of samples_list: 'everything'"),
        ("db_profile", {"sql": "select 1", "script": "x.py"}, "Unknown argument"),
        ("db_profile", {"sql": "select 1", "params": True}, "Unknown argument"),
        ("db_profile", {}, "db_profile requires the argument sql"),
        ("samples_show", {"keys": []}, "samples_show requires the argument keys"),
        ("samples_show", {"keys": "7"}, "Invalid value for keys: it must be a list"),
        ("samples_show", {"keys": [7]}, "Invalid value for keys: it must be a string"),
        ("samples_show", {"keys": ["-"]}, "Invalid value for keys: '-'"),
        ("samples_show", {"keys": ["x"] * 501}, "keys has more than 500 values"),
        ("samples_list", {"limit": 0}, "Invalid value for limit: it must be at least 1"),
        ("samples_list", {"limit": 501}, "Invalid value for limit: it must be at most 500"),
        ("samples_list", {"limit": "5"}, "Invalid value for limit: it must be an integer"),
        ("samples_list", {"limit": True}, "Invalid value for limit: it must be an integer"),
        ("samples_list", {"sort": "id; drop"}, "Invalid value for sort: 'id; drop' (choose id,"),
        ("samples_list", {"search": "a\x00b"}, "Invalid value for search: it has control"),
        ("samples_list", {"search": "x" * 20_001}, "search is longer than 20,000 characters"),
        ("files_show", {"file": "s3://other/key"}, "Invalid value for file: 's3://other/key'"),
        ("jobs_show", {"job": " FILE:///etc/passwd"}, "Invalid value for job"),
    ],
)
def test_invalid_arguments_are_refused(tool: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInputError) as refused:
        TOOLS[tool].words(given)
    assert refused.value.message.startswith(message)
