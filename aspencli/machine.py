"""The user, machine, and process of a run, and a check that a process is still running."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_STATE, _START = 0, 19  # fields of /proc/PID/stat after the name (proc_pid_stat(5))
_ENDED = ("Z", "X", "x")


@dataclass(frozen=True)
class Process:
    """A process, distinguishable from a later one with the same PID.

    Attributes:
        host: The host name.
        pid: The process ID.
        started: The start time, in a form that only the same machine can compare.
    """

    host: str
    pid: int
    started: str

    @property
    def is_here(self) -> bool:
        """Return True if the process runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Return True if the process is still running; False if this machine cannot check."""
        return self.is_here and bool(self.started) and _start_of(self.pid) == self.started


def this_process() -> Process:
    """Return the current process."""
    return Process(socket.gethostname(), os.getpid(), _start_of(os.getpid()))


def this_user() -> str:
    """Return the account name, or the UID if it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _start_of(pid: int) -> str:
    """Return the start time of a process, or an empty string if it is gone."""
    if not (_PROC / "self" / "stat").exists():
        return _start_by_ps(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name is in parentheses, and may contain some itself.
    fields = text.rpartition(")")[2].split()
    return "" if fields[_STATE] in _ENDED else f"{boot} {fields[_START]}"


def _start_by_ps(pid: int) -> str:
    command = ["ps", "-p", str(pid), "-o", "stat=,lstart="]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ps
    state, _, started = done.stdout.strip().partition(" ")
    return "" if state.startswith(_ENDED) else " ".join(started.split())
