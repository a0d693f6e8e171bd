"""The recorder on a real server: each execution once, with its line, and no leftovers."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg2 import sql
from psycopg2.extensions import cursor as plain_cursor
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aspen.database.engine import Database
from aspen.database.models import Group
from aspen.database.profiling import queries
from aspen.database.profiling.queries import OTHERS, Moment, StatementKey
from aspen.database.profiling.recorder import Recorder
from aspen.database.profiling.report import as_timeline
from aspen.database.profiling.summary import summarize

HOOKS = ("do_begin", "do_commit", "do_rollback", "do_close", "do_terminate")


@pytest.fixture
def engine(empty_db: str) -> Iterator[Engine]:
    engine = sa.create_engine(empty_db, pool_size=40)
    yield engine
    engine.dispose()


def recorded(recorder: Recorder) -> list[tuple[StatementKey, Moment]]:
    keys = recorder.log.keys
    return [(keys[moment.group], moment) for moment in recorder.log.moments()]


def only(recorder: Recorder) -> tuple[StatementKey, Moment]:
    (one,) = recorded(recorder)
    return one


def run_once(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))


def cursor_of(connection: sa.Connection) -> object:
    return connection.connection.cursor()


def line_here() -> int:
    return sys._getframe(1).f_lineno


def test_execution_is_recorded_with_line_rows_and_times(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.connect() as connection:
        slow = sa.text("SELECT pg_sleep(0.02), generate_series(1, 30)")
        rows, line = connection.execute(slow).fetchmany(10), line_here()
    key, moment = only(recorder)
    assert len(rows) == 10
    assert (key.file, key.line) == (__file__, line)
    assert key.function == "test_execution_is_recorded_with_line_rows_and_times"
    assert (moment.rows, moment.fetched, moment.failed) == (30, 10, False)
    assert moment.seconds > 0.02
    assert 0 < moment.fetching < moment.seconds
    assert (recorder.transactions.begun, len(recorder.rollbacks), len(recorder.waits)) == (1, 1, 1)


def test_fetch_time_of_server_side_cursor_is_recorded(engine: Engine) -> None:
    series = sa.text("SELECT pg_sleep(0.002) IS NULL, i FROM generate_series(1, 30) i")
    with Recorder(engine) as recorder, engine.connect() as connection:
        streaming = connection.execution_options(stream_results=True, max_row_buffer=10)
        for _ in streaming.execute(series):
            pass
    _, moment = only(recorder)
    assert moment.fetched == moment.rows == 30
    assert moment.fetching > 0.03


def test_recorder_leaves_no_hooks_when_it_ends(engine: Engine) -> None:
    pool, dialect = engine.pool, engine.dialect
    run_once(engine)  # the dialect detects the server's features
    before = {"pool": vars(pool).copy(), "dialect": vars(dialect).copy()}
    with Recorder(engine) as recorder:
        run_once(engine)
        assert set(HOOKS) <= set(vars(dialect))
    assert vars(pool).keys() == before["pool"].keys()
    assert vars(dialect).keys() == before["dialect"].keys()
    with engine.connect() as connection:
        assert type(cursor_of(connection)) is plain_cursor
        connection.execute(sa.text("SELECT 2"))
    assert len(recorder.log) == 1


def test_recording_continues_after_engine_is_disposed(engine: Engine) -> None:
    with Recorder(engine) as recorder:
        for _ in range(3):
            with engine.begin() as connection:
                connection.execute(sa.text("SELECT 1"))
            engine.dispose()
    assert len(recorder.log) == 3
    assert len(recorder.commits) == 3
    assert "connect" not in vars(engine.pool)


def test_second_recorder_of_same_engine_is_refused(engine: Engine) -> None:
    derived = engine.execution_options(isolation_level="AUTOCOMMIT")
    with Recorder(engine) as recorder:
        with pytest.raises(RuntimeError, match="already being recorded"), Recorder(derived):
            pass
        with derived.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    assert len(recorder.log) == 1
    with Recorder(engine):
        """The first recorder is gone."""


def test_recorder_refuses_non_engine() -> None:
    with pytest.raises(TypeError, match="not a str"):
        Recorder("postgresql://localhost")  # type: ignore[arg-type]


def test_connection_in_use_is_recorded_from_next_transaction(engine: Engine) -> None:
    with engine.connect() as connection, Recorder(engine) as recorder:
        for text in ("SELECT 'begins'", "SELECT 2", "SELECT 3"):
            connection.execute(sa.text(text))
    assert len(recorder.log) == 2


def test_failed_statement_is_recorded_with_error_class(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(sa.text("SELECT 1/0"))
        connection.rollback()
    _, moment = only(recorder)
    assert moment.failed
    assert recorder.log.examples[0].errors == {"DivisionByZero": 1}
    assert len(recorder.rollbacks) == 1


def test_savepoints_and_executemany_are_recorded(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.begin() as connection:
        connection.execute(sa.text("CREATE TEMP TABLE t (a int)"))
        for _ in range(2):
            with connection.begin_nested():
                connection.execute(sa.text("INSERT INTO t VALUES (:a)"), [{"a": 1}, {"a": 2}])
    texts = [key.fingerprint for key, _ in recorded(recorder)]
    assert texts.count("SAVEPOINT sa_savepoint_N") == 2
    assert texts.count("INSERT INTO t VALUES (...)") == 2
    assert texts.count("RELEASE SAVEPOINT sa_savepoint_N") == 2


def test_copy_and_driver_cursors_are_recorded(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.begin() as connection:
        driver: Any = connection.connection.cursor()
        driver.execute(b"CREATE TEMP TABLE t (a int)")
        driver.copy_expert("COPY t FROM STDIN", io.StringIO("1\n2\n"))
        driver.copy_from(io.StringIO("3\n"), "t")
        driver.execute(sql.SQL("SELECT {} FROM t").format(sql.Identifier("a")))
        assert list(driver) == [(1,), (2,), (3,)]
    found = {key.fingerprint: moment for key, moment in recorded(recorder)}
    assert list(found) == [
        "CREATE TEMP TABLE t (a int)",
        "COPY t FROM STDIN",
        'SELECT "a" FROM t',
    ]
    assert found['SELECT "a" FROM t'].fetched == 3
    assert len(recorded(recorder)) == 4


def test_parameters_are_recorded_only_on_request(engine: Engine) -> None:
    for wanted in (False, True):
        with Recorder(engine, parameters=wanted) as recorder, engine.connect() as connection:
            connection.execute(sa.text("SELECT :secret"), {"secret": "s3cret"})
        kept = recorder.log.examples[0].parameters
        assert kept == ({"secret": "s3cret"} if wanted else None)


def test_lazy_load_is_recorded_with_attribute_and_remedy(seeded: Database) -> None:
    with Recorder(seeded) as recorder, seeded.make_session() as session:
        group = session.scalars(sa.select(Group).limit(1)).one()
        assert len(group.samples) > 0
        line = line_here() - 1
        session.expire(group)
        assert group.name
    lazy = {key.lazy.name: key for key, _ in recorded(recorder) if key.lazy}
    assert [key.line for key in lazy.values()] == [line, line + 3]
    cures = [key.lazy.cure for key in lazy.values() if key.lazy]
    assert cures[0] == ".options(selectinload(Group.samples))"
    assert cures[1].startswith("Set expire_on_commit=False")


def test_flushed_statements_are_attributed_to_flushing_line(seeded: Database) -> None:
    writing = seeded.writing()
    with Recorder(writing) as recorder, writing.make_session() as session:
        group = session.scalars(sa.select(Group).limit(1)).one()
        group.name = "renamed"
        session.flush()
        line = line_here() - 1
    written = [key for key, _ in recorded(recorder) if key.fingerprint.startswith("UPDATE")]
    assert [(key.file, key.line) for key in written] == [(__file__, line)]


def _work(engine: Engine, number: int, count: int) -> None:
    for turn in range(count):
        with engine.connect() as connection:
            if (number + turn) % 10 == 0:
                with pytest.raises(DBAPIError):
                    connection.execute(sa.text("SELECT 1/0"))
            else:
                assert connection.execute(sa.text(f"SELECT {number}")).scalar() == number


def test_recorder_counts_are_exact_with_32_threads_and_errors(engine: Engine) -> None:
    threads, each = 32, 25
    with Recorder(engine) as recorder, ThreadPoolExecutor(threads) as workers:
        list(workers.map(lambda number: _work(engine, number, each), range(threads)))
    failed = sum((n + turn) % 10 == 0 for n in range(threads) for turn in range(each))
    moments = [moment for _, moment in recorded(recorder)]
    assert len(moments) == threads * each
    assert sum(moment.failed for moment in moments) == failed
    assert sum(moment.fetched for moment in moments) == threads * each - failed
    assert recorder.transactions.begun == len(recorder.waits) == threads * each
    assert not vars(engine.dialect).keys() & set(HOOKS)


def test_recorder_starts_and_stops_while_other_threads_run_queries(engine: Engine) -> None:
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            _work(engine, 1, 5)

    with ThreadPoolExecutor(4) as workers:
        working = [workers.submit(go_on) for _ in range(4)]
        for _ in range(50):
            with Recorder(engine):
                pass
        ended.set()
        for one in working:
            one.result()
    with engine.connect() as connection:
        assert type(cursor_of(connection)) is plain_cursor


def test_profile_summary_does_not_change_as_recording_continues(engine: Engine) -> None:
    with Recorder(engine) as recorder:
        for _ in range(3):
            with engine.connect() as connection:
                assert connection.scalar(sa.text("SELECT 1")) == 1
        profile = summarize(recorder)
        moments, spans = recorder.log.moments(), recorder.transactions.spans()
        next(moments)
        next(spans)
        with engine.connect() as connection:
            connection.scalar(sa.text("SELECT 'another kind'"))
        recorder.log.fold()
        assert len(list(moments)) == len(list(spans)) == 2
        drawn = as_timeline(profile)["queries"]
    assert len(recorder.log) == 4
    assert len(drawn) == profile.totals.queries == 3


async def _ask(engine: AsyncEngine, number: int) -> str:
    async with engine.connect() as connection:
        statement = "SELECT 1/0" if number % 10 == 0 else "SELECT pg_sleep(:s)"
        parameters = {"s": 30} if number % 10 == 1 else {"s": 0}
        try:
            async with asyncio.timeout(1.5 if number % 10 == 1 else 60):
                await connection.execute(sa.text(statement), parameters)
        except TimeoutError:
            return "cancelled"
        except DBAPIError:
            return "failed"
        return "done"


@pytest.mark.unpooled("asyncpg keeps prepared statements")
def test_recorder_counts_are_exact_with_200_tasks_and_cancellations(empty_db: str) -> None:
    async def run() -> tuple[Recorder, list[str], dict[str, Any]]:
        address = sa.make_url(empty_db).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(address, pool_size=30)
        with Recorder(engine) as recorder:
            ends = await asyncio.gather(*(_ask(engine, number) for number in range(200)))
        left = dict(vars(engine.dialect))
        async with engine.connect() as connection:
            await connection.execute(sa.text("SELECT 'after'"))
        await engine.dispose()
        return recorder, ends, left

    recorder, ends, left = asyncio.run(run())
    assert (ends.count("cancelled"), ends.count("failed")) == (20, 20)
    errors: dict[str, int] = {}
    for example in recorder.log.examples:
        for name, count in example.errors.items():
            errors[name] = errors.get(name, 0) + count
    assert errors == {"CancelledError": 20, "DivisionByZeroError": 20}
    assert len(recorder.log) == 200
    assert {key.function for key in recorder.log.keys} == {"_ask"}
    assert not left.keys() & set(HOOKS)


def test_recorder_memory_stays_small_with_many_statements(engine: Engine) -> None:
    count = 20_000
    with Recorder(engine) as recorder, engine.connect() as connection:
        driver = connection.connection.cursor()
        driver.execute("SELECT 0")
        tracemalloc.start()
        for number in range(count):
            driver.execute("SELECT %s", (number,))
        recorder.log.fold()
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(recorder.log) == count + 1
    assert len(recorder.log.keys) == 2
    assert grown < 150 * count  # a million take 150 MB


def test_recorder_does_not_keep_long_statements(engine: Engine) -> None:
    size, count = 200_000, 200
    with Recorder(engine, parameters=True) as recorder, engine.connect() as connection:
        driver: Any = connection.connection.cursor()
        driver.execute("SELECT length('')")
        tracemalloc.start()
        for number in range(count):
            driver.execute(f"SELECT length('{number:0{size}}')")
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert {key.fingerprint for key in recorder.log.keys} == {"SELECT length(?)"}
    assert len(recorder.log) == count + 1
    assert most < 40 * size  # the few that are examined again, not all 200


def test_fingerprints_beyond_limit_are_counted_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_KINDS", 50)
    with Recorder(engine) as recorder, engine.connect() as connection:
        for number in range(200):
            connection.execute(sa.text(f"SELECT 1 AS kind_{number}"))
    profile = summarize(recorder)
    counts = {one.key.fingerprint: one.calls for one in profile.statements}
    assert len(counts) == 51
    assert counts[OTHERS] == 150
    assert profile.totals.queries == 200
    (others,) = [one for one in profile.statements if one.key.fingerprint == OTHERS]
    assert others.key.file == __file__


def test_liveness_checks_of_pool_are_not_counted(empty_db: str) -> None:
    engine = sa.create_engine(empty_db, pool_pre_ping=True)
    run_once(engine)
    with Recorder(engine) as recorder:
        for _ in range(3):
            run_once(engine)
    engine.dispose()
    assert [moment.rows for _, moment in recorded(recorder)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("statement", "is_flagged"),
    [
        ("SELECT now()", False),
        ("SELECT count(*) FROM generate_series(1, 3) AS g", False),
        ("SELECT extract(epoch FROM now())", False),
        ("SELECT relname FROM pg_class LIMIT 1", True),
        ("SELECT 1 FROM (SELECT 1 FROM pg_catalog.pg_class LIMIT 1) AS c", True),
    ],
)
def test_only_statements_that_read_tables_are_n_plus_one(
    engine: Engine, statement: str, is_flagged: bool
) -> None:
    with Recorder(engine) as recorder, engine.connect() as connection:
        for _ in range(20):
            connection.execute(sa.text(statement))
    assert bool(summarize(recorder).n_plus_one) is is_flagged
