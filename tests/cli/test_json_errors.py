"""Errors as JSON: one object at the end of standard error, whatever ends the run."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aspen.database.engine import Database
from aspencli import __main__ as program
from aspencli import errors
from aspencli.cli.commands import config
from aspencli.cli.main import run
from aspencli.config import given_format
from tests import zygote

if TYPE_CHECKING:
    from tests.conftest import CliRunner

CliEnvironment = Callable[[Database | None], dict[str, str]]
KEYS = ["kind", "exit_code", "message", "details", "next_step"]


def _error(err: str) -> dict[str, Any]:
    """Return the error, which is the last line."""
    document = json.loads(err.splitlines()[-1])
    assert list(document) == ["error"]
    found: dict[str, Any] = document["error"]
    assert list(found) == KEYS
    return found


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_settings: object) -> None:
        raise error

    monkeypatch.setattr(config, "_rows", fail)


@pytest.mark.parametrize("form", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("raised", "code", "kind"),
    [
        (errors.AspenError, 1, "failed"),
        (errors.BadInputError, 2, "bad_input"),
        (errors.RefusedError, 3, "refused"),
        (errors.CredentialsError, 4, "credentials"),
        (errors.UnreachableError, 5, "unreachable"),
        (errors.UncertainError, 5, "uncertain"),
        (errors.NotFoundError, 6, "not_found"),
        (errors.ConflictError, 7, "conflict"),
    ],
)
def test_error_of_command_is_one_object(
    raised: type[errors.AspenError],
    code: int,
    kind: str,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _failing(monkeypatch, raised("it failed\x1b[31m", hint="fix\nit", details=["line 3"]))
    assert run(["config", "show", "-o", form]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "\x1b" not in err
    assert _error(err) == {
        "kind": kind,
        "exit_code": code,
        "message": "it failed\x1b[31m",
        "details": ["line 3"],
        "next_step": "fix\nit",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("samples", "list", "--colour", "-o", "json"), "No such option: --colour"),
        (("-ojson", "samples", "lits"), "No such command 'lits'"),
        (("users", "show", "--output=jsonl"), "Missing argument"),
        (("--output", "json", "samples"), "Missing command."),
        (("config", "show", "-o", "json", "extra"), "Unexpected argument: extra"),
        (("samples", "list", "--limit", "many", "-o", "json"), "'many' is not a valid int"),
        (("--env", "nope", "config", "show", "-o", "json"), "Unknown target: 'nope'"),
        (("--env", "prod", "config", "show", "-o", "json", "--local"), "--env was given twice"),
        (("config", "show", "-o", "json", "--columns", "x"), "Unknown column: x"),
    ],
)
def test_usage_error_is_one_object(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    found = _error(err)
    assert (found["kind"], found["exit_code"]) == ("bad_input", 2)
    assert message in found["message"]
    assert found["next_step"]


def test_bug_is_one_object_that_names_its_report(
    aspen_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, RuntimeError("out of cheese"))
    assert run(["config", "show", "-o", "json"]) == 1
    found = _error(capsys.readouterr().err)
    (report,) = (aspen_home / "state" / "crashes").iterdir()
    assert (found["kind"], found["message"]) == (
        "bug",
        "Bug in aspencli: RuntimeError: out of cheese",
    )
    assert str(report) in found["next_step"]


def test_setting_asks_for_json_errors_as_the_option_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASPEN_OUTPUT", "json")
    assert run(["samples", "lits"]) == 2
    assert _error(capsys.readouterr().err)["kind"] == "bad_input"
    assert run(["samples", "lits", "-o", "table"]) == 2
    assert capsys.readouterr().err.startswith("Error: No such command 'lits'")


def test_invalid_config_file_is_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("outptu = 1\n")
    monkeypatch.setenv("ASPEN_CONFIG", str(file))
    assert run(["config", "show", "-o", "json"]) == 2
    assert "Unknown key" in _error(capsys.readouterr().err)["message"]
    assert run(["config", "show"]) == 2
    assert capsys.readouterr().err.startswith("Error: Unknown key")


def test_result_that_sets_exit_code_ends_with_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--env", "staging", "target", "check", "-o", "json"]) == 4
    out, err = capsys.readouterr()
    assert json.loads(out)[0]["state"] == "failed"
    found = _error(err)
    assert (found["kind"], found["exit_code"]) == ("credentials", 4)
    assert "parts failed" in found["message"]


def test_answer_of_database_is_one_object(run_cli: CliRunner, seeded: Database) -> None:
    ended = run_cli("users", "show", "nobody@example.org", "-o", "json", database=seeded)
    assert (ended.code, ended.out) == (6, "")
    assert _error(ended.err)["kind"] == "not_found"
    url = "postgresql://postgres@127.0.0.1:9/aspen"
    ended = run_cli("users", "list", "-o", "json", env={"ASPEN_DATABASE_URL_LOCAL": url})
    found = _error(ended.err)
    assert (ended.code, found["kind"]) == (5, "unreachable")
    assert found["details"]


def test_failure_of_profiled_statement_is_one_object(run_cli: CliRunner, seeded: Database) -> None:
    words = ("db", "profile", "--sql", "SELECT 1 / 0", "-o", "json")
    ended = run_cli(*words, database=seeded)
    assert ended.code == 1
    assert json.loads(ended.out)["totals"]["failed"] == 1
    assert "division by zero" in _error(ended.err)["message"]


def test_failure_of_console_script_is_one_object(run_cli: CliRunner, seeded: Database) -> None:
    words = ("db", "interact", "-o", "json", "-c")
    ended = run_cli(*words, "session.execute(sa.text('SELECT 1 / 0'))", database=seeded)
    assert ended.code == 1
    assert "division by zero" in _error(ended.err)["message"]
    ended = run_cli(*words, "1 / 0", database=seeded)
    assert _error(ended.err)["message"] == "ZeroDivisionError: division by zero"
    ended = run_cli(*words, "raise SystemExit(3)", database=seeded)
    assert ended.code == 3
    assert _error(ended.err)["message"] == "The command ended with exit code 3."


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interruption_is_one_object(
    cli_env: CliEnvironment, seeded: Database, sent: signal.Signals, code: int
) -> None:
    words = (
        "db",
        "interact",
        "-o",
        "json",
        "-c",
        "print(1, flush=True); import time; time.sleep(60)",
    )
    process = zygote.start(
        words,
        env=cli_env(seeded),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.send_signal(sent)
    _out, err = process.communicate(timeout=60)
    found = _error(err)
    assert (process.returncode, found["exit_code"], found["kind"]) == (code, code, "interrupted")


def test_interrupt_while_program_loads_is_one_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_words: list[str]) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_may_need_secret", interrupted)
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_numbers: None)
    monkeypatch.setattr("sys.argv", ["aspencli", "samples", "list", "-o", "json"])
    with pytest.raises(SystemExit) as caught:
        program.main()
    assert caught.value.code == 130
    assert _error(capsys.readouterr().err)["kind"] == "interrupted"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "json"], "json"),
        (["samples", "--output=jsonl"], "jsonl"),
        (["-ojson"], "json"),
        (["--jq", ".", "-o", "jsonl"], "jsonl"),
        (["--jq", "."], None),
        (["-o", "json", "-o", "csv"], "csv"),
        (["-o"], None),
        (["--", "-o", "json"], None),
        (["db", "psql", "--", "-o", "json"], None),
        (["json"], None),
    ],
)
def test_format_is_recognized_in_any_command_line(words: list[str], expected: str | None) -> None:
    assert given_format(words) == expected
