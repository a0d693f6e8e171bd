"""A process that runs commands as its children, and kills them on request.

Everything that a command imports is loaded once, so that a run costs a fork instead of a start of
Python. Otherwise, each child is the real command in a separate process. It reads one order per
line, as JSON, and answers each with the result of the command.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Literal, Self

from tests import zygote
from tests.cli.commands.ending import Ended

Side = Literal["before", "after"]


@dataclass(frozen=True)
class Crash:
    """The point at which to kill a command.

    Attributes:
        number: The signal.
        step: The fsync at which to kill it, counted from 1; None to kill it by time.
        side: The side of the fsync.
        delay_s: The delay after its start, if by time.
    """

    number: int = signal.SIGKILL
    step: int | None = None
    side: Side = "before"
    delay_s: float = 0.0


class Crasher:
    """A client that starts that process and gives it orders; use it in a ``with`` block."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.accidents_api.crasher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate(timeout=60)

    def run(self, env: Mapping[str, str], *words: str, crash: Crash | None = None) -> Ended:
        """Run a command in an environment, to its end or to where it is killed."""
        order = {"words": words, "env": dict(env), "crash": crash and asdict(crash)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))


def _serve() -> None:
    zygote.load_program()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_obey(json.loads(line))) + "\n")
        sys.stdout.flush()


def _obey(order: dict[str, Any]) -> tuple[int, str, str]:
    crash = Crash(**order["crash"]) if order["crash"] else None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_run(order["words"], order["env"], crash))
        killer = None
        if crash and crash.step is None:
            killer = threading.Timer(crash.delay_s, os.kill, (pid, crash.number))
            killer.start()
        # Do not reap it before the timer is done; otherwise, another process might get its PID.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if killer:
            killer.cancel()
            killer.join()
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        for file in (out, err):
            file.seek(0)
        return code, out.read().decode(), err.read().decode()


def _run(words: list[str], env: dict[str, str], crash: Crash | None) -> int:
    """Run a command in this process, which is a child."""
    from aspencli.cli.main import run

    os.environ.clear()
    os.environ.update(env)
    if crash and crash.step is not None:
        _crash_at(crash)
    try:
        code = run(words)
    except BaseException:  # noqa: BLE001 - nothing may return to the parent's loop
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _crash_at(crash: Crash) -> None:
    sync, count = os.fsync, 0

    def fsync(descriptor: Any) -> None:
        nonlocal count
        count += 1
        if count != crash.step:
            sync(descriptor)
            return
        if crash.side == "after":
            sync(descriptor)
        os.kill(os.getpid(), crash.number)
        if crash.side == "before":
            time.sleep(0)  # Python signal handlers run here at the latest
            sync(descriptor)

    setattr(os, "fsync", fsync)  # noqa: B010 - an assignment would have to repeat its protocol


if __name__ == "__main__":
    _serve()
