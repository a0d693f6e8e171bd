"""``make fuzz``: run many generated cases, and print the results; exit with 1 if a case fails."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded_by

from benchmarks.fuzz import changes
from benchmarks.fuzz.reader import FILES, LARGEST_MB, peak_of_reading, read_whole, write_large
from benchmarks.fuzz.renames import campaign, database_of_its_own

_LARGE = 12  # files
_LARGE_MB = 8


def main() -> int:
    """Run the campaign; return 1 if a case fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument(
        "--cases", type=int, default=20_000, help="number of mappings, and of files"
    )
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    sys.stdout.write("| what | cases | seconds | failures |\n|---|--:|--:|--:|\n")
    results = [
        _timed("mappings: plan and outcome", lambda: _mappings(chosen.cases, chosen.seed)),
        _timed(
            "several columns: plan, outcome, undo", lambda: _changes(chosen.cases // 5, chosen.seed)
        ),
        _timed("files: random and damaged", lambda: _files(chosen.cases, chosen.seed)),
        _timed(f"files of {_LARGE_MB} MiB: memory", lambda: _large_files(chosen.seed)),
    ]
    return 0 if all(results) else 1


def _timed(what: str, work: Callable[[], str]) -> bool:
    began, failure, cases = time.monotonic(), "", ""
    try:
        cases = work()
    except Exception:  # noqa: BLE001 - any exception is a finding
        failure = traceback.format_exc()
    seconds = time.monotonic() - began
    sys.stdout.write(f"| {what} | {cases} | {seconds:.0f} | {int(bool(failure))} |\n{failure}")
    sys.stdout.flush()
    return not failure


def _mappings(cases: int, seed: int) -> str:
    with database_of_its_own() as case:
        campaign(case, cases, seed)
        return f"{case.plans:,} planned, {case.outcomes:,} written"


def _changes(cases: int, seed: int) -> str:
    with changes.database_of_its_own() as case:
        changes.campaign(case, cases, seed)
        return f"{case.plans:,} planned, {case.outcomes:,} written, {case.undone:,} taken back"


def _files(cases: int, seed: int) -> str:
    done = 0
    with tempfile.TemporaryDirectory(prefix="aspen-fuzz-") as folder:
        file = Path(folder) / "ids.csv"

        @seeded_by(seed)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(content=FILES)
        def check(content: bytes) -> None:
            nonlocal done
            done += 1
            file.write_bytes(content)
            read_whole(file)

        check()
    return f"{done:,}"


def _large_files(seed: int) -> str:
    peaks = []
    with tempfile.TemporaryDirectory(prefix="aspen-fuzz-") as folder:
        file = Path(folder) / "ids.csv"
        for number in range(_LARGE):
            write_large(file, _LARGE_MB, Random(f"{seed} {number}"))
            peaks.append(peak_of_reading(file))
            assert peaks[-1] < LARGEST_MB, f"file {number}: {peaks[-1]:.0f} MiB"
    return f"{_LARGE}, at most {max(peaks):.0f} MiB"


if __name__ == "__main__":
    sys.exit(main())
