"""Profiling in the console: each query as it runs, the cost of a cell, and the whole session."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from aspen.database.engine import Database
from aspencli.cli.console.run import ConsoleRequest
from aspencli.cli.console.workspace import Workspace
from aspencli.cli.output.console import Output
from aspencli.config import Safety
from tests.cli.console.terminal import Terminal

EVENTS = (
    *("engine_connect", "before_cursor_execute", "after_cursor_execute", "before_execute"),
    *("after_execute", "begin", "commit", "rollback"),
)
LINES = re.compile(
    r"DEBUG:sqltime:Start Query: (?P<query>[^\n]+)\n"
    r"(?P<rest>(?:[^D\n][^\n]*\n)*)"
    r"DEBUG:sqltime:Query Complete!\n"
    r"DEBUG:sqltime:Total Time: \d+\.\d{6}\n"
)

SLEEPING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    " AND state = 'active' AND datname = current_database()"
)


@pytest.fixture(autouse=True)
def own_ipython(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.fixture
def workspace(seeded: Database) -> Iterator[Workspace]:
    def never() -> bool:
        raise AssertionError("nobody asked to write")

    request = ConsoleRequest(
        open_database=lambda: seeded,
        address=address(seeded),
        target_label="local",
        safety=Safety.LOCAL,
        confirm_write=never,
        messages=Output(stderr=io.StringIO()),
    )
    with Workspace(request, "Type %write.") as opened:
        yield opened


def address(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


def told(workspace: Workspace) -> str:
    err = workspace.request.messages.stderr
    assert isinstance(err, io.StringIO)
    return err.getvalue()


def wait_for_sleeping(database: Database, count: int) -> None:
    """Wait until the server runs the given number of statements that only sleep."""
    deadline = time.monotonic() + 120
    while True:
        with database.reading() as session:
            if session.scalar(SLEEPING) == count:
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_on(engine: Engine) -> dict[str, Any]:
    """Return everything that a profiler might leave: listeners, patched functions, cursors."""
    # This counts an engine's own listeners together with those of the class.
    listeners = {name: len(getattr(engine.dispatch, name)) for name in EVENTS}
    listeners["handle_error"] = len(list(engine.dialect.dispatch.handle_error))
    with engine.connect() as connection:
        cursors = connection.connection.driver_connection.cursor_factory  # type: ignore[union-attr] # psycopg2's
    return {
        **listeners,
        "dialect": sorted(name for name in vars(engine.dialect) if name.startswith("do_")),
        "pool": sorted(name for name in vars(engine.pool) if name == "connect"),
        "cursors": cursors,
    }


@pytest.mark.parametrize("lead", [["db", "--local"], ["db"]])
def test_profiled_session_from_runbook_prints_queries_and_summary(
    seeded: Database, cli_env: Callable[[Database], dict[str, str]], lead: list[str]
) -> None:
    command = ["-m", "aspencli", *lead, "interact", "--profile"]
    env = {**cli_env(seeded), "TERM": "xterm-256color"}
    with Terminal(address(seeded), env=env, command=command) as console:
        assert "Aspen console on local (local): read-only" in console.banner
        assert "DEBUG" not in console.run("session = engine.make_session()")
        said = console.run("results = session.query(Sample).all()")
        (found,) = LINES.finditer(said)
        assert found["query"].startswith(
            "SELECT aspen.samples.id AS aspen_samples_id,"
            " aspen.samples.submitting_group_id AS aspen_samples_submitting_group_id,"
        )
        assert found["rest"].strip() == "FROM aspen.samples"
        assert re.search(r"\n1 query \(1 distinct\), 60 rows, 1 transaction in [\d.]+ ms\n", said)
        assert re.search(r"database \d+\.\d ms", said)
        assert re.search(r"Python \d+\.\d ms", said)
        # A cell without queries gets no summary.
        assert console.run("len(results)").partition("Out[3]: 60\n")[2].strip() == "local In [4]:"
        assert "\x1b[38;5;31mSELECT\x1b" in console.seen
        code, last = console.leave()
    assert code == 0
    assert "DEBUG" not in last


def test_n_plus_one_warning_appears_in_cell_summary_and_report(seeded: Database) -> None:
    with Terminal(address(seeded), "--profile") as console:
        said = console.run("x = [len(s.lineages) for s in session.query(Sample).limit(4).all()]")
        assert "5 queries (2 distinct)" in said
        assert "Warning: n+1: Sample.lineages loaded one by one, 4 times (In [1]:1)" in said
        assert ".options(selectinload(Sample.lineages))" in said
        assert "1 query (1 distinct)" in console.run("%sql SELECT 1")
        report = console.run("%profile report")
        assert "6 queries (3 distinct)" in report
        assert "Sample.lineages loaded one by one, 4 times" in report
        assert "Total ms" in report
        assert report.count("In [1]:1") >= 2


def test_profile_report_fits_narrow_terminal_without_color(seeded: Database) -> None:
    narrow = {"COLUMNS": "40", "NO_COLOR": "1"}
    with Terminal(address(seeded), "--profile", env=narrow) as console:
        said = console.run("session.scalar(sa.text('SELECT 7'))")
        assert "DEBUG:sqltime:Start Query: SELECT 7\n" in said
        assert "1 query (1 distinct), 1 row" in said
        report = console.run("%profile report").partition(" ms\n")[2]
        table = report.partition("\n")[2].partition("\nlocal In")[0]
        assert "?" in table
        assert max(map(len, table.splitlines())) <= 40
        assert "\x1b[38;5;31mSELECT" not in console.seen


def test_failed_statement_is_profiled_with_time(seeded: Database) -> None:
    with Terminal(address(seeded), "--profile") as console:
        said = console.run("session.execute(sa.text('SELECT nope'))")
        assert re.search(
            r"Start Query: SELECT nope\n.*Query Failed: UndefinedColumn\n"
            r"DEBUG:sqltime:Total Time: \d\.\d{6}\n",
            said,
        )
        assert "1 query (1 distinct, 1 failed)" in said


def test_interrupt_cancels_profiled_statement_on_server(seeded: Database) -> None:
    with Terminal(address(seeded), "--profile") as console:
        console.enter("session.scalar(sa.text('SELECT pg_sleep(60)'))")
        wait_for_sleeping(seeded, 1)
        console.interrupt()
        said = console.next_prompt()
        wait_for_sleeping(seeded, 0)
        assert "Error: Interrupted" in said
        assert re.search(r"Query Failed: \w+\nDEBUG:sqltime:Total Time: \d+\.\d{6}\n", said)
        assert "1 query (1 distinct, 1 failed)" in said
        assert "Out[2]: 7" in console.run("session.scalar(sa.text('SELECT 7'))")


def test_profile_off_removes_all_hooks(workspace: Workspace) -> None:
    engine = workspace.session.get_bind()
    assert isinstance(engine, Engine)
    before = left_on(engine)
    workspace.session.scalar(sa.text("SELECT 1"))  # leaves a transaction open
    workspace.profile(on=True)
    with workspace.profiling.cell():
        workspace.session.scalar(sa.text("SELECT 2"))
    assert left_on(engine) != before
    assert "1 query (1 distinct), 1 row" in told(workspace)
    workspace.profile(on=False)
    assert left_on(engine) == before
    said = told(workspace)
    with workspace.profiling.cell():
        workspace.session.scalar(sa.text("SELECT 3"))
    assert told(workspace) == said


def test_cell_that_toggles_profiling_counts_queries_run_while_on(
    workspace: Workspace,
) -> None:
    with workspace.profiling.cell():
        workspace.session.scalar(sa.text("SELECT 1"))
        workspace.profile(on=True)
        workspace.profile(on=True)
        workspace.session.scalar(sa.text("SELECT 2"))
    assert "1 query (1 distinct)" in told(workspace)
    with workspace.profiling.cell():
        workspace.session.scalar(sa.text("SELECT 3"))
        workspace.profile(on=False)
    out = io.StringIO()
    workspace.profiling.report(Output(form="table", stdout=out, stderr=io.StringIO()))
    assert "2 queries (1 distinct)" in out.getvalue()


def test_profiling_counts_queries_of_other_engines(workspace: Workspace) -> None:
    workspace.profile(on=True)
    engine = sa.create_engine(workspace.request.address)
    with workspace.profiling.cell(), engine.begin() as connection:
        connection.execute(sa.text("SELECT 1"))
    engine.dispose()
    assert "1 query (1 distinct), 1 row, 1 transaction" in told(workspace)


def test_profile_report_without_recording_explains_how_to_start(workspace: Workspace) -> None:
    workspace.profiling.report(Output())
    assert "Nothing has been recorded yet; start with %profile on" in told(workspace)


@pytest.mark.parametrize("elsewhere", ["2>&-", "2>/dev/full"])
def test_profiled_code_runs_when_stderr_is_unwritable(
    seeded: Database, cli_env: Callable[[Database], dict[str, str]], elsewhere: str
) -> None:
    command = f'"$0" -m aspencli db interact --profile -c "$1" {elsewhere}'
    code = "print(session.query(Sample).count())"
    words = ["sh", "-c", command, sys.executable, code]
    done = subprocess.run(words, env=cli_env(seeded), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "60\n")


def test_interrupted_script_cancels_statement_and_reports_time(
    seeded: Database, cli_env: Callable[[Database], dict[str, str]]
) -> None:
    words = ["-m", "aspencli", "db", "interact", "--profile", "-c"]
    with subprocess.Popen(
        [sys.executable, *words, "session.scalar(sa.text('SELECT pg_sleep(60)'))"],
        env=cli_env(seeded),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for_sleeping(seeded, 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    wait_for_sleeping(seeded, 0)
    assert re.search(r"Query Failed: \w+\nDEBUG:sqltime:Total Time: \d+\.\d{6}\n", err)
    assert "1 query (1 distinct, 1 failed)" in err
    assert "Error: Interrupted\n" in err


@pytest.mark.usefixtures("aspen_home")
def test_profile_of_piped_script_has_no_color_and_leaves_stdout_clean(
    run_cli: Callable[..., Any], seeded: Database, tmp_path: Path
) -> None:
    script = tmp_path / "slow.py"
    script.write_text("for s in session.scalars(select(Sample).limit(3)):\n    len(s.lineages)\n")
    told = run_cli("db", "interact", "--profile", str(script), database=seeded)
    assert (told.code, told.out) == (0, "")
    assert told.err.count("DEBUG:sqltime:Query Complete!\n") == 4
    assert "4 queries (2 distinct)" in told.err
    assert f"Sample.lineages loaded one by one, 3 times ({script.name}:2)" in told.err
    assert "\x1b" not in told.err
    failing = "import sys; session.execute(sa.text('SELECT 1')); sys.exit(9)"
    told = run_cli("db", "interact", "--profile", "-c", failing, database=seeded)
    assert told.code == 9
    assert "1 query (1 distinct)" in told.err
