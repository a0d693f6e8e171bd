"""Recording of every engine in the process at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine

from aspen.database.profiling.budgets import Everything
from aspen.database.profiling.recorder import Recorder
from aspen.database.profiling.summary import summarise

THREADS = 8


@pytest.fixture
def engine(empty_db: str) -> Iterator[Engine]:
    engine = sa.create_engine(empty_db, pool_size=THREADS, pool_pre_ping=True)
    yield engine
    engine.dispose()


@pytest.fixture
def everything() -> Iterator[Everything]:
    everything = Everything()
    everything.start()
    yield everything
    everything.stop()


def run(engine: Engine, sql: str = "select 1") -> None:
    with engine.connect() as connection:
        connection.execute(sa.text(sql)).all()


def test_what_the_pool_asks_of_a_connection_is_no_query(
    engine: Engine, everything: Everything
) -> None:
    for _ in range(3):
        run(engine)
    tally = everything.since()
    assert len(tally.log) == 3
    assert len(tally.waits) == 2  # the engine was not known before its first connection
    assert len(tally.rollbacks) == 3


def test_since_tells_of_what_came_after_the_mark_only(
    engine: Engine, everything: Everything
) -> None:
    run(engine, "select 1 as before")
    everything.mark()
    run(engine, "select generate_series(1, 4)")
    found = summarise(everything.since())
    assert (found.totals.queries, found.totals.rows, found.totals.transactions) == (1, 4, 1)
    assert found.totals.rollbacks == 1
    assert found.totals.wall_ms > found.totals.execute_ms > 0
    assert len(everything.since().log) == 0
    assert len(everything.tally.log) == 2


def test_threads_that_meet_an_engine_at_once_leave_nothing_behind(
    engine: Engine, everything: Everything
) -> None:
    together = threading.Barrier(THREADS)

    def work() -> None:
        together.wait()
        for _ in range(20):
            run(engine)

    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(work) for _ in range(THREADS)]:
            done.result()
    assert len(everything.since().log) == THREADS * 20
    everything.stop()
    run(engine)
    assert len(everything.since().log) == 0
    assert "do_begin" not in vars(engine.dialect)
    with Recorder(engine) as recorder:
        run(engine)
    assert len(recorder.log) == 1


def test_an_engine_that_somebody_records_is_left_to_them(
    engine: Engine, everything: Everything
) -> None:
    with Recorder(engine) as recorder:
        run(engine)
    assert (len(recorder.log), len(everything.since().log)) == (1, 0)
    run(engine)
    assert len(everything.since().log) == 1


def test_asynchronous_engines_are_recorded_as_well(empty_db: str, everything: Everything) -> None:
    async def main() -> None:
        engine = create_async_engine(sa.make_url(empty_db).set(drivername="postgresql+asyncpg"))
        async with engine.connect() as connection:
            await connection.execute(sa.text("select 1"))
        await engine.dispose()

    asyncio.run(main())
    assert len(everything.since().log) == 1
