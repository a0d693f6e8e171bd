"""The server for assistants, as its client sees it, and what remains of its calls."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from typing import Any

import anyio
import pexpect
import pytest
import sqlalchemy as sa

pytest.importorskip("mcp", reason="the extra mcp is not installed")

from mcp import Client
from mcp_types import CallToolResult

from aspen.database.engine import Database
from tests import zygote
from tests.cli.assistant.lab import NAME, Assistant, rows, said, texts, until
from tests.cli.assistant.test_statements import NOT_ONE_READING, WITH_SIDE_EFFECTS
from tests.conftest import CliRunner, cli_environment

# A cross join that PostgreSQL works on for hours; the series does not fit in memory either.
ENDLESS = "select count(*) from generate_series(1, 1000000) a, generate_series(1, 1000000) b"


def _sessions(database: Database) -> list[str]:
    query = """SELECT query FROM pg_stat_activity WHERE datname = current_database()
                AND application_name LIKE 'aspencli/%' AND state = 'active'"""
    with database.reading() as session:
        return list(session.scalars(sa.text(query)))


def _contents(database: Database) -> list[Any]:
    query = (
        "SELECT count(*), max(id), md5(string_agg(s::text, '' ORDER BY id)) FROM aspen.samples s"
    )
    with database.reading() as session:
        return list(session.execute(sa.text(query)).one())


@pytest.fixture
def assistant(seeded: Database, aspen_home: Path) -> Assistant:
    """Return an assistant whose server's target ``local`` is the seeded database."""
    return Assistant(cli_environment(seeded), aspen_home)


@pytest.fixture
def new_assistant(aspen_home: Path) -> Callable[[Mapping[str, str]], Assistant]:
    """Return a function that returns an assistant whose server has other variables."""
    return lambda variables: Assistant(variables, aspen_home)


# Tools and results


def test_tools_only_read_and_say_so(assistant: Assistant) -> None:
    async def talk(client: Client) -> Any:
        return client.server_info, client.instructions, (await client.list_tools()).tools

    info, instructions, tools = assistant.run(talk)
    assert info.name == "aspencli"
    assert "never instructions" in instructions
    assert len(tools) > 40
    for tool in tools:
        assert tool.annotations.read_only_hint is True, tool.name
        assert tool.annotations.destructive_hint is False, tool.name
        assert tool.description, tool.name
        assert tool.input_schema["properties"]["env"]["enum"] == ["local", "rdev", "staging"]


def test_results_are_those_of_the_commands(
    assistant: Assistant, run_cli: CliRunner, seeded: Database
) -> None:
    pathogens, samples, status, sizes, profile = assistant.calls(
        [
            ("pathogens_list", {}),
            ("samples_list", {"limit": 5, "reverse": True}),
            ("db_status", {}),
            ("db_sizes", {"limit": 3}),
            ("db_profile", {"sql": "select id from samples", "explain": True}),
        ]
    )
    shown = run_cli("pathogens", "list", "-o", "json", database=seeded)
    assert rows(pathogens) == json.loads(shown.out)
    found = run_cli("samples", "list", "--limit", "5", "--reverse", "-o", "json", database=seeded)
    same = [{**row, "private_identifier": None, "uploaded_by": None} for row in rows(samples)]
    assert same == [
        {**row, "private_identifier": None, "uploaded_by": None} for row in json.loads(found.out)
    ]
    last = rows(samples)[-1]["id"]
    assert texts(samples)[1:] == ["5 of 60 samples shown", f"For the next page, pass after: {last}"]
    assert rows(status)[0]["verdict"] == "ready"
    assert len(rows(sizes)) == 3
    assert json.loads(texts(profile)[0])["totals"]["rows"] == 60


def test_personal_data_is_replaced_unless_a_person_shows_it(assistant: Assistant) -> None:
    wanted: list[tuple[str, Mapping[str, Any]]] = [
        ("users_list", {}),
        ("samples_list", {"limit": 3}),
    ]
    users, samples = map(rows, assistant.calls(wanted))
    clear_users, clear_samples = map(rows, assistant.calls(wanted, "--show-personal-data"))
    for masked, clear in zip(users, clear_users, strict=True):
        assert masked["id"] == clear["id"]
        assert masked["groups"] == clear["groups"]
        assert masked["email"].startswith("masked-")
        assert clear["email"] not in str(users)
        assert clear["name"] not in str(users)
    for masked, clear in zip(samples, clear_samples, strict=True):
        assert masked["public_identifier"] == clear["public_identifier"]
        assert clear["private_identifier"] not in str(samples)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_result_that_does_not_fit_in_memory_is_an_error(assistant: Assistant) -> None:
    huge = "select repeat('x', 10000000) from generate_series(1, 400)"
    found = said(assistant.call("db_profile", {"sql": huge}))
    assert found.startswith("The result does not fit into the 2 GB")
    assert "LIMIT" in found


def test_errors_say_what_to_do_next(
    assistant: Assistant, new_assistant: Callable[[Mapping[str, str]], Assistant]
) -> None:
    missing, unknown, column = assistant.calls(
        [
            ("users_show", {"key": "nobody@example.org"}),
            ("samples_lists", {}),
            ("db_profile", {"sql": "select nothing from samples"}),
        ]
    )
    assert "users list" in said(missing)
    assert said(unknown) == "No such tool: 'samples_lists'\nList the tools again."
    assert 'column "nothing" does not exist' in said(column)
    assert "Traceback" not in said(column)
    nowhere = new_assistant({"ASPEN_DATABASE_URL_LOCAL": "postgresql://x:y@127.0.0.1:1/none"})
    down = said(nowhere.call("db_status"))
    assert down.startswith("The database is not responding")
    assert "Check that it is running and reachable." in down


# The history


def test_every_call_is_in_the_history_with_the_assistant_and_without_secrets(
    assistant: Assistant, run_cli: CliRunner
) -> None:
    assistant.calls(
        [
            ("samples_list", {"search": "password=hunter2", "limit": 2}),
            ("db_profile", {"sql": "select 1 where 'LAB-secret' = 'x'"}),
            ("samples_list", {"write": True}),
            ("samples_list", {"env": "prod"}),
            ("db_profile", {"sql": "select nothing"}),
            ("no_such_tool", {"token": "xyzzy-token"}),
        ]
    )
    found = assistant.history()
    assert [(row["command"], row["outcome"]) for row in reversed(found)] == [
        ("samples list", "read"),
        ("db profile", "read"),
        ("samples list", "refused"),
        ("samples list", "refused"),
        ("db profile", "failed"),
        ("unknown tool", "refused"),
    ]
    assert {row["assistant"] for row in found} == {f"{NAME} 1.0"}
    assert {row["changed"] for row in found} == {0}
    first, second = (assistant.shown(row["run"]) for row in found[:-3:-1])
    assert first["assistant"] == f"{NAME} 1.0"
    assert first["argv"] == ("aspencli --env=local samples list '--search=password=***' --limit=2")
    assert "LAB-secret" not in second["argv"]
    assert "--sql=select 1 where" in second["argv"]
    assert "hunter2" not in (assistant.home / "state/history/journal.jsonl").read_text()
    assert "xyzzy" not in (assistant.home / "state/history/journal.jsonl").read_text()
    only = run_cli("history", "list", "--no-assistants", "-o", "json")
    assert json.loads(only.out) == []
    calls = run_cli("history", "list", "--assistants", "--limit", "2", "-o", "json")
    assert len(json.loads(calls.out)) == 2
    table = run_cli("history", "list", "--assistants", "-o", "table")
    assert table.out.splitlines()[0].split()[-1] == "Assistant"
    assert f"{NAME} 1.0" in table.out
    undone = run_cli("samples", "undo", found[-1]["run"], "--yes")
    assert undone.code == 2
    assert "wrote nothing" in undone.err


def test_call_is_refused_if_it_cannot_be_recorded(assistant: Assistant) -> None:
    journal = assistant.home / "state" / "history" / "journal.jsonl"
    journal.mkdir(parents=True)
    assert said(assistant.call("pathogens_list")).startswith("Cannot write the journal")


# Attempts to do more


SMUGGLED = (
    "--env=prod",
    "-o",
    "$(touch INJECTED)",
    "; touch INJECTED #",
    "'; delete from aspen.samples; --",
    "@/etc/passwd",
)


def test_text_stays_a_text(
    assistant: Assistant, seeded: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _contents(seeded)
    lists = assistant.calls([("samples_list", {"search": text}) for text in SMUGGLED])
    assert [rows(result) for result in lists] == [[] for _ in SMUGGLED]
    others = assistant.calls(
        [
            ("samples_list", {"search": "a\n--env=prod\n--write"}),
            ("samples_show", {"keys": [*SMUGGLED, "--yes"]}),
            ("users_show", {"key": "--yes"}),
            ("db_settings", {"words": ["--all", "--env=prod"]}),
        ]
    )
    newline, samples, user, settings = map(said, others)
    assert "invisible character" in newline
    assert "--yes" in samples
    assert "root:" not in samples
    assert "--yes" in user
    assert "--all" in settings
    assert {row["target"] for row in assistant.history()} == {"local"}
    assert not (tmp_path / "INJECTED").exists()
    assert _contents(seeded) == before


def test_target_is_one_that_is_allowed(assistant: Assistant) -> None:
    tried: list[tuple[Any, str]] = [
        ("prod", "Assistants may not read from prod"),
        ("PROD", "Unknown target"),
        ("local --env prod", "Unknown target"),
        ("local\n--write", "Unknown target"),
        ("", "Unknown target"),
        (["local"], "Unknown target"),
        ({"name": "prod"}, "Unknown target"),
        (7, "Unknown target"),
        ("rdev", "Target rdev requires a stack"),
    ]
    results = assistant.calls([("pathogens_list", {"env": env}) for env, _ in tried])
    for (env, message), result in zip(tried, results, strict=True):
        assert said(result).startswith(message), env


def test_stack_is_a_name(assistant: Assistant) -> None:
    stacks = ["x --env prod", "../prod", "-x", "a\nb", "x/y", ["a"]]
    wanted = [("pathogens_list", {"env": "rdev", "stack": stack}) for stack in stacks]
    results = assistant.calls([*wanted, ("pathogens_list", {"stack": "x"})])
    assert all("stack" in said(result) for result in results)
    assert said(results[-1]).startswith("Target local has no stacks")


def test_options_of_the_command_line_are_no_arguments(assistant: Assistant) -> None:
    names = ["write", "yes", "override_read_only", "output", "confirm", "api", "--env=prod"]
    for result in assistant.calls([("pathogens_list", {name: "x"}) for name in names]):
        assert said(result).startswith("Unknown argument")


def test_statements_that_do_more_than_read_are_refused(
    assistant: Assistant, seeded: Database, tmp_path: Path
) -> None:
    before = _contents(seeded)
    place = tmp_path / "x"
    tried = [
        *NOT_ONE_READING[2:8],
        *WITH_SIDE_EFFECTS[:2],
        # These pass the look at the text, and PostgreSQL refuses them in a read-only transaction.
        "with gone as (delete from aspen.samples returning id) select * from gone",
        "select * into aspen.copied from aspen.samples",
        "select * from aspen.samples for update",
    ]
    wanted = [("db_profile", {"sql": sql.replace("/tmp/x", str(place))}) for sql in tried]
    for sql, result in zip(tried, assistant.calls(wanted), strict=True):
        assert said(result), sql
    assert _contents(seeded) == before
    assert not place.exists()


def test_values_of_rows_do_not_leak_through_errors(assistant: Assistant, seeded: Database) -> None:
    with seeded.reading() as session:
        private = session.scalar(sa.text("SELECT min(private_identifier) FROM aspen.samples"))
    results = assistant.calls(
        [
            ("db_profile", {"sql": f"select ({value})::text::{kind} from samples order by id"})
            for value, kind in (
                ("private_identifier", "int"),
                ("'{' || private_identifier", "json"),
                ("private_identifier", "regclass"),
            )
        ]
    )
    assert all(str(private)[:5] not in said(result) for result in results)


# Production


def test_production_is_read_only_if_a_person_allows_it_by_name(
    new_assistant: Callable[[Mapping[str, str]], Assistant], seeded: Database, aspen_home: Path
) -> None:
    url = seeded.url.render_as_string(hide_password=False)
    assistant = new_assistant({"ASPEN_DATABASE_URL_PROD": url})
    wanted = [("pathogens_list", {"env": "prod", "via": "db"})]
    assert "--allow prod" in said(assistant.calls(wanted)[0])
    assert rows(assistant.calls(wanted, "--allow", "prod")[0])
    config = aspen_home / "config" / "config.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[defaults]\nmcp_allow = "prod"\n')
    assert rows(assistant.calls(wanted)[0])


def test_production_database_under_another_name_is_refused(
    new_assistant: Callable[[Mapping[str, str]], Assistant], seeded: Database, run_cli: CliRunner
) -> None:
    url = seeded.url.render_as_string(hide_password=False)
    both = {"ASPEN_DATABASE_URL_PROD": url, "ASPEN_DATABASE_URL_STAGING": url}
    by_address = said(new_assistant(both).call("pathogens_list", {"env": "staging", "via": "db"}))
    assert by_address.startswith("Assistants may not read from prod (as staging)")
    seen = run_cli("--env", "prod", "db", "status", env={"ASPEN_DATABASE_URL_PROD": url})
    assert seen.code == 0, seen.err
    # As through a tunnel: another address of the same database.
    other = {"ASPEN_DATABASE_URL_STAGING": url.replace("127.0.0.1", "localhost")}
    by_identity = new_assistant(other).call("pathogens_list", {"env": "staging", "via": "db"})
    assert said(by_identity).startswith("Assistants may not read from prod (as staging)")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--env", "prod", "mcp"), 3, "Assistants may not read from prod"),
        (("mcp", "--allow", "nowhere"), 6, "Unknown target: 'nowhere'"),
    ],
)
def test_server_does_not_start_for_a_target_that_is_not_allowed(
    run_cli: CliRunner, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run_cli(*arguments)
    assert done.code == code
    assert done.out == ""
    assert done.err.startswith(f"Error: {message}")


@pytest.mark.parametrize(
    "words",
    [
        ["users", "update", "1", "--name", "X", "--yes"],
        ["groups", "update", "1", "--name", "New name", "--yes", "--via", "db"],
        ["db", "upgrade", "--yes"],
        ["db", "profile", "--write", "--sql", "delete from aspen.samples"],
        ["db", "psql", "-c", "select 1", "--write"],
    ],
)
def test_process_of_a_call_refuses_to_write(
    seeded: Database, aspen_home: Path, words: list[str]
) -> None:
    before = _contents(seeded)
    outcome = _call(seeded, ["--env=local", *words])
    assert outcome["code"] == 3, outcome
    assert any("assistant" in note["text"] for note in outcome["notes"])
    assert _contents(seeded) == before


def _call(database: Database, words: list[str]) -> dict[str, Any]:
    request = {"words": words, "allowed": [], "target": "local", "sql": None}
    command = [sys.executable, "-m", "aspencli.cli.assistant.call"]
    env = {**os.environ, **cli_environment(database)}
    with Popen(command, env=env, stdin=PIPE, stdout=PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        found: dict[str, Any] = json.loads(process.stdout.read())
    return found


# The process


def test_standard_output_has_only_the_protocol(assistant: Assistant) -> None:
    with assistant.server() as server:
        server.ask(1, "tools/list", {})
        assert len(server.read()["result"]["tools"]) > 40
        server.ask(2, "tools/call", {"name": "db_doctor", "arguments": {}})
        assert server.read()["id"] == 2
        server.process.stdin.write(b"this is not JSON\n")  # type: ignore[union-attr]  # a pipe
        server.ask(3, "tools/call", {"name": "pathogens_list", "arguments": {}})
        assert until(lambda: server.read().get("id") == 3)
        server.process.stdin.close()  # type: ignore[union-attr]  # same
        assert server.process.wait(20) == 0
        rest = server.process.stdout.read()  # type: ignore[union-attr]  # same
    assert rest == b""
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in server.lines)


def test_canceled_call_ends_at_once(assistant: Assistant, seeded: Database) -> None:
    async def talk(client: Client) -> CallToolResult:
        with anyio.move_on_after(60) as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await anyio.to_thread.run_sync(lambda: until(lambda: _sessions(seeded)))
                    scope.cancel()

                tasks.start_soon(cancel)
                await client.call_tool("db_profile", {"sql": ENDLESS})
        assert scope.cancelled_caught
        await anyio.to_thread.run_sync(lambda: until(lambda: not _sessions(seeded), within=10))
        return await client.call_tool("pathogens_list", {})  # the server goes on

    assert rows(assistant.run(talk))
    outcomes = {row["command"]: row["outcome"] for row in assistant.history()}
    assert outcomes == {"pathogens list": "read", "db profile": "failed"}
    canceled = next(row for row in assistant.history() if row["command"] == "db profile")
    assert assistant.shown(canceled["run"])["message"] == "canceled by the assistant"


@pytest.mark.parametrize("how", ["closed", "terminated", "killed"])
def test_no_process_and_no_session_outlives_the_server(
    assistant: Assistant, seeded: Database, how: str
) -> None:
    with assistant.server() as server:
        server.ask(1, "tools/call", {"name": "db_profile", "arguments": {"sql": ENDLESS}})
        until(lambda: _sessions(seeded))
        children = server.children()
        assert children
        if how == "closed":
            server.process.stdin.close()  # type: ignore[union-attr]  # a pipe
        else:
            number = signal.SIGTERM if how == "terminated" else signal.SIGKILL
            server.process.send_signal(number)
        code = server.process.wait(10)
        until(lambda: not any(child.is_running() for child in children), within=10)
        until(lambda: not _sessions(seeded), within=10)
    assert code == {"closed": 0, "terminated": 143, "killed": -9}[how]
    (row,) = assistant.history()
    assert row["outcome"] == "failed"


def test_interrupt_at_a_terminal_ends_the_server(assistant: Assistant) -> None:
    server = zygote.at_terminal(["mcp"], env=assistant.env, encoding="utf-8", timeout=30)
    server.expect("Waiting for an assistant on standard input. Press Ctrl-C to stop.")
    time.sleep(1)  # so that it waits for input; the result is the same without
    server.sendintr()
    server.expect(pexpect.EOF)
    server.close()
    assert server.exitstatus == 130


def test_missing_extra_has_a_hint(assistant: Assistant, tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError('No module named mcp')\n")
    # A new interpreter, which has not loaded the extra yet.
    done = run(
        [sys.executable, "-m", "aspencli", "mcp"],
        env={**assistant.env, "PYTHONPATH": str(tmp_path)},
        stdin=DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: The server for assistants is not installed")
    assert "pip install 'aspencli[mcp]'" in done.stderr
