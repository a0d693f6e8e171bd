"""Running commands and telling what they took."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Sample:
    """One run of a command.

    Attributes:
        seconds: From start to end, wall clock.
        peak_mb: The most memory that it held, in MiB.
    """

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Comparison:
    """Ours against a baseline.

    Attributes:
        name: What was measured.
        baseline: What it is held against.
        goal: The ratio that must not be passed.
        ours: Medians of ours.
        theirs: Medians of the baseline.
    """

    name: str
    baseline: str
    goal: float
    ours: Sample
    theirs: Sample

    @property
    def ratio(self) -> float:
        """Our seconds over theirs."""
        return self.ours.seconds / self.theirs.seconds

    @property
    def holds(self) -> bool:
        """Whether the goal is met."""
        return self.ratio <= self.goal


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Sample:
    """Run a command to its end, its output thrown away.

    Raises:
        RuntimeError: It did not exit with 0.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        watch = _PeakWatch(process.pid)
        errors = process.communicate()[1]
        seconds = time.perf_counter() - began
        watch.join()
    if process.returncode:
        raise RuntimeError(f"{command[0]} exited with {process.returncode}: {errors.decode()}")
    return Sample(seconds, watch.peak_kb / 1024)


class _PeakWatch(threading.Thread):
    """Reads a process's high-water mark until it ends.

    (What wait4() tells of it is at least what the process that started it held.)
    """

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.peak_kb = 0
        self.start()

    def run(self) -> None:
        while True:
            try:
                found = re.search(r"VmHWM:\s+(\d+)", self._status.read_text())
            except OSError:
                return
            if not found:  # it has ended
                return
            self.peak_kb = max(self.peak_kb, int(found[1]))
            time.sleep(0.005)


def compare(
    name: str,
    ours: Callable[[], Sample],
    baseline: str,
    theirs: Callable[[], Sample],
    *,
    goal: float,
    rounds: int = 5,
) -> Comparison:
    """Measure both by turns, so that what else the machine does meets both alike."""
    pairs = [(theirs(), ours()) for _ in range(rounds)]
    return Comparison(
        name, baseline, goal, _median([b for _, b in pairs]), _median([a for a, _ in pairs])
    )


def _median(samples: list[Sample]) -> Sample:
    return Sample(median(s.seconds for s in samples), median(s.peak_mb for s in samples))
