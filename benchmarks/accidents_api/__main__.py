"""``make accidents-api``: run 10,000 renames through a failing API; exit with 1 on a bad result.

Each run swaps names, rotates them, moves them along chains, and replaces them with new ones, while
failures are injected. At the end, every name must be as requested, everything else unchanged, and
no temporary name may remain.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aspen.local.postgres.server import Cluster
from benchmarks.accidents_api.crasher import Crasher
from benchmarks.accidents_api.gate import Gate, Mishap, as_live
from benchmarks.accidents_api.kills import Killing
from benchmarks.accidents_api.site import Site, ended, opened
from benchmarks.accidents_api.trying import RENAME, Try
from tests.conftest import Server

_CHANCES: dict[Mishap, float] = {
    "503 before": 0.1,
    "504 after": 0.05,
    "reset before": 0.05,
    "reset after": 0.05,
    "cut answer": 0.05,
    "429": 0.05,
    "stall": 0.08,
}
_READING: dict[Mishap, float] = {"503 before": 0.2, "reset before": 0.1, "cut answer": 0.1}


@dataclass
class _Met:
    """The result of one renaming.

    Attributes:
        kind: What went wrong.
        seconds: The total time.
        runs: The number of times that the command was started.
        requests: The number of changes that got through.
        happened: The number of each kind of mishap.
    """

    kind: str
    seconds: float
    runs: int
    requests: int
    happened: dict[str, int]


def main() -> int:
    """Run the renamings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accidents_api", description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=3, help="number of runs of each kind")
    parser.add_argument("--kind", action="append", choices=list(_KINDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kills", type=int, default=0, help="only run this many small renames, and kill each"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aspen-accidents-api-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account needs to pass through
        try:
            if chosen.kills:
                with opened(folder, Server(folder), 40, roles=False) as site:
                    _kill_small_ones(site, folder, chosen.kills, chosen.seed)
                return 0
            with opened(folder, Server(folder), chosen.samples) as site:
                sys.stdout.write(_HEAD)
                for number in range(chosen.times):
                    for place, kind in enumerate(chosen.kind or _KINDS):
                        # No two may want the same new names.
                        _tell(_meet(site, kind, chosen.seed * 1_000 + number * 10 + place))
        finally:
            Cluster(folder).reset()
    return 0


def _kill_small_ones(site: Site, folder: Path, times: int, seed: int) -> None:
    """Kill the given number of renames at random moments, and then do what the program suggests."""
    with Crasher() as crasher:
        killing = Killing(site, crasher, folder, random.Random(seed))
        killing.calm()
        killed = 0
        while killed < times:
            killed += killing.kill_at_random()
    sys.stdout.write(f"| {killed} kills, 0 groups locked | times |\n|---|--:|\n")
    for what, count in sorted(killing.met.items()):
        sys.stdout.write(f"| {what} | {count} |\n")


_HEAD = "| what went wrong | seconds | starts | requests | mishaps |\n|---|--:|--:|--:|---|\n"


def _tell(met: _Met) -> None:
    happened = ", ".join(f"{times} of {what}" for what, times in met.happened.items())
    sys.stdout.write(
        f"| {met.kind} | {met.seconds:.0f} | {met.runs} | {met.requests} | {happened} |\n"
    )
    sys.stdout.flush()


def _meet(site: Site, kind: str, seed: int) -> _Met:
    """Run one renaming; raise an AssertionError if it ends badly."""
    with tempfile.TemporaryDirectory(dir=site.folder) as name:
        renaming = Try(site, Path(name), seed)
        began = time.monotonic()
        met = _KINDS[kind](renaming, random.Random(seed))
        met.seconds, met.kind = time.monotonic() - began, kind
        renaming.is_done()
        assert renaming.temporary() == 0
        return met


def _calm(renaming: Try, _dice: random.Random) -> _Met:
    with renaming.gate() as gate:
        return _until_done(renaming, gate, {})


def _slow(renaming: Try, _dice: random.Random) -> _Met:
    with renaming.gate(cost_s=as_live) as gate:
        return _until_done(renaming, gate, {})


def _naughty(renaming: Try, dice: random.Random) -> _Met:
    rules = {"chances": _CHANCES, "reading": _READING, "stall_s": 30.0, "dice": dice}
    with renaming.gate(cost_s=_tenth, **rules) as gate:
        return _until_done(renaming, gate, gate.happened)


def _service_killed(renaming: Try, dice: random.Random) -> _Met:
    happened = {"API killed": 0}

    def kill() -> None:
        renaming.site.api.kill()
        time.sleep(dice.uniform(0, 2))
        renaming.site.api.start()
        happened["API killed"] += 1

    with renaming.gate(cost_s=as_live) as gate, _now_and_then(kill, dice, 3, gate):
        return _until_done(renaming, gate, happened)


def _command_killed(renaming: Try, dice: random.Random) -> _Met:
    return _killed(renaming, dice, {})


def _everything(renaming: Try, dice: random.Random) -> _Met:
    return _killed(renaming, dice, _CHANCES)


def _killed(renaming: Try, dice: random.Random, chances: dict[Mishap, float]) -> _Met:
    happened = {"command killed": 0}
    total = _Met("", 0, 0, 0, happened)
    with renaming.gate(cost_s=_tenth, chances=chances, stall_s=1.0, dice=dice) as gate:
        for _ in range(5):
            process = renaming.site.start(gate.url, renaming.home, *RENAME, renaming.mapping)
            gate.on_change = _Killer(process, dice.randint(0, 3), dice.uniform(0, 0.2))
            happened["command killed"] += ended(process).code == -signal.SIGKILL
            total.runs += 1
        gate.on_change = lambda _number: None
        last = _until_done(renaming, gate, {})
        happened.update(gate.happened)
    total.runs, total.requests = total.runs + last.runs, last.requests
    return total


class _Killer:
    """A hook that kills a command some time after one of its requests arrives."""

    def __init__(self, process: subprocess.Popen[str], request: int, delay_s: float):
        self._timer = threading.Timer(delay_s, process.kill)
        self._left = request

    def __call__(self, _number: int) -> None:
        if self._left == 0:
            self._timer.start()
        self._left -= 1


def _until_done(renaming: Try, gate: Gate, happened: dict[str, int]) -> _Met:
    """Run the command to its end, check that it succeeded, and return the result."""
    done = ended(renaming.site.start(gate.url, renaming.home, *RENAME, renaming.mapping))
    assert done.code == 0, done.err
    return _Met("", 0, 1, len(gate.sizes), happened)


def _tenth(rows: int) -> float:
    return as_live(rows) / 10


@contextmanager
def _now_and_then(
    act: Callable[[], None], dice: random.Random, times: int, gate: Gate
) -> Iterator[None]:
    """Do something a number of times at random moments, once changes are being made."""
    over = threading.Event()

    def work() -> None:
        while not gate.sizes and not over.wait(0.05):
            pass
        for _ in range(times):
            if over.wait(dice.uniform(0.5, 3)):
                return
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


_KINDS: dict[str, Callable[[Try, random.Random], _Met]] = {
    "nothing": _calm,
    "as slow as the live service": _slow,
    "503, 504, 429, resets, stalls of 30 s": _naughty,
    "the API killed three times": _service_killed,
    "the command killed five times": _command_killed,
    "the command killed, and the rest": _everything,
}


if __name__ == "__main__":
    sys.exit(main())
