"""Steps as child processes: their limits, and their end with everything that they started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from aspen.workflows.engine.child import Ending, Limits, end_left, marks, run_child

_ROOMY = Limits(60, 150)
_HIDDEN = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
print("ready", flush=True)
time.sleep(600)
"""
_OWNER = """
import sys
from pathlib import Path
from aspen.workflows.engine.child import Limits, marks, run_child
folder = Path(sys.argv[1])
run_child([sys.executable, "-I", "-S", "-c", sys.argv[2]], folder=folder, log=folder / "log",
    environment=marks(folder, "job"), limits=Limits(60, 150), should_stop=lambda: False)
"""


def run(
    folder: Path,
    source: str,
    limits: Limits = _ROOMY,
    should_stop: Callable[[], bool] = lambda: False,
) -> Ending:
    return run_child(
        [sys.executable, "-I", "-S", "-c", source],
        folder=folder,
        log=folder / "log",
        environment=marks(folder, "job"),
        limits=limits,
        should_stop=should_stop,
    )


def left(folder: Path) -> list[int]:
    """Return the processes of steps, including guards."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("ASPEN_JOBS", "").startswith(f"{folder}:"):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def is_ready(tmp_path: Path) -> Callable[[], bool]:
    """Return a function that returns True once the program has printed ``ready``."""
    return lambda: (tmp_path / "log").exists() and "ready" in (tmp_path / "log").read_text()


def test_exit_code_output_and_memory_are_reported(tmp_path: Path) -> None:
    ending = run(tmp_path, "import sys; held = b'x' * 50_000_000; print('said'); sys.exit(7)")
    assert (ending.code, ending.why, ending.was_killed) == (7, "", False)
    assert 50 < ending.megabytes < 100
    assert (tmp_path / "log").read_text() == "said\n"


def test_program_runs_in_its_folder_with_low_priority_in_its_own_session(tmp_path: Path) -> None:
    source = (
        "import os; print(os.getcwd(), os.nice(0), os.getsid(0) == os.getpid() == os.getpgrp())"
    )
    assert run(tmp_path, source).code == 0
    nice = os.nice(0) + 10
    assert (tmp_path / "log").read_text().split() == [str(tmp_path), str(min(nice, 19)), "True"]


@pytest.mark.skipif(
    not os.access("/proc/self/autogroup", os.W_OK),
    reason="the kernel does not group by session, or /proc is read-only",
)
def test_program_has_low_priority_beside_other_sessions(tmp_path: Path) -> None:
    assert run(tmp_path, "print(open('/proc/self/autogroup').read())").code == 0
    assert (tmp_path / "log").read_text().split()[1:] == ["nice", "10"]


def test_program_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    ending = run_child(
        [str(tmp_path / "none")],
        folder=tmp_path,
        log=tmp_path / "log",
        environment={},
        limits=_ROOMY,
        should_stop=lambda: False,
    )
    assert ending.error == f"No such file or directory: {tmp_path}/none"


def test_program_over_its_memory_limit_is_ended(tmp_path: Path) -> None:
    ending = run(tmp_path, "import time; held = bytearray(b'x') * (1 << 30); time.sleep(60)")
    assert ending.why == "memory"
    assert ending.megabytes > 150
    assert left(tmp_path) == []


def test_memory_of_all_processes_counts(tmp_path: Path) -> None:
    source = """
import os, time
children = [os.fork() for _ in range(2)]
held = bytearray(b'x') * (80 << 20)
time.sleep(60)
"""
    assert run(tmp_path, source).why == "memory"
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_shared_memory_counts_once(tmp_path: Path) -> None:
    source = """
import os, time
held = bytearray(b'x') * (80 << 20)
for _ in range(2):
    os.fork()
time.sleep(1)
"""
    ending = run(tmp_path, source)
    assert (ending.code, ending.why) == (0, "")


def test_program_over_its_time_limit_is_ended(tmp_path: Path) -> None:
    source = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    ending = run(tmp_path, source, Limits(0.5, 150))
    assert (ending.why, ending.was_killed) == ("time", False)
    assert ending.seconds < 10


def test_stopped_program_is_gone_with_processes_that_left_its_session(
    tmp_path: Path, is_ready: Callable[[], bool]
) -> None:
    ending = run(tmp_path, _HIDDEN, should_stop=is_ready)
    assert (ending.why, ending.was_killed) == ("stopped", False)
    assert left(tmp_path) == []


def test_killed_program_is_reported_as_killed(tmp_path: Path) -> None:
    ending = run(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert (ending.code, ending.signal, ending.was_killed) == (None, 9, True)


def test_program_ends_with_killed_guard(tmp_path: Path, is_ready: Callable[[], bool]) -> None:
    def kill_guard() -> bool:
        if is_ready():
            guard = next(
                one
                for one in psutil.Process().children()
                if any(word.endswith("guard.py") for word in one.cmdline())
            )
            guard.kill()
        return False

    ending = run(
        tmp_path, "import time; print('ready', flush=True); time.sleep(600)", _ROOMY, kill_guard
    )
    assert ending.was_killed
    wait_for(lambda: left(tmp_path) == [])


@pytest.mark.parametrize(
    "source", [_HIDDEN, "print('ready', flush=True); import time; time.sleep(600)"]
)
def test_no_process_outlives_killed_worker(
    tmp_path: Path, is_ready: Callable[[], bool], source: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path), source]) as owner:
        wait_for(is_ready)
        assert len(left(tmp_path)) >= 2
        owner.kill()
    wait_for(lambda: left(tmp_path) == [])


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_processes_left_by_worker_and_guard_are_ended(
    tmp_path: Path, is_ready: Callable[[], bool]
) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path), _HIDDEN]) as owner:
        wait_for(is_ready)
        wait_for(lambda: len(left(tmp_path)) == 3)
        (guard,) = psutil.Process(owner.pid).children()
        owner.kill()
        guard.kill()
    wait_for(lambda: len(left(tmp_path)) <= 1)
    assert end_left(tmp_path) <= 1
    assert left(tmp_path) == []
    assert end_left(tmp_path) == 0
