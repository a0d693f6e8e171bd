"""The values that completion offers, without a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from aspen.database.engine import Database
from aspencli.cli.completion import tree
from aspencli.cli.completion.answer import TREE, Completer
from aspencli.cli.completion.values import KINDS, cache_file, load, store
from tests.conftest import CliRunner, cli_environment

HEAVY = ("typer", "rich", "sqlalchemy", "psycopg2", "httpx", "keyring", "boto3", "IPython")


def offered(line: str) -> list[str]:
    """Return the values that may follow a command line, whose last word is incomplete."""
    words = line.split(" ")
    return [
        name for name, _about in Completer(words).complete().names if name.startswith(words[-1])
    ]


def press_tab(
    line: str, env: Mapping[str, str] | None = None, *python: str
) -> subprocess.CompletedProcess[str]:
    """Run the program as a shell does."""
    variables = {"_ASPENCLI_COMPLETE": "values", "_ASPENCLI_WORDS": "\n".join(line.split(" "))}
    return subprocess.run(
        [sys.executable, *python, "-m", "aspencli"],
        env={**os.environ, **(env or {}), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def home(aspen_home: Path) -> Path:
    return aspen_home


def test_list_of_commands_is_current() -> None:
    assert TREE.read_text(encoding="utf-8") == tree.render(), "run: make docs"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("aspencli samp", ["samples"]),
        ("aspencli user sho", ["show"]),
        ("aspencli samples update-p", ["update-public-ids"]),
        ("aspencli samples update_public_ids --dry", ["--dry-run"]),
        ("aspencli --env", ["--env"]),
        ("aspencli --env p", ["prod"]),
        ("aspencli --env=p", ["--env=prod"]),
        ("aspencli groups list -o js", ["json", "jsonl"]),
        ("aspencli db doc", ["doctor"]),
        ("aspencli history --every", ["--everyone"]),
        ("aspencli help db pro", ["profile"]),
        ("aspencli jobs start q", ["qc"]),
        ("aspencli completion z", ["zsh"]),
        ("aspencli samples list -- --gr", []),
        ("aspencli config set outp", ["output"]),
        ("aspencli config set output j", ["json", "jsonl"]),
        ("aspencli config set targets.staging.wa", ["targets.staging.way"]),
        ("aspencli config set targets.staging.way s", ["ssh", "ssm"]),
        ("aspencli config set env st", ["staging"]),
    ],
)
def test_names_of_commands_and_options_are_offered(line: str, found: list[str]) -> None:
    assert offered(line) == found


def test_hidden_commands_and_options_are_not_offered() -> None:
    assert "get" not in offered("aspencli samples ")
    assert "user" not in offered("aspencli ")
    assert "--local" not in offered("aspencli --l")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("aspencli samples list --group ", "groups"),
        ("aspencli --org ", "groups"),
        ("aspencli groups show ", "groups"),
        ("aspencli users show ", "users"),
        ("aspencli samples show one ", "samples"),
        ("aspencli samples download --group G one ", "samples"),
        ("aspencli phylo-runs delete 1 ", "phylo_runs"),
        ("aspencli phylo-trees open ", "phylo_trees"),
        ("aspencli jobs show ", "phylo_runs"),
        ("aspencli samples list --pathogen ", "pathogens"),
        ("aspencli auth switch ", ""),
    ],
)
def test_stored_names_are_offered_where_they_belong(line: str, kind: str) -> None:
    assert Completer(line.split(" ")).complete().kind == kind


def test_targets_of_config_file_and_stacks_are_offered(home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text('[targets.qa]\nsafety = "shared"\n')
    store("rdev", "stacks", [("mine", ""), ("theirs", "")], is_production=False)
    assert offered("aspencli --env q") == ["qa"]
    assert offered("aspencli --stack th") == ["theirs"]
    assert offered("aspencli db copy --from prod --to rdev/m") == ["rdev/mine"]


def test_names_are_those_of_the_chosen_target(monkeypatch: pytest.MonkeyPatch) -> None:
    store("local", "groups", [("HERE", "")], is_production=False)
    store("staging", "groups", [("THERE", "")], is_production=False)
    store("rdev/mine", "groups", [("MINE", "")], is_production=False)
    assert offered("aspencli groups show ") == ["HERE"]
    assert offered("aspencli groups show --env staging ") == ["THERE"]
    assert offered("aspencli --env rdev --stack mine groups show ") == ["MINE"]
    monkeypatch.setenv("ASPEN_ENV", "staging")
    assert offered("aspencli groups show ") == ["THERE"]
    assert offered("aspencli --local groups show ") == ["HERE"]


def test_run_ids_come_from_history(seeded: Database, run_cli: CliRunner, tmp_path: Path) -> None:
    mapping = tmp_path / "ids.csv"
    with seeded.begin() as session:
        private = session.connection().exec_driver_sql(
            "SELECT private_identifier FROM aspen.samples WHERE submitting_group_id = 1 ORDER BY id"
        )
        mapping.write_text(f"private_identifier,public_identifier\n{private.scalar()},new-1\n")
    words = f"samples update-public-ids --group-id 1 -f {mapping} --yes".split()
    assert run_cli(*words, database=seeded).code == 0
    (run,) = offered("aspencli samples undo ")
    assert offered(f"aspencli history show {run[:10]}") == [run]


@pytest.mark.parametrize(
    ("words", "kind", "name"),
    [
        ("groups list", "groups", None),
        ("users list", "users", None),
        ("samples list --limit 3", "samples", None),
        ("pathogens list", "pathogens", "SC2"),
    ],
)
def test_lists_store_their_names(
    seeded: Database, run_cli: CliRunner, words: str, kind: str, name: str | None
) -> None:
    assert run_cli(*words.split(), database=seeded).code == 0
    names = [each for each, _about in load("local")[kind]["names"]]
    assert names
    assert name is None or name in names
    assert cache_file("local").stat().st_mode & 0o777 == 0o600


def test_nothing_personal_of_production_is_stored(seeded: Database, run_cli: CliRunner) -> None:
    address = cli_environment(seeded)["ASPEN_DATABASE_URL_LOCAL"]
    env = {"ASPEN_DATABASE_URL_PROD": address, "ASPEN_ENV": "prod"}
    for words in ("users list", "samples list --via db", "groups list"):
        assert run_cli(*words.split(), env=env).code == 0
    assert set(load("prod")) == {"groups"}
    assert "@" not in cache_file("prod").read_text()


def test_names_of_runs_on_production_are_not_stored() -> None:
    runs = [("61", "Outbreak at a school, COMPLETED")]
    for kind in ("jobs", "phylo_runs", "phylo_trees"):
        store("prod", kind, runs, is_production=True)
        store("staging", kind, runs, is_production=False)
        assert load("prod")[kind]["names"] == [["61", ""]]
        assert load("staging")[kind]["names"] == [list(runs[0])]


def test_first_tab_starts_refresh_in_background(seeded: Database) -> None:
    env = cli_environment(seeded)
    first = press_tab("aspencli samples list --group ", env)
    assert (first.returncode, first.stdout, first.stderr) == (0, "values\n", "")
    deadline = time.monotonic() + 60
    while not {"groups", "users", "samples"} <= set(load("local")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    second = press_tab("aspencli samples list --group ", env)
    assert len(second.stdout.splitlines()) > 2


@pytest.mark.parametrize("env", ["prod", "staging"])
def test_target_behind_secret_or_of_production_is_not_refreshed(env: str, seeded: Database) -> None:
    address = cli_environment(seeded)["ASPEN_DATABASE_URL_LOCAL"]
    given = {"ASPEN_DATABASE_URL_PROD": address}
    found = press_tab(f"aspencli --env {env} groups show ", given)
    assert found.stdout == "values\n"
    assert not cache_file(env).with_suffix(".refresh").exists()


@pytest.mark.parametrize(
    "line",
    ["aspencli groups show ", "aspencli --env nowhere users show ", "aspencli nothing --x ", ""],
)
def test_errors_are_not_shown_in_prompt(line: str, home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config" / "config.toml").write_text("this is not TOML")
    found = press_tab(line)
    assert (found.returncode, found.stderr) == (0, "")


def test_damaged_cache_is_ignored() -> None:
    path = cache_file("local")
    path.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"v": 1, "kinds": {"groups": 3}}', '{"v": 9}'):
        path.write_text(text)
        assert load("local") == {}
        assert offered("aspencli groups show ") == []
    store("local", "groups", [("LAKE", "Lake")], is_production=False)
    assert offered("aspencli groups show ") == ["LAKE"]


def test_cache_is_bounded_and_keeps_newest_names() -> None:
    many = [(f"S-{number:06}", "x" * 1000) for number in range(5_000)]
    store("local", "samples", many, is_production=False)
    store("local", "samples", [("NEW", ""), ("bad\nname", ""), ("", "")], is_production=False)
    names = load("local")["samples"]["names"]
    assert len(names) == KINDS["samples"]
    assert names[0] == ["NEW", ""]
    assert cache_file("local").stat().st_size < 1 << 20


def test_names_that_are_gone_disappear_with_complete_list() -> None:
    store("local", "groups", [("A", ""), ("B", "")], is_production=False)
    store("local", "groups", [("B", "")], is_production=False, whole=True)
    assert offered("aspencli groups show ") == ["B"]


def test_old_names_are_not_offered() -> None:
    store("local", "groups", [("A", "")], is_production=False)
    path = cache_file("local")
    kept = json.loads(path.read_text())
    kept["kinds"]["groups"]["at"] -= 40 * 86_400
    path.write_text(json.dumps(kept))
    assert offered("aspencli groups show ") == []


def test_completion_loads_no_command() -> None:
    store("local", "groups", [("LAKE", "")], is_production=False)
    done = press_tab("aspencli samples list --group L", None, "-X", "importtime")
    assert "LAKE" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {name for name in loaded if name.partition(".")[0] in HEAVY}
    assert "aspencli.cli.app" not in loaded
