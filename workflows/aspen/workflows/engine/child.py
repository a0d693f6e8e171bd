"""A step as a child process: started, limited, and ended with everything that it started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GUARD = Path(__file__).with_name("guard.py")
_NICE = 10
_LOOK_S = 0.1
_STOP_S = 8.0  # longer than the guard takes to kill everything
_KILL_S = 5.0
_PROC = Path("/proc")
MARK = "ASPEN_JOBS"
"""The variable with the folder of jobs, by which the processes of steps are recognized."""


@dataclass(frozen=True)
class Limits:
    """The limits of a step, over all of its processes."""

    seconds: float
    megabytes: int


@dataclass(frozen=True)
class Ending:
    """The end of a step's process.

    Attributes:
        code: The exit code; None if it was killed.
        signal: The signal that ended it; None if it exited.
        why: The reason why it was ended: ``time``, ``memory``, ``stopped``, or empty.
        megabytes: The most memory that its processes used together.
        error: The reason why it could not be started; empty if it was.
    """

    code: int | None = None
    signal: int | None = None
    why: str = ""
    megabytes: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def was_killed(self) -> bool:
        """Return True if the system, or a person, killed it."""
        return self.code is None and not self.why and not self.error


def run_child(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    limits: Limits,
    should_stop: Callable[[], bool],
) -> Ending:
    """Run a command as a child process until it ends, is stopped, or exceeds a limit.

    None of its processes is left when this returns, and all of them end if this process does.

    Raises:
        OSError: The log cannot be written.
    """
    given = {
        "command": list(command),
        "folder": str(folder),
        "log": str(log),
        "seconds": limits.seconds,
        "megabytes": limits.megabytes,
        "nice": _NICE,
    }
    with contextlib.closing(_GuardedCommand(given, environment)) as guarded:
        return guarded.until_it_ends(should_stop)


class _GuardedCommand:
    """A command that a guard runs, and what the guard has said about it so far."""

    def __init__(self, given: Mapping[str, Any], environment: Mapping[str, str]):
        self._guard = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", str(_GUARD), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        assert self._guard.stdin  # noqa: S101 - we asked for the pipes
        assert self._guard.stdout  # noqa: S101 - same
        self._stdin, self._stdout = self._guard.stdin, self._guard.stdout
        self._pid: int | None = None
        self._ending: Ending | None = None
        self._rest = b""

    def until_it_ends(self, should_stop: Callable[[], bool]) -> Ending:
        """Wait until the command ends, which it has to once ``should_stop`` returns True."""
        stopped_at = None
        while self._ending is None:
            ready, _, _ = select.select([self._stdout], [], [], _LOOK_S)
            if ready:
                if not self._read():
                    break  # the guard was killed
            elif stopped_at is None and should_stop():
                stopped_at = time.monotonic()
                self._stdin.close()
            elif stopped_at is not None and time.monotonic() - stopped_at > _STOP_S:
                break  # it does not react
        if self._ending is None:
            return Ending(signal=signal.SIGKILL, why="stopped" if stopped_at is not None else "")
        return self._ending

    def _read(self) -> bool:
        """Read what the guard says; return False if it has ended."""
        chunk = os.read(self._stdout.fileno(), 65_536)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in map(json.loads, lines):
            self._pid = line.get("pid", self._pid)
            self._ending = _ending(line) or self._ending
        return bool(chunk)

    def close(self) -> None:
        """End the guard, and the command if that has not ended."""
        if self._ending is None:
            self._kill()
        with contextlib.suppress(OSError):
            self._stdin.close()
        self._stdout.close()
        self._guard.wait()

    def _kill(self) -> None:
        """Kill the guard and the processes that it can no longer end."""
        self._guard.kill()
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)


def _ending(line: Mapping[str, Any]) -> Ending | None:
    if "pid" in line:
        return None
    return Ending(**line)


def end_left(jobs: Path, *, job: str | None = None) -> int:
    """Kill the processes of steps that a killed worker left behind; return how many there were.

    Args:
        jobs: The folder of jobs, which the processes have in their environment.
        job: Only those of this job.
    """
    own = os.getpid()
    seen = set[int]()
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:
        found = [pid for pid in _marked(jobs, job) if pid != own]
        seen.update(found)
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            break
        time.sleep(0.02)
    return len(seen)


def marks(jobs: Path, job: str) -> dict[str, str]:
    """Return the variables by which the processes of a job's steps are recognized."""
    return {MARK: f"{jobs}:{job}"}


def _marked(jobs: Path, job: str | None) -> list[int]:
    """Return the processes that have the mark in their environment; none without /proc."""
    start = f"{MARK}={jobs}:{job or ''}".encode()
    found = []
    for entry in os.listdir(_PROC) if _PROC.exists() else ():  # noqa: PTH208 - takes half the time of Path.iterdir
        if not entry.isdigit():
            continue
        try:
            variables = (_PROC / entry / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or of another account
            continue
        if any(one == start if job else one.startswith(start) for one in variables):
            found.append(int(entry))
    return found
