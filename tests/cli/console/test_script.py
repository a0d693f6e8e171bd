"""Code without a prompt: the names it has, the output it prints, and how it exits."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspencli.cli.console.run import ConsoleRequest, run
from aspencli.config import Safety
from aspencli.errors import BadInputError
from tests.cli.console.terminal import DRIVER


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def request_for(migrated_db: str) -> Iterator[Callable[..., ConsoleRequest]]:
    opened: list[Database] = []

    def make(*, writing: bool = False, **changes: Any) -> ConsoleRequest:
        def open_database() -> Database:
            opened.append(Database(migrated_db, writable=writing))
            return opened[-1]

        request = ConsoleRequest(
            open_database=open_database,
            address=migrated_db,
            target_label="local",
            safety=Safety.LOCAL,
            confirm_write=lambda: False,
            writing=writing,
        )
        return replace(request, **changes)

    yield make
    for database in opened:
        database.dispose()


@pytest.fixture
def execute(
    request_for: Callable[..., ConsoleRequest], capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    def execute(code: str | None = None, **changes: Any) -> Ended:
        text = None if code is None else textwrap.dedent(code)
        exit_code = run(request_for(code=text, **changes))
        return Ended(exit_code, *capsys.readouterr())

    return execute


Execute = Callable[..., Ended]


def count(address: str, table: str = "aspen.locations") -> int:
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        found = connection.scalar(sa.text(f"SELECT count(*) FROM {table}"))
    engine.dispose()
    return int(found or 0)


def test_script_prints_repr_of_last_expression(execute: Execute) -> None:
    assert execute("x = 1\nsession.scalars(select(Sample)).all()") == (0, "[]\n", "")


def test_script_can_use_another_driver(execute: Execute) -> None:
    code = "sa.create_engine('sqlite://').connect().scalar(sa.text('SELECT 17'))"
    assert execute(code) == (0, "17\n", "")


def test_script_ending_in_none_or_statement_prints_nothing(execute: Execute) -> None:
    assert execute("None") == (0, "", "")
    assert execute("x = 3") == (0, "", "")
    assert execute("") == (0, "", "")


def test_script_has_console_names(execute: Execute) -> None:
    done = execute(
        """
        assert engine is db and session.bind is engine.engine
        assert sa.select is select and Sample.__tablename__ == "samples"
        with enable_profiling_ctx(engine):
            pass
        with engine.make_session() as own:
            own.query(User).all() == []
        """
    )
    assert done == (0, "", "")


def test_database_error_in_script_is_reported_without_traceback(execute: Execute) -> None:
    done = execute("x = 1\nsession.execute(sa.text('SELECT * FROM nothing_of_the_kind'))")
    assert done.code == 1
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0] == 'Error: UndefinedTable: relation "nothing_of_the_kind" does not exist'
    assert "Traceback" not in done.err
    assert "at line 2: session.execute(" in lines[-1]


def test_debug_option_shows_full_traceback_of_database_error(execute: Execute) -> None:
    done = execute("session.execute(sa.text('SELECT nothing'))", debug=True)
    assert "Traceback (most recent call last)" in done.err
    assert "_execute_context" in done.err
    assert "UndefinedColumn" in done.err


def test_error_in_script_shows_only_script_frames(execute: Execute) -> None:
    done = execute("def half(n):\n    return n / 0\n\nhalf(1)")
    assert done.code == 1
    assert "return n / 0" in done.err
    assert "ZeroDivisionError" in done.err
    assert "aspencli" not in done.err


def test_syntax_error_in_script_is_reported(execute: Execute) -> None:
    done = execute("select * from samples")
    assert done.code == 1
    assert "SyntaxError" in done.err
    assert "aspencli" not in done.err


def test_sqlalchemy_error_omits_documentation_link(execute: Execute) -> None:
    done = execute("session.scalars(select(Sample)).one()")
    assert done.code == 1
    assert done.err == "Error: NoResultFound: No row was found when one was required\n"


def test_write_in_read_only_script_suggests_write_option(execute: Execute) -> None:
    done = execute("session.execute(sa.text('CREATE TABLE t ()'))")
    assert done.code == 1
    assert "ReadOnlySqlTransaction" in done.err
    assert "Run it again with --write." in done.err


@pytest.mark.parametrize("code", ["with db.begin(): pass", "db.writing()"])
def test_read_only_script_cannot_open_writing_session(execute: Execute, code: str) -> None:
    done = execute(code)
    assert done.code == 3
    assert done.err.startswith("Error: This console is read-only; nothing was written")


ADD = """
session.add(Location(region="Europe", country="Italy", division="Lazio", location="Roma"))
"""


def test_committed_changes_of_script_are_saved(execute: Execute, migrated_db: str) -> None:
    assert execute(ADD + "session.commit()", writing=True) == (0, "", "")
    assert count(migrated_db) == 1


def test_begin_block_in_script_commits_at_end(execute: Execute, migrated_db: str) -> None:
    code = "with db.writing().begin() as session:\n    " + ADD.strip()
    assert execute(code, writing=True) == (0, "", "")
    assert count(migrated_db) == 1


OWN = "own = engine.make_session(); own.execute(sa.text('CREATE TABLE t ()'))"


@pytest.mark.parametrize("code", [ADD, ADD + "session.flush()", OWN + "; None"])
def test_uncommitted_changes_of_script_are_discarded_with_warning(
    execute: Execute, migrated_db: str, code: str
) -> None:
    done = execute(code, writing=True)
    assert done.code == 0
    assert done.err.startswith("Warning: Uncommitted changes were not saved")
    assert count(migrated_db) == 0


def test_writing_session_that_only_reads_ends_without_warning(execute: Execute) -> None:
    assert execute("session.scalars(select(User)).all()", writing=True) == (0, "[]\n", "")


def test_script_profile_prints_queries_to_stderr(migrated_db: str) -> None:
    done = run_driver(migrated_db, "--profile", "-c", "session.query(User).all()")
    lines = done.stderr.splitlines()
    assert done.stdout == "[]\n"
    assert lines[0].startswith("DEBUG:sqltime:Start Query: SELECT aspen.users.id")
    assert lines[-4] == "DEBUG:sqltime:Query Complete!"
    assert lines[-3].startswith("DEBUG:sqltime:Total Time: 0.")
    assert lines[-2].startswith("1 query (1 distinct), 0 rows, 1 transaction in ")
    assert done.stderr.count("Start Query") == 1


def test_script_file_gets_arguments_and_imports_from_its_directory(
    execute: Execute, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text("answer = 42\n")
    script = tmp_path / "script.py"
    script.write_text(
        "# -*- coding: latin-1 -*-\n"
        "import sys, beside\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[1:], beside.answer, __file__, len('é'), session.query(User).count())\n"
        "7\n",
        encoding="latin-1",
    )
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    done = execute(script=script, arguments=["a", "--b"])
    assert done == (0, f"['a', '--b'] 42 {script} 1 0\n", "")
    assert (sys.argv, sys.path, sys.modules["__main__"]) == before
    del sys.modules["beside"]


def test_type_hints_resolve_classes_defined_in_script(execute: Execute) -> None:
    done = execute(
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import get_type_hints

        class Key: ...

        @dataclass
        class Row:
            key: Key

        get_type_hints(Row)["key"] is Key
        """
    )
    assert done == (0, "True\n", "")


def test_missing_script_is_named_in_error(request_for: Callable[..., ConsoleRequest]) -> None:
    with pytest.raises(BadInputError, match=r"Cannot read the script missing\.py"):
        run(request_for(script=Path("missing.py")))


@pytest.mark.parametrize("script", [None, Path("-")])
def test_script_is_read_from_standard_input(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, script: Path | None
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("print(session.query(User).all())\n5\n"))
    assert execute(script=script) == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("leaving", "code", "err"),
    [("sys.exit()", 0, ""), ("sys.exit(4)", 4, ""), ("sys.exit('no')", 1, "no\n")],
)
def test_sys_exit_in_script_sets_exit_code(
    execute: Execute, leaving: str, code: int, err: str
) -> None:
    assert execute(f"import sys\n{leaving}") == (code, "", err)


def test_unreachable_database_is_reported_before_script_runs(
    request_for: Callable[..., ConsoleRequest], capsys: pytest.CaptureFixture[str]
) -> None:
    request = request_for(
        code="print('ran')", open_database=lambda: Database("postgresql://nobody@127.0.0.1:1/x")
    )
    with pytest.raises(sa.exc.OperationalError, match="Connection refused"):
        run(request)
    assert run(replace(request, connect=False)) == 0
    assert capsys.readouterr().out == "ran\n"


def test_script_can_use_copy(execute: Execute) -> None:
    done = execute(
        """
        import io
        out = io.StringIO()
        cursor = session.connection().connection.cursor()
        cursor.copy_expert("COPY (SELECT 1, 'a') TO STDOUT", out)
        out.getvalue()
        """
    )
    assert done == (0, "'1\\ta\\n'\n", "")


def test_script_can_use_executemany_and_no_parameters(execute: Execute) -> None:
    done = execute(
        """
        with engine.engine.connect() as connection:
            connection.exec_driver_sql("CREATE TEMPORARY TABLE t (a int)")
            connection.exec_driver_sql("INSERT INTO t VALUES (%s)", [(n,) for n in range(3)])
            plain = connection.execution_options(no_parameters=True)
            found = plain.exec_driver_sql("SELECT count(*), '%' FROM t").all()
        found
        """,
        writing=True,
    )
    assert done == (0, "[(3, '%')]\n", "")


def test_script_can_use_async_engine(execute: Execute) -> None:
    done = execute(
        """
        import asyncio
        from sqlalchemy.ext.asyncio import create_async_engine

        async def main():
            engine_ = create_async_engine(engine.url.set(drivername="postgresql+asyncpg"))
            async with engine_.connect() as connection:
                found = await connection.scalar(sa.text("SELECT 5"))
            await engine_.dispose()
            return found

        asyncio.run(main())
        """
    )
    assert done == (0, "5\n", "")


def test_interrupted_script_cancels_statement_on_server(migrated_db: str) -> None:
    code = "session.execute(sa.text('SELECT pg_sleep(60)'))"
    watcher = sa.create_engine(migrated_db)
    with subprocess.Popen(
        [sys.executable, str(DRIVER), migrated_db, "-c", code],
        stderr=subprocess.PIPE,
        env=dict(os.environ),
        text=True,
    ) as process:
        wait_for(lambda: sleeping(watcher))
        process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        _, err = process.communicate(timeout=120)
        assert time.monotonic() - interrupted < 50
    assert process.returncode == 130
    assert err == "Error: Interrupted\n"
    assert not sleeping(watcher)
    watcher.dispose()


def test_lost_connection_in_script_cursor_is_reported_as_script_error(execute: Execute) -> None:
    done = execute(
        """
        cursor = session.connection().connection.cursor()
        pid = session.scalar(sa.text("SELECT pg_backend_pid()"))
        with engine.make_session() as other:
            other.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        cursor.execute("SELECT 1")
        """
    )
    assert done.code == 1
    assert "terminating connection" in done.err or "server closed" in done.err


def test_statement_timeout_error_explains_how_to_raise_limit(
    request_for: Callable[..., ConsoleRequest],
    migrated_db: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = Database(migrated_db).with_limits(statement_ms=50)
    request = request_for(
        code="session.execute(sa.text('SELECT pg_sleep(60)'))", open_database=lambda: database
    )
    assert run(request) == 1
    err = capsys.readouterr().err
    assert "canceling statement due to statement timeout" in err
    assert "SET statement_timeout" in err


def run_driver(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DRIVER), address, *options], capture_output=True, text=True, check=True
    )


def sleeping(engine: sa.Engine) -> bool:
    with engine.connect() as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        query += " AND state = 'active' AND datname = current_database()"
        return bool(connection.scalar(sa.text(query)))


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
