"""Transactions and savepoints as the recorder sees them, on real connections."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from aspen.database.profiling.queries import TransactionOutcome, Transactions
from aspen.database.profiling.recorder import Recorder, rehearsed
from aspen.database.profiling.report import as_timeline
from aspen.database.profiling.summary import summarize

NOTHING = sa.text("SELECT 1")


def seen(recorder: Recorder) -> list[tuple[int, TransactionOutcome]]:
    return [(one.depth, one.outcome) for one in recorder.transactions.spans()]


def test_transaction_is_recorded_as_committed_or_rolled_back(engine: Engine) -> None:
    with Recorder(engine) as recorder:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT pg_sleep(0.02)"))
        with engine.connect() as connection:
            connection.execute(NOTHING)
    first, second = recorder.transactions.spans()
    assert (first.outcome, second.outcome) == (
        TransactionOutcome.COMMITTED,
        TransactionOutcome.ROLLED_BACK,
    )
    assert first.seconds > 0.02
    assert recorder.began <= first.started < second.started <= recorder.ended


def test_savepoints_end_with_enclosing_transaction(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.begin() as connection:
        with connection.begin_nested(), connection.begin_nested():
            connection.execute(NOTHING)
        with pytest.raises(DBAPIError), connection.begin_nested(), connection.begin_nested():
            connection.execute(sa.text("SELECT 1/0"))
        connection.begin_nested()
    assert seen(recorder) == [
        (2, TransactionOutcome.COMMITTED),
        (1, TransactionOutcome.COMMITTED),
        (2, TransactionOutcome.ROLLED_BACK),
        (1, TransactionOutcome.ROLLED_BACK),
        (1, TransactionOutcome.COMMITTED),
        (0, TransactionOutcome.COMMITTED),
    ]
    assert {one.transaction for one in recorder.transactions.spans()} == {0}


def test_refused_commit_is_recorded_as_failed(engine: Engine) -> None:
    with Recorder(engine) as recorder, engine.connect() as connection:
        connection.execute(
            sa.text("CREATE TEMP TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
        connection.execute(sa.text("INSERT INTO t VALUES (1), (1)"))
        with pytest.raises(DBAPIError):
            connection.commit()
    assert seen(recorder) == [(0, TransactionOutcome.FAILED)]
    assert recorder.commits.failed == 1


def test_lost_connection_closes_recorded_transaction(engine: Engine) -> None:
    with Recorder(engine) as recorder:
        with engine.connect() as connection:
            pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
            os.kill(pid, signal.SIGTERM)
            with pytest.raises(DBAPIError):
                connection.execute(sa.text("SELECT pg_sleep(5)"))
        with engine.connect() as connection:
            connection.execute(NOTHING)
    assert [outcome for _, outcome in seen(recorder)] == [
        TransactionOutcome.CLOSED,
        TransactionOutcome.ROLLED_BACK,
    ]


def test_transaction_open_at_end_of_recording_is_recorded_as_open(engine: Engine) -> None:
    with engine.connect() as connection:
        with Recorder(engine) as recorder:
            connection.execute(NOTHING)
        assert seen(recorder) == [(0, TransactionOutcome.OPEN)]
        connection.rollback()
    assert len(recorder.transactions) == 1


def test_rehearsed_transaction_is_recorded_with_outcome_of_real_run(engine: Engine) -> None:
    with rehearsed(engine), Recorder(engine) as recorder:
        with engine.begin() as connection:
            connection.execute(NOTHING)
        with engine.connect() as connection:
            connection.execute(NOTHING)
    assert seen(recorder) == [
        (0, TransactionOutcome.COMMITTED),
        (0, TransactionOutcome.ROLLED_BACK),
    ]


def test_concurrent_async_transactions_have_separate_timeline_lanes(empty_db: str) -> None:
    async def work() -> Recorder:
        address = sa.make_url(empty_db).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(address)

        async def one(number: int) -> None:
            async with engine.begin() as connection, connection.begin_nested() as nested:
                await connection.execute(sa.text("SELECT pg_sleep(0.1)"))
                if number == 0:
                    await nested.rollback()

        with Recorder(engine) as recorder:
            await asyncio.gather(*map(one, range(3)))
        await engine.dispose()
        return recorder

    recorder = asyncio.run(work())
    assert sorted(seen(recorder)) == [
        *[(0, TransactionOutcome.COMMITTED)] * 3,
        *[(1, TransactionOutcome.COMMITTED)] * 2,
        (1, TransactionOutcome.ROLLED_BACK),
    ]
    timeline = as_timeline(summarize(recorder))
    assert timeline["lanes"] == 3
    assert sorted(band[0] for band in timeline["transactions"]) == [0, 0, 1, 1, 2, 2]


def test_rollback_to_savepoint_ends_later_savepoints() -> None:
    transactions = Transactions()
    transactions.begin(1)
    for name in ("a", "b", "c"):
        transactions.save(1, name)
    transactions.leave(1, "b", TransactionOutcome.ROLLED_BACK)
    assert [one.depth for one in transactions.spans()] == [3, 2]
    transactions.end(1, TransactionOutcome.COMMITTED)
    assert [one.depth for one in transactions.spans()] == [3, 2, 1, 0]


def test_unmatched_savepoint_and_transaction_ends_are_ignored() -> None:
    transactions = Transactions()
    transactions.end(1, TransactionOutcome.COMMITTED)
    transactions.save(1, "a")
    transactions.begin(1)
    transactions.leave(1, "a", TransactionOutcome.COMMITTED)
    transactions.begin(1)
    transactions.stop()
    assert [one.outcome for one in transactions.spans()] == [
        TransactionOutcome.CLOSED,
        TransactionOutcome.OPEN,
    ]
