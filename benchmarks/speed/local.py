"""Start and stop times of the local deployment, compared with their limits."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from aspen.local.deployment import Deployment
from benchmarks.speed.measuring import Comparison, Sample, compare, run

_COLD_S, _WARM_S, _DOWN_S = 20.0, 5.0, 3.0
_ROUNDS = 5


def measure() -> Iterator[Comparison]:
    """Measure ``local up`` from scratch and with existing data, and ``local down``."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as folder:
        Path(folder).chmod(0o711)  # the server's account needs to pass through
        home = {"ASPEN_HOME": folder}
        deployment = Deployment(Path(folder) / "data")

        def local(*words: str) -> Sample:
            aspencli = str(Path(sys.executable).with_name("aspencli"))
            return run([aspencli, "local", *words], home)

        def cold() -> Sample:
            deployment.reset()
            return local("up")

        def warm() -> Sample:
            deployment.down()
            return local("up")

        def down() -> Sample:
            deployment.up()
            return local("down")

        try:
            yield _within("local up, from nothing", cold, _COLD_S)
            yield _within("local up, data are there", warm, _WARM_S)
            yield _within("local down", down, _DOWN_S)
        finally:
            deployment.reset()


def _within(name: str, ours: Callable[[], Sample], seconds: float) -> Comparison:
    """Compare with a time limit, because no other program does the same."""
    return compare(
        name, ours, f"{seconds:g} s", lambda: Sample(seconds, 0.0), goal=1.0, rounds=_ROUNDS
    )
