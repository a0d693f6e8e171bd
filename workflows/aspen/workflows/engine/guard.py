"""Run a program, and end it with everything that it started when its time, memory, or owner ends.

This is a separate script, run without site-packages, so that it starts in 15 ms and uses 10 MB. It
keeps the program's processes from outliving the worker: its standard input is a pipe from the
worker, which closes when the worker ends for any reason, including SIGKILL. Orphans of the program
become children of this process where the system allows it (Linux), so that none can hide.

The argument is a JSON object: ``command``, ``folder``, ``log``, ``seconds``, ``megabytes``, and
``nice``. Two lines of JSON are written to standard output: first the program's process ID, then the
result.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOOK_S = 0.1  # a program can allocate 200 MB in this time
_KILL_S = 5.0
_MIB = 1 << 20
_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_DEATH_SIGNAL, _ADOPT = 1, 36  # PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER of linux/prctl.h
_RESIDENT = 1  # field of /proc/PID/statm
_PRIORITY_TO_KILL = "500"
_TRIES, _PAUSE_S = 10, 0.11


def main() -> int:
    """Run the program; return 0 once all of its processes are gone."""
    given = json.loads(sys.argv[1])
    libc = _libc()
    if libc:
        libc.prctl(_ADOPT, 1, 0, 0, 0)
    wake = _handle_signals()
    began = time.monotonic()
    try:
        program = _start(given, libc)
    except OSError as error:
        _say({"error": f"{error.strerror}: {error.filename}" if error.filename else str(error)})
        return 0
    _say({"pid": program.pid})
    watch = Watch(program.pid, given["seconds"], given["megabytes"])
    why = watch.until_it_ends(wake)
    end_all(program.pid)
    _say(_result(watch, why, time.monotonic() - began))
    return 0


def _handle_signals() -> int:
    """Ignore what ends processes; return a descriptor that is readable once a child has ended."""
    wake, alarm = os.pipe()
    os.set_blocking(alarm, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    # The worker decides when to stop; a signal to the terminal's group must not.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return wake


def _result(watch: Watch, why: str, seconds: float) -> dict[str, Any]:
    status = watch.status
    return {
        "code": None if status is None or status < 0 else status,
        "signal": -status if status is not None and status < 0 else None,
        "why": why,
        "megabytes": -(-watch.peak // _MIB),  # rounded up, so that it is above an exceeded limit
        "seconds": round(seconds, 3),
    }


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return ctypes.CDLL(None, use_errno=True)


def _start(given: dict[str, Any], libc: Any) -> subprocess.Popen[bytes]:
    own = os.getpid()

    def prepare() -> None:
        with contextlib.suppress(OSError):
            os.nice(given["nice"])
        _lower_session(given["nice"])
        with contextlib.suppress(OSError):
            # If memory runs out, the kernel ends a step and not the database.
            (_PROC / "self" / "oom_score_adj").write_text(_PRIORITY_TO_KILL)
        if libc:
            libc.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != own:  # this process ended before it could be told of
                os._exit(1)

    with Path(given["log"]).open("ab", buffering=0) as log:
        return subprocess.Popen(  # noqa: S603 - our own command; this has a single thread
            given["command"],
            cwd=given["folder"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - this process has a single thread
        )


def _lower_session(nice: int) -> None:
    """Give the session of this process a low priority.

    Linux can share the processors among sessions. A process's nice value then counts only within
    its session, and sessions have a separate nice value (sched(7), "The autogroup feature"). The
    kernel lets unprivileged users set one such value every 0.1 s, on the whole machine.
    """
    for _ in range(_TRIES):
        try:
            (_PROC / "self" / "autogroup").write_text(str(nice))
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError:  # the system does not group by session
            return
        else:
            return


class Watch:
    """A watch over the program's time and memory.

    Attributes:
        status: The exit code, or the negative number of the signal; None if it was not reaped.
        peak: The largest number of bytes that its processes used together.
    """

    def __init__(self, pid: int, seconds: float, megabytes: int):
        self._pid, self._limit = pid, megabytes * _MIB
        self._seconds = seconds
        self.status: int | None = None
        self.peak = 0

    def until_it_ends(self, wake: int) -> str:
        """Wait until it ends by itself, or must be ended; return why, or an empty text."""
        deadline = time.monotonic() + self._seconds
        while True:
            ready, _, _ = select.select([0, wake], [], [], _LOOK_S)
            if wake in ready:
                os.read(wake, 512)
            if self._has_ended():
                return ""
            if 0 in ready:
                return "stopped"
            if time.monotonic() > deadline:
                return "time"
            if self._uses_too_much():
                return "memory"

    def _has_ended(self) -> bool:
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._pid:
                self.status = os.waitstatus_to_exitcode(status)
                # The kernel knows of a peak between two looks.
                scale = 1 if sys.platform == "darwin" else 1024
                self.peak = max(self.peak, used.ru_maxrss * scale)
                return True

    def _uses_too_much(self) -> bool:
        pids = list(members(self._pid))
        used = sum(map(_resident, pids))
        if used > self._limit:
            # Pages that several processes share count once.
            used = sum(map(_proportional, pids))
        self.peak = max(self.peak, used)
        return used > self._limit


def end_all(pid: int) -> None:
    """Kill every process of the program, and wait until they are gone."""
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:
        left = list(members(pid))
        for one in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.01)


def members(pid: int) -> Iterator[int]:
    """Yield the processes of the program, with those that it left behind."""
    if (_PROC / "self" / "task").exists():
        return _descendants(os.getpid())
    return _group(pid)


def _descendants(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(_PROC / str(pid) / "task")  # noqa: PTH208 - a third of the time
    except OSError:
        return
    for task in tasks:
        try:
            children = (_PROC / str(pid) / "task" / task / "children").read_text()
        except OSError:
            continue
        for child in children.split():
            if not _is_zombie(int(child)):
                yield int(child)
            yield from _descendants(int(child))


def _is_zombie(pid: int) -> bool:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ESRCH}


def _group(pid: int) -> Iterator[int]:
    """Yield the processes of a group, as ps lists them where there is no /proc."""
    listing = subprocess.run(
        ["ps", "-ax", "-o", "pid=,pgid=,stat="],  # noqa: S607 - ps
        capture_output=True,
        text=True,
        check=False,
    )
    for line in listing.stdout.splitlines():
        number, group, state = line.split()[:3]
        if int(group) == pid and not state.startswith("Z"):
            yield int(number)


def _resident(pid: int) -> int:
    try:
        return int((_PROC / str(pid) / "statm").read_text().split()[_RESIDENT]) * _PAGE
    except (OSError, IndexError):
        if _PROC.exists():
            return 0
    listing = subprocess.run(  # noqa: S603 - ps
        ["ps", "-o", "rss=", "-p", str(pid)],  # noqa: S607 - same
        capture_output=True,
        text=True,
        check=False,
    )
    return int(listing.stdout.strip() or 0) * 1024


def _proportional(pid: int) -> int:
    """Return the memory of a process, with its share of what it shares with others."""
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return _resident(pid)


def _say(what: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the worker is gone
        os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
