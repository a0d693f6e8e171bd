"""Console sessions that may write on shared and production targets: reason, record, statements."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.postgres.binaries import find_binaries
from aspencli.admin.psql_log import statements
from tests import zygote
from tests.conftest import CliResult, CliRunner

_PERSON = "Jane Doe"
_ADD = f"INSERT INTO pathogens (slug, name) VALUES ('ZZ', '{_PERSON}')"
_CODE = f"session.execute(sa.text({_ADD!r})); session.commit()"
_REASON = "ticket 42: a missing pathogen"
_PATIENCE_S = 60.0

Run = Callable[..., CliResult]


@pytest.fixture
def environment(database: Database) -> dict[str, str]:
    path = os.pathsep.join([os.environ["PATH"], str(find_binaries().bindir)])
    address = database.url.render_as_string(hide_password=False)
    return {"ASPEN_DATABASE_URL_STAGING": address, "PATH": path}


@pytest.fixture
def staging(run_cli: CliRunner, environment: dict[str, str]) -> Run:
    """Return a function that runs a command on a shared target."""
    return lambda *words, **options: run_cli("--env", "staging", *words, env=environment, **options)


def interact(*more: str, code: str = _CODE) -> tuple[str, ...]:
    return ("db", "interact", "--write", "--yes", *more, "-c", code)


def psql(*more: str, sql: str = _ADD) -> tuple[str, ...]:
    return ("db", "psql", "--write", "--yes", *more, "-c", sql)


def profile(*more: str, code: str = _CODE) -> tuple[str, ...]:
    return ("db", "profile", "--write", "--commit", "--yes", *more, "-c", code)


def tunnel(*more: str, sql: str = _ADD) -> tuple[str, ...]:
    return (
        "db",
        "tunnel",
        "--write",
        "--yes",
        *more,
        "--",
        "psql",
        "-c",
        f"SET search_path = aspen; {sql}",
    )


def only(staging: Run) -> dict[str, Any]:
    """Return all that is known of the only run."""
    (run,) = json.loads(staging("history", "list", "-o", "json").out)
    (found,) = json.loads(staging("history", "show", run["run"], "-o", "json").out)
    assert isinstance(found, dict)
    return found


def slugs(database: Database) -> set[str]:
    with database.reading() as session:
        return set(session.scalars(sa.text("SELECT slug FROM aspen.pathogens")))


def journal_of(aspen_home: Path) -> str:
    path = aspen_home / "state" / "history" / "journal.jsonl"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    "words",
    [interact(), psql(), profile(), tunnel(), ("db", "profile", "--write", "--sql", _ADD, "--yes")],
    ids=["interact", "psql", "profile", "tunnel", "rehearsal"],
)
def test_session_that_may_write_requires_a_reason_without_a_terminal(
    staging: Run, database: Database, aspen_home: Path, words: tuple[str, ...]
) -> None:
    refused = staging(*words)
    assert (refused.code, refused.out) == (3, ""), refused.err
    assert re.search("A reason is required to (open|profile)", refused.err)
    assert "Pass --reason TEXT" in refused.err
    assert "ZZ" not in slugs(database)
    assert journal_of(aspen_home) == ""


@pytest.mark.parametrize(
    ("words", "command", "shown"),
    [
        (
            interact("--reason", _REASON),
            "db interact",
            "INSERT INTO pathogens (slug, name) VALUES ('...', '...')",
        ),
        (
            psql("--reason", _REASON),
            "db psql",
            "INSERT INTO pathogens (slug, name) VALUES ('...', '...')",
        ),
        (
            profile("--reason", _REASON),
            "db profile",
            "INSERT INTO pathogens (slug, name) VALUES ('...', '...')",
        ),
    ],
    ids=["interact", "psql", "profile"],
)
def test_session_is_recorded_with_its_reason_and_statements(
    staging: Run,
    database: Database,
    aspen_home: Path,
    words: tuple[str, ...],
    command: str,
    shown: str,
) -> None:
    done = staging(*words)
    assert done.code == 0, done.err
    assert "ZZ" in slugs(database)
    run = only(staging)
    assert (run["command"], run["outcome"], run["reason"]) == (command, "written", _REASON)
    assert shown in run["statements"]
    assert run["target"] == "staging"
    for path in (aspen_home / "state").rglob("*"):
        assert not path.is_file() or _PERSON not in path.read_text(errors="replace"), path


def test_profile_that_is_rolled_back_is_recorded_so(staging: Run, database: Database) -> None:
    words = ("db", "profile", "--write", "--yes", "--reason", _REASON)
    done = staging(*words, "--sql", _ADD)
    assert done.code == 0, done.err
    assert "ZZ" not in slugs(database)
    run = only(staging)
    assert (run["command"], run["outcome"], run["reason"]) == ("db profile", "rolled back", _REASON)
    assert "INSERT INTO pathogens (slug, name) VALUES ('...', '...')" in run["statements"]


def test_failing_profile_is_recorded_with_its_exit_code(staging: Run) -> None:
    done = staging(*profile("--reason", "break", code=f"{_CODE}; 1 / 0"))
    assert done.code == 1
    run = only(staging)
    assert (run["outcome"], run["message"]) == ("written", "exit code 1")


def test_tunnel_with_write_access_is_recorded_without_statements(
    staging: Run, database: Database, aspen_home: Path
) -> None:
    done = staging(*tunnel("--reason", _REASON))
    assert done.code == 0, done.err
    assert "ZZ" in slugs(database)
    run = only(staging)
    assert (run["command"], run["outcome"], run["reason"]) == ("db tunnel", "written", _REASON)
    assert run["message"] == "what other programs wrote is not recorded here"
    assert run["statements"] == []
    assert _PERSON not in journal_of(aspen_home)
    assert not (aspen_home / "state" / "statements").exists()


def test_command_in_a_tunnel_keeps_its_exit_code_and_output(staging: Run) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    words = ("db", "tunnel", "--write", "--yes", "--reason", "x", "--", "python3", "-c", code)
    done = staging(*words)
    assert (done.code, done.out) == (7, "out\n")
    assert "err" in done.err.splitlines()
    assert only(staging)["message"].startswith("exit code 7; ")


def test_tunnel_that_cannot_connect_has_changed_nothing(
    run_cli: CliRunner, environment: dict[str, str], aspen_home: Path
) -> None:
    away = {**environment, "ASPEN_DATABASE_URL_STAGING": "postgresql://x@127.0.0.1:1/x"}
    ended = run_cli("--env", "staging", *tunnel("--reason", "x"), env=away)
    assert ended.code == 5, ended.err
    (last,) = [
        event["outcome"]
        for event in map(json.loads, journal_of(aspen_home).splitlines())
        if event["event"] == "ended"
    ]
    assert last == "rolled back"


def test_session_that_only_reads_has_nothing_to_do(staging: Run) -> None:
    done = staging(*interact("--reason", "look", code="print(session.query(User).count())"))
    assert done.code == 0, done.err
    run = only(staging)
    assert run["outcome"] == "nothing to do"
    assert any("FROM aspen.users" in each for each in run["statements"])


def test_repeated_and_failed_statements_are_counted(staging: Run) -> None:
    code = (
        "for n in range(30): session.execute(sa.text('SELECT :n'), {'n': n})\n"
        "try: session.execute(sa.text('DELETE FROM nowhere'))\n"
        "except Exception: session.rollback()"
    )
    assert staging(*interact("--reason", "count", code=code)).code == 0
    found = only(staging)["statements"]
    assert "30 times: SELECT %(n)s" in found
    assert "DELETE FROM nowhere (1 failed)" in found


def test_failing_script_is_recorded_with_its_exit_code(staging: Run) -> None:
    done = staging(*interact("--reason", "break", code=f"{_CODE}; 1 / 0"))
    assert done.code == 1
    run = only(staging)
    assert (run["outcome"], run["message"]) == ("written", "exit code 1")


def test_session_that_cannot_connect_has_changed_nothing(
    run_cli: CliRunner, environment: dict[str, str], staging: Run
) -> None:
    wrong = {"ASPEN_DATABASE_URL_STAGING": "postgresql://x@127.0.0.1:1/x"}
    done = run_cli("--env", "staging", *interact("--reason", "try"), env={**environment, **wrong})
    assert done.code == 5
    assert only(staging)["outcome"] == "rolled back"


def test_declined_session_is_recorded_as_declined(staging: Run) -> None:
    words = ("db", "psql", "--write", "--reason", "none", "-c", _ADD)
    assert staging(*words).code == 3
    assert only(staging)["outcome"] == "declined"


def test_local_sessions_are_recorded_only_with_a_reason(
    run_cli: CliRunner, database: Database, aspen_home: Path
) -> None:
    assert run_cli(*interact(), database=database).code == 0
    assert journal_of(aspen_home) == ""
    done = run_cli(
        *interact("--reason", "for the record", code="session.commit()"), database=database
    )
    assert done.code == 0, done.err
    assert "for the record" in journal_of(aspen_home)


def test_reading_sessions_are_not_recorded(staging: Run, aspen_home: Path) -> None:
    assert staging("db", "psql", "-c", "SELECT 1").code == 0
    assert staging("db", "interact", "-c", "session.execute(sa.text('SELECT 1'))").code == 0
    assert journal_of(aspen_home) == ""


def test_blank_reason_is_refused(staging: Run) -> None:
    assert staging(*psql("--reason", "  ")).code == 2


def test_secret_in_the_reason_is_masked(staging: Run, aspen_home: Path) -> None:
    assert staging(*psql("--reason", "password=s3cr3t-H0rse", sql="SELECT 1")).code == 0
    assert "s3cr3t" not in journal_of(aspen_home)


def test_psql_keeps_its_exit_code_and_output(staging: Run) -> None:
    failed = staging(*psql("--reason", "fail", sql="SELECT 1/0"))
    assert failed.code == 1
    assert "division by zero" in failed.err
    shown = staging(*psql("--reason", "look", sql="SELECT 7"), "--", "-At")
    assert (shown.code, shown.out) == (0, "7\n")
    piped = staging(
        "db",
        "psql",
        "--write",
        "--yes",
        "--reason",
        "script",
        "--",
        "-At",
        input="SELECT 8;\nSELECT 1/0;\nSELECT 9;\n",
    )
    assert (piped.code, piped.out) == (3, "8\n")


def test_statements_of_psql_scripts_are_recorded(staging: Run, tmp_path: Path) -> None:
    script = tmp_path / "script.sql"
    script.write_text(
        "\\set who 'Jane Doe'\n"
        "SELECT :'who' AS \"a name\";\n"
        "BEGIN;\n"
        "UPDATE aspen.users\n   SET name = 'Jane Doe' -- Jane Doe\n WHERE id = 7;\n"
        "ROLLBACK;\n"
        "\\copy (SELECT 1) TO /dev/null\n"
    )
    done = staging("db", "psql", "--write", "--yes", "--reason", "x", "--", "-f", str(script))
    assert done.code == 0, done.err
    assert only(staging)["statements"] == [
        "SELECT '...' AS \"a name\";",
        "BEGIN;",
        "UPDATE aspen.users SET name = '...' WHERE id = 7;",
        "ROLLBACK;",
        "COPY ( SELECT 1 ) TO STDOUT",
    ]


def test_own_log_file_of_psql_is_written_too(staging: Run, tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    words = psql("--reason", "log", sql="SELECT 7 AS lucky")
    done = staging(*words, "--", "-L", str(log))
    assert done.code == 0, done.err
    assert "lucky" in log.read_text()
    assert only(staging)["statements"] == ["SELECT 7 AS lucky"]


def test_statements_of_a_killed_session_are_known(
    staging: Run, environment: dict[str, str], aspen_home: Path
) -> None:
    code = (
        "session.execute(sa.text('SELECT 42')); import time; print('ready', flush=True);"
        "time.sleep(600)"
    )
    process = zygote.start(
        ("--env", "staging", *interact("--reason", "killed", code=code)),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        process.wait()
    run = only(staging)
    assert (run["outcome"], run["statements"]) == ("unknown", ["SELECT 42"])


def test_terminated_psql_session_ends_psql_and_its_record(
    staging: Run, environment: dict[str, str], database: Database
) -> None:
    process = zygote.start(
        ("--env", "staging", *psql("--reason", "stop", sql="SELECT pg_sleep(600)")),
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(600)'")

    def running() -> int:
        with database.reading() as session:
            return int(session.scalar(query) or 0)

    deadline = time.monotonic() + _PATIENCE_S
    while not running():
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    while running():
        assert time.monotonic() < deadline
    assert only(staging)["outcome"] in {"unfinished", "rolled back"}


def test_edited_statements_are_found(staging: Run, aspen_home: Path) -> None:
    assert staging(*psql("--reason", "x")).code == 0
    assert staging("history", "verify").code == 0
    (path,) = (aspen_home / "state" / "statements").glob("*")
    path.write_text(path.read_text().replace("INSERT", "SELECT"))
    found = staging("history", "verify", "-o", "json")
    assert found.code == 7
    (problem,) = json.loads(found.out)
    assert problem["problem"] == "its statements were edited or removed"


@pytest.mark.parametrize("kind", ["interact", "psql", "tunnel"])
def test_name_of_a_writing_session_leads_to_its_run(staging: Run, kind: str) -> None:
    if kind == "tunnel":
        words = tunnel("--reason", "x")
        done = staging(*words[:-1], "SHOW application_name", "-At")
    elif kind == "psql":
        done = staging(*psql("--reason", "x", sql="SHOW application_name"), "--", "-At")
    else:
        code = "print(session.scalar(sa.text('SHOW application_name')))"
        done = staging(*interact("--reason", "x", code=code))
    assert done.code == 0, done.err
    assert only(staging)["run"] == done.out.split()[1]


def test_write_allowed_at_the_prompt_asks_for_a_reason(
    environment: dict[str, str], staging: Run
) -> None:
    child = zygote.at_terminal(
        ("--env", "staging", "db", "interact"),
        env={**os.environ, **environment, "TERM": "dumb"},
        timeout=120,
        encoding="utf-8",
    )
    try:
        child.expect(r"In \[1\]")
        child.sendline("%write")
        child.expect("Reason to open a session with write access on staging:")
        child.sendline(_REASON)
        child.expect(r"\[y/N\]")
        child.sendline("y")
        child.expect(r"WRITE In \[2\]")
        child.sendline("print(session.scalar(sa.text('SHOW application_name')))")
        child.expect(r"aspencli/\S+ (\S+) ")
        name = child.match[1]
        child.sendline("exit()")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)
    run = only(staging)
    assert (run["run"], run["reason"]) == (name, _REASON)
    assert "SHOW application_name" in run["statements"]


# The log of psql


def test_statements_are_told_from_results_in_psqls_log() -> None:
    lines = (
        b"/******** QUERY *********/\n",
        b"SELECT 1,\n",
        b"2;\n",
        b"/************************/\n",
        b"\n",
        b"x" * 70_000,
        b"\n",
        b"/******* REQU\xc3\x8aTE *******/\n",
        b"SELECT 3\n",
        b"/************************/\n",
        b"********* QUERY **********\n",
        b"SELECT 4\n",
        b"**************************\n",
        b"/******** QUERY *********/\n",
        b"cut short\n",
    )
    assert list(statements(iter(lines))) == ["SELECT 1,\n2;", "SELECT 3", "SELECT 4"]
