"""Running commands and measuring the time and memory they take."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

Contender = Callable[[], "Sample"]
"""A function that runs a command once."""


@dataclass(frozen=True)
class Sample:
    """One run of a command.

    Attributes:
        seconds: The wall-clock time from start to end.
        peak_mb: The peak memory, in MiB.
    """

    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Comparison:
    """Our program compared with a baseline.

    Attributes:
        task: The measured task.
        baseline: The name of the baseline.
        ours: The medians of our program.
        theirs: The medians of the baseline.
        goal: The highest acceptable ratio; None if there is no goal.
        rows: The number of rows changed; 0 if that does not apply.
        samples: The number of samples in the table.
        rounds: The number of runs of each.
        goal_mb: The upper limit for our memory, in MiB.
    """

    task: str
    baseline: str
    ours: Sample
    theirs: Sample
    goal: float | None = None
    rows: int = 0
    samples: int = 0
    rounds: int = 5
    goal_mb: float | None = None

    @property
    def ratio(self) -> float:
        """Return our seconds divided by theirs."""
        return self.ours.seconds / self.theirs.seconds

    @property
    def holds(self) -> bool:
        """Return True if the goals are met."""
        is_fast = self.goal is None or self.ratio <= self.goal
        return is_fast and (self.goal_mb is None or self.ours.peak_mb < self.goal_mb)

    def as_json(self) -> dict[str, Any]:
        """Return the record for the file of figures."""
        return {**asdict(self), "ratio": self.ratio, "holds": self.holds}


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    allowed: Collection[int] = (0,),
    said: Callable[[str], object] = lambda _text: None,
    stdout: int = subprocess.DEVNULL,
) -> Sample:
    """Run a command to its end; by default, discard its results.

    Args:
        command: The command.
        environment: Variables to add to the environment.
        allowed: The acceptable exit codes.
        said: Receives the command's stderr.
        stdout: The descriptor for its results.

    Raises:
        RuntimeError: The command exited with another code.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**_surroundings(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    ) as process:
        watch = _PeakWatch(process.pid)
        errors = process.communicate()[1].decode()
        seconds = time.perf_counter() - began
        watch.join()
    if process.returncode not in allowed:
        raise RuntimeError(f"{command[0]} exited with {process.returncode}: {errors}")
    said(errors)
    return Sample(seconds, watch.peak_kb / 1024)


def _surroundings() -> dict[str, str]:
    # An installed program has its bytecode; compiling it again is not part of a start.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class _PeakWatch(threading.Thread):
    """A thread that reads a process's peak memory until it exits.

    (wait4() would report at least the peak of the process that started it.)
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
            if not found:  # it has exited
                return
            self.peak_kb = max(self.peak_kb, int(found[1]))
            time.sleep(0.005)


def by_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Sample]:
    """Return the median of each contender; they run in turns, so other load affects all alike."""
    runs: dict[str, list[Sample]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            runs[name].append(contender())
    return {name: _median(samples) for name, samples in runs.items()}


def compare(
    task: str,
    ours: Contender,
    baseline: str,
    theirs: Contender,
    *,
    goal: float,
    rounds: int,
) -> Comparison:
    """Measure both in turns."""
    found = by_turns({"theirs": theirs, "ours": ours}, rounds)
    return Comparison(task, baseline, found["ours"], found["theirs"], goal, rounds=rounds)


def _median(samples: list[Sample]) -> Sample:
    return Sample(median(s.seconds for s in samples), median(s.peak_mb for s in samples))
