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
from aspen.database.profiling.summary import summarize

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


def test_pool_pre_ping_is_not_counted_as_query(engine: Engine, everything: Everything) -> None:
    for _ in range(3):
        run(engine)
    tally = everything.since()
    assert len(tally.log) == 3
    assert len(tally.waits) == 2  # the engine was not known before its first connection
    assert len(tally.rollbacks) == 3


def test_since_counts_only_queries_after_mark(engine: Engine, everything: Everything) -> None:
    run(engine, "select 1 as before")
    everything.mark()
    run(engine, "select generate_series(1, 4)")
    found = summarize(everything.since())
    assert (found.totals.queries, found.totals.rows, found.totals.transactions) == (1, 4, 1)
    assert found.totals.rollbacks == 1
    assert found.totals.wall_ms > found.totals.execute_ms > 0
    assert len(everything.since().log) == 0
    assert len(everything.tally.log) == 2


def test_concurrent_first_use_of_engine_leaves_no_hooks(
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


def test_engine_with_its_own_recorder_is_not_tallied(
    engine: Engine, everything: Everything
) -> None:
    with Recorder(engine) as recorder:
        run(engine)
    assert (len(recorder.log), len(everything.since().log)) == (1, 0)
    run(engine)
    assert len(everything.since().log) == 1


def test_async_engines_are_tallied(empty_db: str, everything: Everything) -> None:
    async def main() -> None:
        engine = create_async_engine(sa.make_url(empty_db).set(drivername="postgresql+asyncpg"))
        async with engine.connect() as connection:
            await connection.execute(sa.text("select 1"))
        await engine.dispose()

    asyncio.run(main())
    assert len(everything.since().log) == 1
