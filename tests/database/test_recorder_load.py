"""The recorder under load; ``make bench ARGS=profiler`` does this with 100,000 statements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.crowd import TASKS, THREADS

ROOT = Path(__file__).parents[2]
STATEMENTS = 4_000


@pytest.mark.unpooled("asyncpg keeps prepared statements")
def test_recorder_under_load_counts_exactly_and_leaves_no_hooks(empty_db: str) -> None:
    """The load includes errors and cancellations, and runs twice in a separate process."""
    assert (THREADS, TASKS) == (32, 200)
    command = [sys.executable, "-m", "benchmarks.speed.crowd", empty_db, str(STATEMENTS)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == []
    assert told["statements"] >= STATEMENTS * 0.99
