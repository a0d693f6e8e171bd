"""Running commands and telling what they took."""

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
"""Runs a command once."""


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
        task: What was measured.
        baseline: What it is held against.
        ours: Medians of ours.
        theirs: Medians of the baseline.
        goal: The ratio that must not be passed; None where nothing was promised.
        rows: How many rows were changed; 0 where it is not about rows.
        samples: How many the table had.
        rounds: How often both were run.
        goal_mb: The memory of ours that must not be passed, in MiB.
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
        """Our seconds over theirs."""
        return self.ours.seconds / self.theirs.seconds

    @property
    def holds(self) -> bool:
        """Whether the goals are met."""
        is_fast = self.goal is None or self.ratio <= self.goal
        return is_fast and (self.goal_mb is None or self.ours.peak_mb < self.goal_mb)

    def as_json(self) -> dict[str, Any]:
        """What the file of figures has of it."""
        return {**asdict(self), "ratio": self.ratio, "holds": self.holds}


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    allowed: Collection[int] = (0,),
    said: Callable[[str], object] = lambda _text: None,
) -> Sample:
    """Run a command to its end, its results thrown away.

    Args:
        command: The command.
        environment: What is added to the environment.
        allowed: The exit codes that it may end with.
        said: Is handed what it said on stderr.

    Raises:
        RuntimeError: It ended with another exit code.
    """
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**_surroundings(), **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
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
    # An installed program has its bytecode beside it; compiling it anew is no part of a start.
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


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


def by_turns(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Sample]:
    """The medians of each, run by turns, so that what else the machine does meets all alike."""
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
    """Measure both by turns."""
    found = by_turns({"theirs": theirs, "ours": ours}, rounds)
    return Comparison(task, baseline, found["ours"], found["theirs"], goal, rounds=rounds)


def _median(samples: list[Sample]) -> Sample:
    return Sample(median(s.seconds for s in samples), median(s.peak_mb for s in samples))
