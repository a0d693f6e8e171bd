"""``--quiet``, ``--verbose``, NO_COLOR, and FORCE_COLOR."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from aspen.database.engine import Database
from aspencli.cli.main import run

if TYPE_CHECKING:
    from tests.cli.commands.api_lab import ApiLab
    from tests.cli.commands.conftest import Cli
    from tests.conftest import CliRunner

COLOR = re.compile(r"\x1b\[[\d;]*m")
PERSON = ("--name", "New", "--email", "new@example.org", "--auth0-user-id", "auth0|new")
CREATE = ("users", "create", "--via", "db", *PERSON, "--group", "1")


# Quiet


def test_quiet_shows_only_results(cli: Cli) -> None:
    loud = cli("samples", "list", "--limit", "2")
    quiet = cli("samples", "list", "--limit", "2", "--quiet")
    assert "2 of 60 samples shown" in loud.err
    assert (quiet.code, quiet.out, quiet.err) == (0, loud.out, "")


def test_quiet_write_shows_only_its_result(cli: Cli) -> None:
    planned = cli(*CREATE, "--dry-run", "--quiet", "-o", "json")
    assert (planned.json[0]["outcome"], planned.err) == ("create", "")
    done = cli("--quiet", *CREATE, "--yes", "-o", "json")
    assert (done.code, done.json[0]["outcome"], done.err) == (0, "created", "")


def test_quiet_keeps_errors_with_their_next_step(cli: Cli) -> None:
    ended = cli("users", "show", "missing@example.org", "--quiet")
    assert (ended.code, ended.out) == (6, "")
    assert ended.err.startswith("Error: ")
    refused = cli(*CREATE, "--quiet")
    assert refused.code == 3
    assert refused.err.splitlines() == [
        refused.err.splitlines()[0],
        "→ Review the plan with --dry-run, then pass --yes.",
    ]


def test_quiet_keeps_warnings(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH0_MANAGEMENT_DOMAIN", "example.org")
    ended = cli("config", "show", "--quiet")
    assert ended.err.startswith("Warning: AUTH0_MANAGEMENT_DOMAIN will be ignored")


def test_quiet_and_verbose_contradict_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "--quiet", "--verbose"]) == 2
    assert "--quiet and --verbose cannot be combined." in capsys.readouterr().err


# Verbose


def test_verbose_shows_connections_and_statements(run_cli: CliRunner, seeded: Database) -> None:
    url = seeded.url
    ended = run_cli("groups", "list", "--verbose", "-o", "json", database=seeded)
    assert ended.code == 0, ended.err
    assert len(json.loads(ended.out)) > 1
    where = f"{url.username}@{url.host}:{url.port}/{url.database}"
    assert re.search(rf"^Connected to {re.escape(where)} in [\d.]+ m?s\.$", ended.err, re.M)
    assert re.search(
        r"^Took [\d.]+ m?s\. Database: 1 connection in [\d.]+ m?s, [1-9]\d* statements? in ",
        ended.err.splitlines()[-1],
    )
    assert url.password
    assert str(url.password) not in ended.err
    assert "SELECT" not in ended.err


def test_verbose_shows_target_and_requests_without_secrets(shared_lab: ApiLab) -> None:
    ended = shared_lab("users", "me", "--verbose", "-o", "json")
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert lines[0] == "Target: local (API)"
    assert re.search(r"^GET http://127\.0\.0\.1:\d+/v2/users/me: 200 in [\d.]+ m?s\.$", lines[1])
    assert re.search(r"API: 1 request in [\d.]+ m?s\.$", lines[-1])
    assert not re.search("bearer|token|eyJ", ended.err, re.IGNORECASE)


def test_verbose_ends_with_the_error_as_json(cli: Cli) -> None:
    ended = cli("users", "show", "missing@example.org", "--verbose", "-o", "json")
    assert ended.error["kind"] == "not_found"
    assert "Took " in ended.err


def test_nothing_is_counted_without_verbose(cli: Cli) -> None:
    assert cli("groups", "list").err == ""


# Color


@pytest.mark.parametrize(
    ("env", "is_colored"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"FORCE_COLOR": ""}, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
@pytest.mark.parametrize(
    ("words", "stream"),
    [
        (("config", "show", "-o", "table"), "out"),
        (("target", "list", "-o", "table", "--columns", "name,safety"), "out"),
        (("samples", "--help"), "out"),
        (("help", "samples"), "out"),
        (("samples",), "err"),
        (("samples", "lits"), "err"),
    ],
)
def test_color_through_pipe_follows_variables(
    words: tuple[str, ...],
    stream: str,
    env: dict[str, str],
    is_colored: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    run(words)
    captured: Any = capsys.readouterr()
    shown = getattr(captured, stream)
    assert shown
    assert bool(COLOR.search(shown)) == is_colored


@pytest.mark.parametrize("form", ["json", "tsv", "csv"])
def test_machine_formats_never_have_color(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run(["config", "show", "-o", form]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_forced_color_reaches_a_real_pipe(run_cli: CliRunner) -> None:
    env = {"FORCE_COLOR": "1", "NO_COLOR": ""}
    ended = run_cli("config", "show", "-o", "table", env=env)
    assert COLOR.search(ended.out)
    assert COLOR.search(run_cli("--help", env=env).out)
    assert COLOR.search(run_cli("samples", "lits", env=env).err)
