"""Recording under load: a crowd of threads and tasks, and a million queries in little memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from aspen.local.postgres.server import SUPERUSER, Cluster
from benchmarks.speed.crowd import TASKS, THREADS
from benchmarks.speed.measuring import Comparison, Sample, run

_CROWD, _MANY = 100_000, 1_000_000  # statements
_CROWD_GOAL, _MANY_GOAL_MB = 1.5, 400.0


def measure() -> Iterator[Comparison]:
    """Compare both with the same work unrecorded.

    Raises:
        RuntimeError: A count is wrong, or a recording left something behind.
    """
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        cluster = Cluster(folder)
        try:
            cluster.up()
            url = cluster.url("postgres", SUPERUSER)
            yield _compared(
                f"{THREADS} threads and {TASKS} tasks recorded, counts exact, nothing left",
                *_both("crowd", url, _CROWD),
                rows=_CROWD,
                goal=_CROWD_GOAL,
            )
            yield _compared(
                "recorded, summed up and written as a page",
                *_both("many_queries", url, _MANY),
                rows=_MANY,
                goal_mb=_MANY_GOAL_MB,
            )
        finally:
            cluster.reset()


def _both(module: str, url: str, count: int) -> tuple[Sample, Sample]:
    command = [sys.executable, "-m", f"benchmarks.speed.{module}", url, str(count)]
    return run(command), run([*command, "--plain"])


def _compared(
    task: str,
    ours: Sample,
    theirs: Sample,
    *,
    rows: int,
    goal: float | None = None,
    goal_mb: float | None = None,
) -> Comparison:
    return Comparison(
        task, "not recorded", ours, theirs, goal, rows=rows, rounds=1, goal_mb=goal_mb
    )
