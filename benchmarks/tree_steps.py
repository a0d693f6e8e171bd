"""``make tree-steps``: measure time and memory of each step of a tree, for 50 to 418 real genomes.

Each step runs as the engine runs it, as a process of its own, on one core. Goals: the four steps
take 18, 35, and 75 s for 50, 150, and 418 genomes, and none takes more than 400 MB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.workflows.tree.samples import REAL, STEPS, SURROUNDINGS, Job, real_samples

_GOALS = {50: 18.0, 150: 35.0, 418: 75.0}
_MEGABYTES = 400


def main() -> int:
    """Print a table; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=list(_GOALS))
    given = parser.parse_args()
    if REAL is None:
        print("The real genomes are not here.", file=sys.stderr)  # noqa: T201
        return 2
    table = Table("Genomes", "Step", "Seconds", "CPU seconds", "MB")
    missed = False
    for size in given.sizes:
        total = 0.0
        for step, seconds, processor, megabytes in _measured(size):
            total += seconds
            missed |= megabytes > _MEGABYTES
            cells = (f"{seconds:.1f}", f"{processor:.1f}", f"{megabytes:.0f}")
            table.add_row(str(size), step, *cells)
        goal = _GOALS.get(size)
        missed |= goal is not None and total > goal
        table.add_row(str(size), "all", f"{total:.1f}", "", "", end_section=True)
    Console().print(table)
    return int(missed)


def _measured(size: int) -> list[tuple[str, float, float, float]]:
    samples = real_samples(size)
    found = []
    with tempfile.TemporaryDirectory() as name:
        job = Job(Path(name))
        job.export(samples)
        for step in STEPS:
            with (job.folder / f"{step}.log").open("w") as log:
                began = time.monotonic()
                process = subprocess.Popen(
                    [sys.executable, "-m", "aspen.workflows.steps", step, name],
                    # Programs that happen to be installed here are not what is measured.
                    env={**os.environ, **SURROUNDINGS, "PATH": ""},
                    stdout=log,
                    stderr=log,
                    preexec_fn=_on_one_core,  # noqa: PLW1509 - there are no threads here
                )
                _, status, used = os.wait4(process.pid, 0)
            if os.waitstatus_to_exitcode(status):
                sys.exit(f"{step} failed:\n{(job.folder / f'{step}.log').read_text()}")
            seconds = time.monotonic() - began
            found.append((step, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024))
            if step == "tree-align":
                job.subsample(samples)
    return found


def _on_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


if __name__ == "__main__":
    sys.exit(main())
