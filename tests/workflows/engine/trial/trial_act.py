"""Behave as the job's file says: ``fine``, ``allocate``, and others below."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from aspen.workflows.jobs import FileParameters
from aspen.workflows.steps import StepError, Workspace

_HIDE = "import os, time; os.setsid(); time.sleep(600)"


def run(workspace: Workspace) -> None:
    """Behave."""
    behavior, _, detail = workspace.parameters(FileParameters).file.partition(":")
    print(f"about to {behavior}", flush=True)
    _BEHAVIORS[behavior](workspace, detail)


def _fine(workspace: Workspace, detail: str) -> None:
    time.sleep(float(detail or 0))


def _allocate(workspace: Workspace, detail: str) -> None:
    held = [bytearray(1 << 20) for _ in range(1024)]
    time.sleep(60)
    print(len(held))


def _share(workspace: Workspace, detail: str) -> None:
    """Let several processes have the same pages, whose sum is over the limit, and be fine."""
    held = bytearray(os.urandom(1 << 20) * 80)
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            time.sleep(1.5)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    print(len(held))


def _family(workspace: Workspace, detail: str) -> None:
    """Hang with a child that left the session, and a grandchild whose parent is gone."""
    for _ in range(2):
        subprocess.Popen([sys.executable, "-I", "-S", "-c", _HIDE])
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
        os._exit(0)
    time.sleep(600)


def _exit(workspace: Workspace, detail: str) -> None:
    print("the input is odd", flush=True)
    sys.exit(int(detail or 1))


def _refuse(workspace: Workspace, detail: str) -> None:
    raise StepError("Sample RCPHL-0000001 has no genome")


def _raise(workspace: Workspace, detail: str) -> None:
    raise ValueError("not a number: 'x'")


def _fill(workspace: Workspace, detail: str) -> None:
    """Run out of space."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with (workspace.out / "large").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * 10_000)


def _die(workspace: Workspace, detail: str) -> None:
    """Die by SIGKILL as often as the detail says, over all attempts."""
    count = workspace.folder.parent / f"{workspace.folder.name}.deaths"
    deaths = int(count.read_text()) if count.exists() else 0
    if deaths < int(detail or 1):
        count.write_text(str(deaths + 1))
        os.kill(os.getpid(), signal.SIGKILL)


def _lose(workspace: Workspace, detail: str) -> None:
    """Lose the connection to a server, as often as the detail says."""
    count = workspace.folder.parent / f"{workspace.folder.name}.losses"
    losses = int(count.read_text()) if count.exists() else 0
    if losses < int(detail):
        count.write_text(str(losses + 1))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        socket.create_connection(("127.0.0.1", port))


def _wait(workspace: Workspace, detail: str) -> None:
    """Wait for a file to appear."""
    while not Path(detail).exists():
        time.sleep(0.02)


_BEHAVIORS = {
    "fine": _fine,
    "allocate": _allocate,
    "share": _share,
    "family": _family,
    "exit": _exit,
    "refuse": _refuse,
    "raise": _raise,
    "fill": _fill,
    "die": _die,
    "lose": _lose,
    "wait": _wait,
}
