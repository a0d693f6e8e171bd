"""The processes of a server: found by command line, started detached, and reliably ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from aspencli.errors import AspenError, RefusedError
from local.account import Account

_PROC = Path("/proc")
# The shell ends at once, so that init adopts the program. Otherwise a zombie could remain, whose
# process ID would look like that of a live server.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
_STATE, _BEGAN = 0, 19  # fields of /proc/PID/stat after the name
POLL_S = 0.01
_GLANCES, _GLANCE_S = 5, 0.002
_HARD_S = 3.0  # the time that SIGQUIT or SIGKILL may take to end a process


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


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if there is none, or it is a zombie."""
    if (_PROC / "self" / "cmdline").exists():
        for _ in range(_GLANCES):
            # During exec, a process briefly has no command line.
            if (command := _read_command(pid)) or not born(pid):
                return command
            time.sleep(_GLANCE_S)
        return ""
    return _ps("-p", str(pid), "-ww", "-o", "command=").strip()


def born(pid: int) -> str:
    """Return when a process started, as a string that with the process ID identifies it uniquely.

    It is empty if there is no such process, or it is a zombie.
    """
    if not (_PROC / "self" / "stat").exists():
        state, _, began = _ps("-p", str(pid), "-o", "state=,lstart=").strip().partition(" ")
        return "" if state.startswith("Z") else began.strip()
    try:
        # The name, in parentheses, may itself contain spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[_STATE] in {"Z", "X"} else f"{_boot()}-{fields[_BEGAN]}"


def spawn_detached(
    command: Sequence[str], *, account: Account, environ: Mapping[str, str], log: Path
) -> int:
    """Start a program that outlives this process and its terminal; return its process ID."""
    shell = subprocess.run(  # noqa: S603 - our own script, its arguments passed separately
        ["/bin/sh", "-c", _DETACH, "sh", str(log), *command],
        cwd="/",
        env=dict(environ),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        start_new_session=True,
        **account.run_as(),
    )
    if shell.returncode or not shell.stdout.strip().isdigit():
        raise AspenError(
            f"{command[0]} could not be started: {shell.stderr.strip() or 'the shell failed'}",
            hint="Look at the folder's permissions and the free space.",
        )
    return int(shell.stdout)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; do nothing if the process is gone.

    Raises:
        RefusedError: The process belongs to another user.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise RefusedError(
            f"process {pid} belongs to another user of this machine",
            hint="Run the command as the user who started it.",
        ) from error


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait for a condition, checking it every 10 ms; return False on timeout."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def end(find: Callable[[], list[int]], *, patience: float, kill: bool = False) -> bool:
    """End the processes that ``find`` returns; return True if that took a signal.

    Args:
        find: Returns the processes that still exist.
        patience: The seconds to wait before the first signal.
        kill: True to use SIGKILL at once, without SIGQUIT.

    Raises:
        AspenError: Some processes did not end.
    """
    if wait_until(lambda: not find(), patience):
        return False
    for number in (signal.SIGKILL,) if kill else (signal.SIGQUIT, signal.SIGKILL):
        for pid in find():
            send(pid, number)
        if wait_until(lambda: not find(), _HARD_S):
            return True
    raise AspenError(
        f"these processes do not end: {', '.join(map(str, find()))}",
        hint="They may be waiting for a disk; restart the machine when they stay.",
    )


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
