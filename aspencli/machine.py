"""The user and the processes of this machine."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")  # of Linux; other systems have ps
_STATE, _START = 0, 19  # fields of /proc/PID/stat after the name (proc_pid_stat(5))
_ENDED = ("Z", "X", "x")
_GLANCES, _GLANCE_S = 5, 0.002


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
        return self.is_here and bool(self.started) and start_of(self.pid) == self.started


def this_process() -> Process:
    """Return the current process."""
    return Process(socket.gethostname(), os.getpid(), start_of(os.getpid()))


def this_user() -> str:
    """Return the account name, or the UID if it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def start_of(pid: int) -> str:
    """Return when a process started, as text that with the PID identifies it on this machine.

    The text is empty if the process does not exist or is a zombie.
    """
    if not (_PROC / "self" / "stat").exists():
        state, _, started = _ps("-p", str(pid), "-o", "stat=,lstart=").strip().partition(" ")
        return "" if state.startswith(_ENDED) else " ".join(started.split())
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name is in parentheses, and may contain some itself.
    fields = text.rpartition(")")[2].split()
    return "" if fields[_STATE] in _ENDED else f"{_boot()} {fields[_START]}"


def born(pid: int) -> str:
    """Return `start_of` in the form of the local deployment's records, without spaces."""
    return start_of(pid).replace(" ", "-")


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it does not exist or is a zombie."""
    if (_PROC / "self" / "cmdline").exists():
        for _ in range(_GLANCES):
            # During exec, a process briefly has no command line.
            if (command := _read_command(pid)) or not start_of(pid):
                return command
            time.sleep(_GLANCE_S)
        return ""
    return _ps("-p", str(pid), "-ww", "-o", "command=").strip()


def running() -> Iterator[tuple[int, str]]:
    """Yield every process ID with its command line, joined by spaces; zombies are omitted."""
    if (_PROC / "self" / "cmdline").exists():
        for entry in os.listdir(_PROC):  # noqa: PTH208 - takes half the time of Path.iterdir
            if entry.isdigit() and (command := _read_command(int(entry))):
                yield int(entry), command
        return
    listing = _ps("-ax", "-ww", "-o", "pid=,command=")
    for line in listing.splitlines():
        number, _, command = line.strip().partition(" ")
        yield int(number), command.strip()


def _read_command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    return words.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace")


@cache
def _boot() -> str:
    return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()


def _ps(*arguments: str) -> str:
    command = ["ps", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ps
    return done.stdout
