"""The overhead of recording a query, compared with ``echo=True`` to a file in the same run."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import quantiles

import sqlalchemy as sa
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from aspen.database.profiling.recorder import Recorder
from aspen.local.postgres.server import SUPERUSER, Cluster
from benchmarks.speed.measuring import Comparison, Sample

_SYNC_GOAL, _ASYNC_GOAL, _OFF_GOAL = 0.15, 0.35, 1.05
_CHUNK, _TURNS = 200, 100  # queries per turn, and turns of each kind
_SHOWN = 100_000  # the number of queries that the figures are given for
_KINDS = ("plain", "recorded", "off", "echo")
_STATEMENT = sa.text("SELECT 1")


def measure() -> Iterator[Comparison]:
    """Measure synchronous and asynchronous engines, also with the recorder off."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        cluster = Cluster(folder)
        try:
            cluster.up()
            url = make_url(cluster.url("postgres", SUPERUSER))
            yield from _measured("sync", _sync(url, folder), _SYNC_GOAL)
            yield from _measured("async", asyncio.run(_async(url, folder)), _ASYNC_GOAL)
        finally:
            cluster.reset()


def _measured(kind: str, found: dict[str, float], goal: float) -> Iterator[Comparison]:
    plain, off = found["plain"], found["off"]
    recorded, echoed = _sample(found["recorded"] - plain), _sample(found["echo"] - plain)
    task = f"recording, {kind}, added"
    yield Comparison(task, "echo=True to a file, added", recorded, echoed, goal, _SHOWN)
    task = f"recorder off again, {kind}"
    yield Comparison(task, "never recorded", _sample(off), _sample(plain), _OFF_GOAL, _SHOWN)


def _sample(seconds: float) -> Sample:
    return Sample(seconds * _SHOWN, 0.0)


def _undisturbed(seconds: list[float]) -> float:
    """Return the 10th percentile, because a query is so short that any other load shows."""
    return quantiles(seconds, n=10)[0]


@contextmanager
def _as(kind: str, engine: Engine) -> Iterator[None]:
    """Record or echo the engine's queries, or do neither.

    All kinds use the pool's single connection: two server processes are never equally fast.
    """
    engine.echo = kind == "echo"
    try:
        with Recorder(engine) if kind == "recorded" else nullcontext():
            yield
    finally:
        engine.echo = False


def _sync(url: URL, folder: Path) -> dict[str, float]:
    engine = sa.create_engine(url, pool_size=1)
    runs: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    with _log_in(folder):
        for _ in range(_TURNS):
            for kind, found in runs.items():
                with _as(kind, engine), engine.connect() as connection:
                    connection.execute(_STATEMENT).fetchall()
                    began = time.perf_counter()
                    for _ in range(_CHUNK):
                        connection.execute(_STATEMENT).fetchall()
                    found.append((time.perf_counter() - began) / _CHUNK)
    engine.dispose()
    return {kind: _undisturbed(found) for kind, found in runs.items()}


async def _async(url: URL, folder: Path) -> dict[str, float]:
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"), pool_size=1)
    runs: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    with _log_in(folder):
        for _ in range(_TURNS):
            for kind, found in runs.items():
                with _as(kind, engine.sync_engine):
                    async with engine.connect() as connection:
                        (await connection.execute(_STATEMENT)).fetchall()
                        began = time.perf_counter()
                        for _ in range(_CHUNK):
                            (await connection.execute(_STATEMENT)).fetchall()
                        found.append((time.perf_counter() - began) / _CHUNK)
    await engine.dispose()
    return {kind: _undisturbed(found) for kind, found in runs.items()}


@contextmanager
def _log_in(folder: Path) -> Iterator[None]:
    """Make ``echo=True`` write to a file."""
    logger = logging.getLogger("sqlalchemy.engine.Engine")
    handler = logging.FileHandler(folder / "echo.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = True
