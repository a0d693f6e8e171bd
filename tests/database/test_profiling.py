"""Profiling as a user sees it: lines on standard error, matching pairs, and no leftovers."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aspen.database.engine import Database
from aspen.database.profiling.sqltime import (
    disable_profiling,
    enable_profiling,
    enable_profiling_ctx,
)

EVENTS = ("before_cursor_execute", "after_cursor_execute")
SQLTIME = logging.getLogger("sqltime")


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Set up logging as in a program that never configured it, without pytest's handlers.

    This is not a fixture, because pytest adds its handlers between a test's setup and its call.
    """
    root = logging.getLogger()
    handlers = root.handlers[:]
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:] = handlers


@asynccontextmanager
async def async_engine(address: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(sa.make_url(address).set(drivername="postgresql+asyncpg"))
    try:
        yield engine
    finally:
        await engine.dispose()


def run(engine: Engine, sql: str = "select 1") -> None:
    with engine.connect() as connection:
        connection.execute(sa.text(sql))


def listeners(engine: Engine) -> int:
    return sum(len(getattr(engine.dispatch, name)) for name in EVENTS) + len(
        engine.dialect.dispatch.handle_error
    )


def state() -> tuple[int, bool, bool, list[logging.Handler]]:
    return SQLTIME.level, SQLTIME.propagate, SQLTIME.disabled, SQLTIME.handlers[:]


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sqltime"]


def times(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the logged times, shortest first."""
    lead = "Total Time: "
    return sorted(float(m.removeprefix(lead)) for m in messages(caplog) if m.startswith(lead))


def test_profiling_prints_lines_when_logging_is_unconfigured(empty_db: str) -> None:
    program = (
        "import sys, sqlalchemy as sa\n"
        "from aspen.database.profiling.sqltime import enable_profiling\n"
        "engine = sa.create_engine(sys.argv[1]); enable_profiling(engine)\n"
        "with engine.connect() as c: c.execute(sa.text('select 41 + :n'), {'n': 1})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, empty_db], capture_output=True, text=True, check=True
    )
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert lines[0] == "DEBUG:sqltime:Start Query: select 41 + %(n)s"
    assert lines[1] == "DEBUG:sqltime:Query Complete!"
    assert re.fullmatch(r"DEBUG:sqltime:Total Time: \d+\.\d{6}", lines[2])
    assert len(lines) == 3


def test_profiling_lines_go_to_current_stderr(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with unconfigured_logging(), enable_profiling_ctx(engine):
        run(engine, "select 'first'")
        assert "select 'first'" in capsys.readouterr().err
        run(engine, "select 'second'")
    printed = capsys.readouterr()
    assert printed.err.count("Start Query") == 1
    assert printed.out == ""


def test_disabling_profiling_restores_logger_state(engine: Engine) -> None:
    SQLTIME.setLevel(logging.ERROR)
    SQLTIME.disabled = True
    found = state()
    try:
        with unconfigured_logging():
            enable_profiling(engine)
            assert len(SQLTIME.handlers) == 1
            enable_profiling()
            assert len(SQLTIME.handlers) == 1
            disable_profiling(engine)
            assert len(SQLTIME.handlers) == 1
            disable_profiling()
        assert state() == found
    finally:
        SQLTIME.setLevel(logging.NOTSET)
        SQLTIME.disabled = False


def test_profiling_records_appear_once_when_debug_is_shown(
    engine: Engine, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    found = state()
    with enable_profiling_ctx(engine):
        assert SQLTIME.handlers == []
        run(engine)
    assert [m.split(":")[0] for m in messages(caplog)] == [
        "Start Query",
        "Query Complete!",
        "Total Time",
    ]
    assert capsys.readouterr().err == ""
    assert state() == found


def test_profiling_prints_queries_when_handlers_show_only_warnings(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    with unconfigured_logging():
        root.addHandler(handler)
        with enable_profiling_ctx(engine):
            run(engine)
    assert capsys.readouterr().err.count("Start Query") == 1


def test_logging_configured_during_profiling_does_not_print_twice(
    engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with unconfigured_logging(), enable_profiling_ctx(engine):
        logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
        run(engine)
    assert capsys.readouterr().err.count("Start Query") == 1


def test_nested_profiling_reports_once_and_ends_with_outermost(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with enable_profiling_ctx(engine):
        with enable_profiling_ctx(engine):
            run(engine)
        assert messages(caplog).count("Query Complete!") == 1
        run(engine)
        assert messages(caplog).count("Query Complete!") == 2
    assert listeners(engine) == 0
    run(engine)
    assert messages(caplog).count("Query Complete!") == 2


def test_profiling_sees_next_statement_of_open_transaction(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    # A recorder would miss this: it records a connection in use from its next transaction.
    with engine.begin() as connection:
        connection.exec_driver_sql("select 1")
        with enable_profiling_ctx():
            connection.exec_driver_sql("select 2")
    assert [m for m in messages(caplog) if "select" in m] == ["Start Query: select 2"]


def test_profiling_of_one_engine_ignores_other_engines(
    engine: Engine, empty_db: str, caplog: pytest.LogCaptureFixture
) -> None:
    other = sa.create_engine(empty_db)
    with enable_profiling_ctx(engine):
        run(other)
    other.dispose()
    assert messages(caplog) == []


def test_profiling_all_engines_and_one_engine_reports_once(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    derived = engine.execution_options(isolation_level="AUTOCOMMIT")
    with enable_profiling_ctx(), enable_profiling_ctx(engine):
        run(engine)
        run(derived)
    assert messages(caplog).count("Query Complete!") == 2
    assert listeners(engine) == 0  # including the listeners of the class


def test_disabling_profiling_that_is_off_does_nothing(engine: Engine) -> None:
    found = state()
    disable_profiling(engine)
    disable_profiling()
    assert state() == found


def test_enable_profiling_refuses_non_engine() -> None:
    with pytest.raises(TypeError, match="expected an engine, not a str"):
        enable_profiling("postgresql://localhost")  # type: ignore[arg-type]


def test_enable_profiling_accepts_database(empty_db: str, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(empty_db)
    with enable_profiling_ctx(database), database.make_session() as session:
        session.execute(sa.text("select 7"))
    database.dispose()
    assert messages(caplog)[0] == "Start Query: select 7"


def test_failed_query_prints_time_and_error_class(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with enable_profiling_ctx(engine):
        with pytest.raises(sa.exc.ProgrammingError):
            run(engine, "select * from nothing_of_the_kind where a = 'private'")
        run(engine)
    told = messages(caplog)
    assert told[1] == "Query Failed: UndefinedTable"
    assert told[2].startswith("Total Time: ")
    assert told[3:5] == ["Start Query: select 1", "Query Complete!"]


def test_query_parameters_are_not_printed(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with enable_profiling_ctx(engine), engine.connect() as connection:
        connection.execute(sa.text("select :name"), {"name": "Jane Doe"})
    assert "Jane" not in "".join(messages(caplog))


def test_control_characters_in_sql_are_replaced(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with enable_profiling_ctx(engine):
        run(engine, "select '\x1b[2J'")
    assert messages(caplog)[0] == "Start Query: select '\N{REPLACEMENT CHARACTER}[2J'"


def test_executemany_counts_one_query_per_batch_sent(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("a", sa.Integer))
    with enable_profiling_ctx(engine), engine.begin() as connection:
        table.create(connection)
        connection.exec_driver_sql("insert into t values (%s)", [(n,) for n in range(5)])
        connection.execute(table.insert().returning(table.c.a), [{"a": n} for n in range(2_500)])
    inserts = [m for m in messages(caplog) if m.lower().startswith("start query: insert")]
    # SQLAlchemy sends a thousand rows per statement if it wants rows back.
    assert len(inserts) == 1 + 3
    assert messages(caplog).count("Query Complete!") == len(times(caplog)) == 1 + len(inserts)


def test_query_time_covers_execution(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with enable_profiling_ctx(engine):
        run(engine, "select pg_sleep(0.05)")
    (seconds,) = times(caplog)
    assert 0.05 <= seconds < 1


def test_concurrent_threads_time_each_query_separately(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    naps = [0.01 * n for n in range(1, 9)]
    with enable_profiling_ctx(engine), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda nap: run(engine, f"select pg_sleep({nap})"), naps))
    for nap, seconds in zip(naps, times(caplog), strict=True):
        assert nap <= seconds < nap + 0.5


def test_toggling_profiling_does_not_disturb_other_threads(engine: Engine) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                run(engine)
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 0.7
    while time.monotonic() < until:
        with enable_profiling_ctx(engine), enable_profiling_ctx():
            time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_concurrent_async_tasks_time_each_query_separately(
    empty_db: str, caplog: pytest.LogCaptureFixture
) -> None:
    naps = [0.02 * n for n in range(1, 6)]

    async def nap(engine: AsyncEngine, seconds: float) -> None:
        async with engine.connect() as connection:
            await connection.execute(sa.text(f"select pg_sleep({seconds})"))

    async def main() -> None:
        async with async_engine(empty_db) as engine:
            with enable_profiling_ctx(engine):
                await asyncio.gather(*(nap(engine, seconds) for seconds in naps))
            assert listeners(engine.sync_engine) == 0

    asyncio.run(main())
    assert messages(caplog).count("Query Complete!") == 5
    for seconds, took in zip(naps, times(caplog), strict=True):
        assert seconds <= took < seconds + 0.5


def test_failed_async_query_prints_driver_error_class(
    empty_db: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with async_engine(empty_db) as engine:
            with enable_profiling_ctx(engine):
                async with engine.connect() as connection:
                    with pytest.raises(sa.exc.ProgrammingError):
                        await connection.execute(sa.text("select * from nothing_of_the_kind"))

    asyncio.run(main())
    assert "Query Failed: UndefinedTableError" in messages(caplog)


def test_garbage_collected_engine_restores_logger_state(empty_db: str) -> None:
    found = state()
    engine = sa.create_engine(empty_db)
    with unconfigured_logging():
        enable_profiling(engine)
        assert state() != found
        del engine
        gc.collect()
        assert state() == found
