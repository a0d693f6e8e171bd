"""The running server of a data folder: find it, identify it, and stop it."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import time
from pathlib import Path

from aspen.local import processes
from aspen.local.services import Stopped
from aspencli.machine import PID_FILE, is_postmaster, read_postmaster, running

_HARD_S = 6.0  # PostgreSQL gives its child processes 5 s, then kills them
_ORPHANS_S = 3.0  # the time that child processes need to notice that the main process is gone


def cluster_name(data: Path) -> str:
    """Return the name in the titles of the server's processes, unique to the data folder."""
    return f"aspencli-{hashlib.sha256(str(data).encode()).hexdigest()[:8]}"


def arguments(data: Path) -> list[str]:
    """Return the arguments that set the data folder, which also identify the main process."""
    return ["-D", str(data)]


def has_crashed(data: Path) -> bool:
    """Return True if a server ended here without cleaning up."""
    return (data / PID_FILE).exists() and read_postmaster(data) is None and not _main(data)


def clear(data: Path) -> None:
    """Clean up after a crash, so that the next server can start.

    PostgreSQL refuses to start while a process of the dead server is alive, or if the process ID
    in the stale file now belongs to another process of the same user.
    """
    processes.end(lambda: family(data), patience=_ORPHANS_S)
    (data / PID_FILE).unlink(missing_ok=True)


def family(data: Path) -> list[int]:
    """Return every process of this data folder's server, including orphans."""
    title, main = f"postgres: {cluster_name(data)}", " ".join(arguments(data))
    return [
        pid for pid, command in running() if command.startswith(title) or command.endswith(main)
    ]


def stop(data: Path, *, patience: float) -> Stopped:
    """Stop the server: disconnect its clients, and roll back their open transactions.

    Args:
        data: The data folder.
        patience: The seconds to wait for a fast shutdown before an immediate one, which may take as
            long again before the processes are killed.
    """
    began = time.monotonic()
    members = family(data)
    how = "" if not members else "fast"
    for pid in _main(data):
        processes.send(pid, signal.SIGINT)
        if not processes.wait_until(lambda pid=pid: not is_postmaster(pid, data), patience):  # type: ignore[misc]
            how = "immediate"
            processes.send(pid, signal.SIGQUIT)
            hard = min(patience, _HARD_S)
            processes.wait_until(lambda pid=pid: not is_postmaster(pid, data), hard)  # type: ignore[misc]
    kill = how == "immediate"
    if processes.end(lambda: family(data), patience=0 if kill else _ORPHANS_S, kill=kill):
        how = "killed"
    if how in {"killed", "immediate"}:
        with contextlib.suppress(FileNotFoundError):
            (data / PID_FILE).unlink()
    return Stopped(bool(members), how, time.monotonic() - began)


def _main(data: Path) -> list[int]:
    main = " ".join(arguments(data))
    return [pid for pid, command in running() if command.endswith(main)]
