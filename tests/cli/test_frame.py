"""The command line's general behavior, which all commands share."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aspen.database.engine import Database
from aspencli import __version__, errors
from aspencli.cli.app import load_group
from aspencli.cli.commands import config
from aspencli.cli.context import AppContext
from aspencli.cli.main import ENTRIES, run
from tests import zygote

if TYPE_CHECKING:
    from tests.conftest import CliRunner

SIGN_IN = ("httpx", "joserfc", "keyring", "filelock")
JOBS = ("augur", "Bio", "cogent3", "dbos", "edlib", "numpy", "pandas", "piqtree", "treetime")
HEAVY = (
    *("sqlalchemy", "psycopg2", "alembic", "boto3", "botocore", "IPython", "pydantic"),
    *SIGN_IN,
    *JOBS,
    *("mcp", "mcp_types", "anyio"),
)
CliEnvironment = Callable[[Database | None], dict[str, str]]


def _commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command, including hidden ones, with the words that call it."""
    for entry in ENTRIES:
        yield from _below((entry.name,), load_group(entry))


def _below(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below((*words, name), child)


COMMANDS = dict(_commands())
LEAVES = [words for words, command in COMMANDS.items() if not hasattr(command, "commands")]


# Help, version, names


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage: aspencli {' '.join(words)}".rstrip() in out
    assert err == ""
    assert (words == ()) == ("--no-input" in out)  # only the root help lists the global options
    assert words == () or "aspencli --help" in out


@pytest.mark.parametrize(
    "words",
    [words for words in LEAVES if words[0] in {"samples", "users", "groups", "auth"}],
    ids=" ".join,
)
def test_command_help_contains_example(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert "Example" in command.epilog
    assert command.hidden or words[-1] in command.epilog  # old spellings show the new one


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("-V",),
        ("version",),
        ("--env", "prod", "--version"),
        ("--env", "prod", "-V"),
        ("--env", "prod", "version"),
        ("samples", "list", "--version"),
    ],
)
def test_version_is_shown_from_any_position_on_command_line(
    run_cli: CliRunner, arguments: tuple[str, ...]
) -> None:
    result = run_cli(*arguments)
    assert (result.code, result.out, result.err) == (0, f"aspencli {__version__}\n", "")


@pytest.mark.parametrize("words", [(), ("samples",), ("config",)])
def test_missing_subcommand_shows_usage_and_exits_with_2(
    run_cli: CliRunner, words: tuple[str, ...]
) -> None:
    result = run_cli(*words)
    assert result.code == 2
    assert "Usage: aspencli" in result.out + result.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("smaples", "list"), "samples"), (("samples", "lits"), "list"), (("conf",), "config")],
)
def test_misspelled_command_gets_suggestion(
    words: tuple[str, ...], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    assert f"Did you mean '{meant}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("samples", "list", "--color"), ("users", "show"), ("config", "show", "extra")]
)
def test_usage_error_points_to_help(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("Error: ")
    assert f"See: aspencli {' '.join(words[:2])} --help" in err


@pytest.mark.parametrize(
    "words", [("sample", "list"), ("user", "list"), ("group", "list"), ("user", "create")]
)
def test_old_command_group_names_still_work(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    assert f"Usage: aspencli {words[0]}s {words[1]}" in capsys.readouterr().out


def test_aliases_are_not_listed_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    out = capsys.readouterr().out
    assert "│ users " in out
    assert "│ user " not in out


# Global options


@pytest.mark.parametrize(
    "arguments",
    [
        ("--env", "staging", "-o", "tsv", "config", "show"),
        ("config", "--env", "staging", "show", "--output", "tsv"),
        ("config", "show", "-o", "tsv", "--env=staging"),
        ("--env", "staging", "config", "show", "--env", "staging"),
    ],
)
def test_global_options_work_in_any_position(
    run_cli: CliRunner, arguments: tuple[str, ...]
) -> None:
    result = run_cli(*arguments)
    assert result.code == 0
    assert "env\tstaging\tflag --env\n" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--env", "staging", "config", "show", "--env", "prod"),
        ("--local", "config", "show", "--env", "prod"),
    ],
)
def test_two_values_for_one_global_option_exit_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--env was given twice" in err


@pytest.mark.parametrize(
    "words",
    [words for words in LEAVES if words[0] in {"samples", "users", "groups", "config", "auth"}],
    ids=" ".join,
)
def test_every_command_takes_every_global_option(words: tuple[str, ...]) -> None:
    taken = {name for param in COMMANDS[words].params for name in param.opts}
    assert {"--env", "--stack", "--org", "--output", "--yes", "--confirm", "--debug"} <= taken


# Exit codes and errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.AspenError, 1),
        (errors.BadInputError, 2),
        (errors.RefusedError, 3),
        (errors.CredentialsError, 4),
        (errors.UnreachableError, 5),
        (errors.NotFoundError, 6),
        (errors.ConflictError, 7),
    ],
)
def test_error_sets_exit_code_and_shows_hint(
    kind: type[errors.AspenError],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _failing(monkeypatch, kind("it [bold]failed\x1b[31m", hint="mend it", details=["line 3"]))
    assert run(["config", "show"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Error: it [bold]failed\\x1b[31m\n  line 3\n→ mend it\n"


def test_crash_report_is_written_and_private(
    aspen_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, RuntimeError("out of cheese"))
    before = os.umask(0)
    try:
        assert run(["config", "show"]) == 1
    finally:
        os.umask(before)
    err = capsys.readouterr().err
    (report,) = (aspen_home / "state" / "crashes").iterdir()
    assert str(report) in err
    assert "Bug in aspencli: RuntimeError: out of cheese" in err
    assert "Traceback" not in err
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    text = report.read_text()
    assert f"aspencli {__version__}" in text
    assert "Traceback" in text


def test_debug_option_shows_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, errors.NotFoundError("gone"))
    assert run(["config", "show", "--debug"]) == 6
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, KeyboardInterrupt())
    assert run(["config", "show"]) == 130
    err = capsys.readouterr().err
    assert "Interrupted" in err
    assert "Traceback" not in err


def test_database_connections_are_closed_at_end_of_command(
    monkeypatch: pytest.MonkeyPatch, seeded: Database
) -> None:
    address = seeded.url.render_as_string(hide_password=False)
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", address)
    with AppContext() as context:
        database = context.database()
        with database.reading() as session:
            session.connection()
        assert database.engine.pool.checkedin() == 1  # type: ignore[attr-defined] # a QueuePool
        pool = database.engine.pool
    assert pool.checkedin() == 0  # type: ignore[attr-defined] # a QueuePool


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_settings: object) -> None:
        raise error

    monkeypatch.setattr(config, "_rows", fail)


# Streams


@pytest.mark.parametrize("arguments", [("samples", "list", "-o", "jsonl"), ("config", "show")])
def test_closed_output_pipe_exits_with_0(
    cli_env: CliEnvironment, seeded: Database, arguments: tuple[str, ...]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)  # as when head has exited
    try:
        done = _spawn(*arguments, stdout=writer, env=cli_env(seeded))
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_reported_and_exits_with_1(cli_env: CliEnvironment) -> None:
    with Path("/dev/full").open("w") as full:
        done = _spawn("config", "show", stdout=full.fileno(), env=cli_env(None))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "bug" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_names_outside_locale_encoding_are_escaped(run_cli: CliRunner, seeded: Database) -> None:
    with seeded.begin() as session:
        session.connection().exec_driver_sql("UPDATE aspen.groups SET name = 'Łódź' WHERE id = 1")
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    for form, spelled in (("json", r"\u0141\u00f3d\u017a"), ("tsv", r"\u0141\xf3d\u017a")):
        result = run_cli("groups", "list", "-o", form, env=ascii_only, database=seeded)
        assert result.code == 0
        assert spelled in result.out
    table = run_cli("groups", "show", "1", "-o", "table", env=ascii_only, database=seeded)
    assert table.code == 0


def test_output_on_terminal_is_table_with_colors(cli_env: CliEnvironment) -> None:
    shown = _on_a_terminal(cli_env(None), "config", "show")
    assert "pathogen_slug" in shown
    assert "\x1b[" in shown


@pytest.mark.parametrize("wish", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_dumb_terminal_turn_colors_off(
    cli_env: CliEnvironment, wish: dict[str, str]
) -> None:
    shown = _on_a_terminal(cli_env(None) | wish, "config", "show")
    assert "pathogen_slug" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in _on_a_terminal(cli_env(None) | wish, "--env", "nope", "config", "show")


def _on_a_terminal(env: dict[str, str], *arguments: str) -> str:
    env = {"TERM": "xterm-256color", **env}
    env["TERM"] = env["TERM"] if env["TERM"] == "dumb" else "xterm-256color"
    child = zygote.at_terminal(
        arguments,
        env=env,
        encoding="utf-8",
        timeout=60,
        dimensions=(40, 140),
    )
    try:
        shown: str = child.read()
    finally:
        child.close()
    return shown


# Start-up


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("config", "show"),
        ("samples", "list", "--help"),
        ("users", "create", "--name"),
        ("smaples",),
    ],
)
def test_startup_loads_no_heavy_modules(
    arguments: tuple[str, ...], cli_env: CliEnvironment
) -> None:
    assert _loaded(cli_env(None), *arguments) == set()


def test_database_command_loads_no_sign_in_modules(
    cli_env: CliEnvironment, seeded: Database
) -> None:
    done = _spawn("groups", "list", env=cli_env(seeded), python=("-X", "importtime"))
    assert done.returncode == 0
    assert _among(done.stderr, SIGN_IN) == set()


@pytest.mark.parametrize("words", ["phylo-runs list", "phylo-trees --help", "samples list"])
def test_command_that_runs_no_jobs_loads_no_modules_of_jobs(
    cli_env: CliEnvironment, seeded: Database, words: str
) -> None:
    done = _spawn(*words.split(), env=cli_env(seeded), python=("-X", "importtime"))
    assert done.returncode == 0
    assert _among(done.stderr, JOBS) == set()


@pytest.mark.parametrize("argument", ["--version", "-V", "version"])
def test_version_does_not_load_typer(argument: str, cli_env: CliEnvironment) -> None:
    done = _spawn(argument, env=cli_env(None), python=("-X", "importtime"))
    assert "typer" not in done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("aspencli sam", "samples"),
        ("aspencli samples l", "list"),
        ("aspencli user cr", "create"),
        ("aspencli --env st", "staging"),
        ("aspencli config show --output js", "jsonl"),
        ("aspencli hel", "help"),
        ("aspencli vers", "version"),
        ("aspencli help sam", "samples"),
        ("aspencli help db pro", "profile"),
        ("aspencli help vers", "version"),
    ],
)
def test_completion_offers_names_without_heavy_modules(
    words: str, offered: str, cli_env: CliEnvironment
) -> None:
    env = cli_env(None) | {
        "_ASPENCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = _spawn(env=env, python=("-X", "importtime"))
    assert offered in done.stdout.split()
    assert _heavy(done.stderr) == set()


@pytest.mark.parametrize(
    "words",
    ["pathogens list", "groups list", "groups show 1", "users list", "samples list --group 1"],
)
def test_short_list_loads_no_orm(cli_env: CliEnvironment, seeded: Database, words: str) -> None:
    script = (
        "import sys\n"
        "from aspencli.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "heavy = {'sqlalchemy.orm', 'aspen.database.models', 'aspencli.cli.changes'}\n"
        "sys.exit(code or ', '.join(heavy & set(sys.modules)) or None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.split()],
        env=cli_env(seeded),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_help_loads_no_heavy_modules(cli_env: CliEnvironment) -> None:
    script = (
        "import sys\n"
        "from aspencli.cli.main import run\n"
        "for words in sys.argv[1:]:\n"
        "    run([*words.split(), '--help'])\n"
        f"    heavy = sorted({set(HEAVY)!r} & set(sys.modules))\n"
        "    if heavy:\n"
        "        sys.exit(f'{words} loads {heavy}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(" ".join, COMMANDS)],
        env=cli_env(None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def _loaded(env: dict[str, str], *arguments: str) -> set[str]:
    return _heavy(_spawn(*arguments, env=env, python=("-X", "importtime")).stderr)


def _heavy(importtime: str) -> set[str]:
    return _among(importtime, HEAVY)


def _among(importtime: str, names: tuple[str, ...]) -> set[str]:
    lines = (line for line in importtime.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines} & set(names)


def _spawn(
    *arguments: str,
    env: dict[str, str],
    python: tuple[str, ...] = (),
    stdout: int = subprocess.PIPE,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, "-m", "aspencli", *arguments],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
