"""``make accidents``: interrupt renames in many ways, and print a Markdown table of the results.

Exits with 1 if a rename leaves the data in a wrong state.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.accidents.campaign import Tally, meet
from benchmarks.accidents.kinds import KINDS, UnavailableError
from benchmarks.accidents.site import STAGES, Site

_OFTEN, _SELDOM = 200, 16


def main() -> int:
    """Inject the failures; return 1 if any of them left something wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accidents", description=__doc__)
    parser.add_argument("--times", type=int, help="number of failures of each kind")
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help="inject only this kind (repeatable)"
    )
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    # Background jobs start with SIGINT ignored, and the interrupted processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    tallies, began = [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aspen-accidents-") as folder:
        site = Site(Path(folder))
        try:
            sys.stdout.write(_HEAD)
            for number, kind in enumerate(chosen.kind or KINDS):
                times = chosen.times or (_SELDOM if number or chosen.kind else _OFTEN)
                tallies.append(_met(site, kind, times, chosen.seed))
                sys.stdout.write(_row(tallies[-1]))
                sys.stdout.flush()
        finally:
            site.close()
    seconds = time.monotonic() - began
    sys.stdout.write(f"\nSeed {chosen.seed}; all of it took {seconds:.0f} s.\n")
    for tally in tallies:
        for fault in tally.faults:
            sys.stdout.write(f"\n**{tally.kind}**: {fault}\n")
    return 1 if any(tally.faults for tally in tallies) else 0


def _met(site: Site, kind: str, times: int, seed: int) -> Tally:
    try:
        return meet(site, kind, times, seed)
    except UnavailableError as error:
        return Tally(kind, unavailable=str(error))


_HEAD = (
    "| kind | times | ended before | ended after | between | history right | done when run again "
    "| at which stage of the run | faults |\n|---|--:|--:|--:|--:|--:|--:|---|--:|\n"
)


def _row(tally: Tally) -> str:
    met = sorted(tally.stages.items(), key=lambda item: _PLACES.get(item[0], len(_PLACES)))
    stages = ", ".join(f"{name} {count}" for name, count in met)
    counts = (tally.times, tally.before, tally.after, tally.between, tally.right, tally.completed)
    cells = [tally.kind, *counts, tally.unavailable or stages, len(tally.faults)]
    return f"| {' | '.join(map(str, cells))} |\n"


_PLACES = {stage: place for place, stage in enumerate(STAGES)}


if __name__ == "__main__":
    sys.exit(main())
