"""Run 32 threads and 200 tasks at once on two recorded engines, with errors and cancellations.

``python -m benchmarks.speed.crowd URL STATEMENTS [--plain]`` runs in a separate process. It prints
the number of sent and recorded statements as JSON, and exits with 1 if a count is wrong or
something is left over. The work is done twice, to measure what the second half adds to the process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from aspen.database.profiling.queries import Query
from aspen.database.profiling.recorder import Recorder

THREADS, TASKS = 32, 200
_CONNECTIONS = 12  # per engine: most workers have to wait for one
_FAILS, _CANCELLED = 20, 400  # one in this many
_PATIENCE_S, _FOREVER_S = 0.02, 600.0
_GROWN_MB = 8.0  # twice the growth of unrecorded work; 50,000 leaked records take 12
_ASKED = sa.text("SELECT g FROM generate_series(1, :n) g")
_WRONG = sa.text("SELECT 1 / 0")
_HURRY = sa.text(f"SET LOCAL statement_timeout = {_PATIENCE_S * 1e3:.0f}")
_LONG = sa.text("SELECT pg_sleep(30)")
_ERRORS = {
    "psycopg2": {"failed": "DivisionByZero", "cancelled": "QueryCanceled"},
    "asyncpg": {"failed": "DivisionByZeroError", "cancelled": "CancelledError"},
}

Tally = Counter[str]


def _kind(worker: int, turn: int) -> str:
    number = worker * 7 + turn
    if number % _CANCELLED == 1:
        return "cancelled"
    return "failed" if number % _FAILS == 0 else "fetched"


def _thread(engine: Engine, worker: int, turns: int) -> Tally:
    done: Tally = Counter()
    for turn in range(turns):
        kind = _kind(worker, turn)
        with engine.connect() as connection:
            if kind == "fetched":
                done["rows"] += len(connection.execute(_ASKED, {"n": worker % 5}).all())
            elif kind == "failed":
                _refused(connection, _WRONG)
            else:
                connection.execute(_HURRY)
                done["limits"] += 1
                _refused(connection, _LONG)
        done[kind] += 1
    return done


def _refused(connection: sa.Connection, statement: sa.TextClause) -> None:
    try:
        connection.execute(statement)
    except DBAPIError:
        return
    raise AssertionError("the server was to refuse it")


async def _task(engine: AsyncEngine, worker: int, turns: int) -> Tally:
    done: Tally = Counter()
    for turn in range(turns):
        kind = _kind(worker, turn)
        async with engine.connect() as connection:
            try:
                async with asyncio.timeout(_PATIENCE_S if kind == "cancelled" else None):
                    if kind == "fetched":
                        found = await connection.execute(_ASKED, {"n": worker % 5})
                        done["rows"] += len(found.all())
                    else:
                        await connection.execute(_WRONG if kind == "failed" else _LONG)
            except (TimeoutError, DBAPIError):
                assert kind != "fetched"
        done[kind] += 1
    return done


async def _crowd(engine: Engine, concurrent: AsyncEngine, statements: int) -> tuple[Tally, Tally]:
    threads, tasks = statements // 2 // THREADS, statements // 2 // TASKS
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(THREADS) as workers:
        others = [
            loop.run_in_executor(workers, _thread, engine, n, threads) for n in range(THREADS)
        ]
        ours = await asyncio.gather(*(_task(concurrent, n, tasks) for n in range(TASKS)))
        theirs = await asyncio.gather(*others)
    return _sum(theirs), _sum(ours)


def _sum(tallies: Iterable[Tally]) -> Tally:
    found: Tally = Counter()
    for one in tallies:
        found.update(one)
    return found


def _statements(done: Tally) -> int:
    return done.total() - done["rows"]


def _problems(recorder: Recorder, driver: str, done: Tally) -> list[str]:
    """Return the differences between a recording and the work done."""
    moments = list(recorder.log.moments())
    errors: Counter[str] = Counter()
    for example in recorder.log.examples:
        errors.update(example.errors)
    count = done["fetched"] + done["failed"] + done["cancelled"]
    expected = {
        "statements": (len(moments), _statements(done)),
        "rows": (sum(one.fetched for one in moments), done["rows"]),
        "failed": (sum(one.failed for one in moments), done["failed"] + done["cancelled"]),
        "transactions": (recorder.transactions.begun, count),
        "ended transactions": (len(recorder.transactions), count),
        "waits": (len(recorder.waits), count),
        **{name: (errors[name], done[kind]) for kind, name in _ERRORS[driver].items()},
    }
    return [
        f"{driver}: {found:,} {what}, not {wanted:,}"
        for what, (found, wanted) in expected.items()
        if found != wanted
    ]


def _left() -> Counter[str]:
    """Count recording objects that are alive; a connection in use keeps its cursor class."""
    gc.collect()
    alive: Counter[str] = Counter()
    for one in gc.get_objects():
        if type(one) in {Query, Recorder}:
            alive[type(one).__name__] += 1
        elif isinstance(one, type) and one.__name__ == "RecordingCursor":
            alive["class of cursors"] += 1
    return alive


def _changed(engine: Engine) -> list[str]:
    """Return the traces that a recorder left on an engine."""
    events: Any = engine.dispatch._event_names
    listened = [name for name in events if getattr(engine.dispatch, name)]
    shadowed = [name for name in vars(engine.dialect) if name.startswith("do_")]
    shadowed += [name for name in vars(engine.pool) if name == "connect"]
    return [f"{engine.driver} is left with {name}" for name in (*listened, *shadowed)]


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def _half(engine: Engine, concurrent: AsyncEngine, statements: int, *, plain: bool) -> Any:
    with ExitStack() as recording:
        recorders = [
            recording.enter_context(Recorder(one)) for one in (engine, concurrent) if not plain
        ]
        done = await _crowd(engine, concurrent, statements)
    problems = [*_changed(engine), *_changed(concurrent.sync_engine)]
    for recorder, driver, tally in zip(recorders, _ERRORS, done, strict=False):
        problems += _problems(recorder, driver, tally)
    return sum(map(_statements, done)), problems


async def _run(address: str, statements: int, *, plain: bool) -> tuple[dict[str, Any], list[str]]:
    url = make_url(address)
    engine = sa.create_engine(url, pool_size=_CONNECTIONS, max_overflow=0, pool_timeout=_FOREVER_S)
    concurrent = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_FOREVER_S,
    )
    with engine.connect():
        async with concurrent.connect():
            """Let the dialects detect the server's features."""
    count, problems, memory = 0, [], []
    for _ in range(2):
        counted, wrong = await _half(engine, concurrent, statements // 2, plain=plain)
        count += counted
        problems += wrong
        if left := _left():
            problems.append(f"left behind: {dict(left)}")
        memory.append(_memory_mb())
    await concurrent.dispose()
    engine.dispose()
    grown = memory[1] - memory[0]
    if grown > _GROWN_MB:
        problems.append(f"the second half added {grown:.1f} MB")
    return {"statements": count, "grown_mb": round(grown, 2)}, problems


def main() -> int:
    """Run the work, print the counts as JSON, and return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("statements", type=int)
    parser.add_argument("--plain", action="store_true", help="do not record")
    chosen = parser.parse_args()
    found, problems = asyncio.run(_run(chosen.url, chosen.statements, plain=chosen.plain))
    sys.stdout.write(json.dumps({**found, "problems": problems}) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
