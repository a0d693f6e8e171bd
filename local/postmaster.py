"""The running server of a data folder: is it alive, is it that one, and how is it ended."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from local import processes
from local.parts import Stopped

_HARD_S = 6.0  # PostgreSQL itself gives its children 5 s, then kills them
_ORPHANS_S = 3.0  # how long they take to notice that the main process is gone
_PID_FILE = "postmaster.pid"
_PID_LINE, _START_LINE = 0, 2  # of that file


@dataclass(frozen=True)
class Postmaster:
    """A server's main process.

    Attributes:
        pid: Its process.
        since: When it started, in seconds since 1970.
    """

    pid: int
    since: float


def cluster_name(data: Path) -> str:
    """The name that the server's processes carry in their titles; each data folder its own."""
    return f"aspencli-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"


def arguments(data: Path) -> list[str]:
    """How the server is told its data folder; by this its main process is known again."""
    return ["-D", str(data)]


def read(data: Path) -> Postmaster | None:
    """The main process, when it lives; a stale file, or a number used anew, is no server."""
    try:
        lines = (data / _PID_FILE).read_text().splitlines()
        pid, since = int(lines[_PID_LINE]), float(lines[_START_LINE])
    except (FileNotFoundError, ValueError, IndexError):
        return None  # the file is written in pieces while the server starts
    return Postmaster(pid, since) if lives(pid, data) else None


def lives(pid: int, data: Path) -> bool:
    """Whether a process is the main process of this data folder."""
    return processes.command_of(pid).endswith(" ".join(arguments(data)))


def has_crashed(data: Path) -> bool:
    """Whether a server ended here without tidying up."""
    return (data / _PID_FILE).exists() and read(data) is None and not _main(data)


def clear(data: Path) -> None:
    """Tidy up after a crash, so that the next server may start.

    PostgreSQL refuses while a process of the dead server lives, and also when the number in the
    stale file happens to belong to another process of the same user.
    """
    processes.end(lambda: family(data), patience=_ORPHANS_S)
    (data / _PID_FILE).unlink(missing_ok=True)


def family(data: Path) -> list[int]:
    """Every process of this data folder's server, live or orphaned."""
    title, main = f"postgres: {cluster_name(data)}", " ".join(arguments(data))
    return [
        pid
        for pid, command in processes.running()
        if command.startswith(title) or command.endswith(main)
    ]


def stop(data: Path, *, patience: float) -> Stopped:
    """End the server: its clients are disconnected, and what they had not committed is undone.

    Args:
        data: The data folder.
        patience: How many seconds an orderly end may take before it is made a hard one; that may
            take as long again, and then its processes are killed.
    """
    began = time.monotonic()
    members = family(data)
    how = "" if not members else "fast"
    for pid in _main(data):
        processes.send(pid, signal.SIGINT)
        if not processes.wait_until(lambda pid=pid: not lives(pid, data), patience):  # type: ignore[misc]
            how = "immediate"
            processes.send(pid, signal.SIGQUIT)
            hard = min(patience, _HARD_S)
            processes.wait_until(lambda pid=pid: not lives(pid, data), hard)  # type: ignore[misc]
    kill = how == "immediate"
    if processes.end(lambda: family(data), patience=0 if kill else _ORPHANS_S, kill=kill):
        how = "killed"
    if how in {"killed", "immediate"}:
        with contextlib.suppress(FileNotFoundError):
            (data / _PID_FILE).unlink()
    return Stopped(bool(members), how, time.monotonic() - began)


def _main(data: Path) -> list[int]:
    main = " ".join(arguments(data))
    return [pid for pid, command in processes.running() if command.endswith(main)]
