"""The keeper of PostgreSQL, which runs detached: it sees when PostgreSQL ends and restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping
from pathlib import Path

from local import postmaster, record
from local.places import Places
from local.record import Phase
from local.rotating import RotatingLog
from local.services import POSTGRES
from local.supervisor.board import Board
from local.supervisor.timing import Timing


class DatabaseKeeper:
    """A keeper that restarts PostgreSQL when it ends; the first start is left to the command.

    Args:
        home: The folder of the deployment.
        environ: The environment for starting PostgreSQL.
        board: Where to record what happens.
        events: The log for what happens.
        timing: The timeouts and intervals.
        moved: Called when PostgreSQL's port changes.
    """

    def __init__(
        self,
        home: Path,
        environ: Mapping[str, str],
        *,
        board: Board,
        events: RotatingLog,
        timing: Timing,
        moved: Callable[[], None],
    ):
        self._home, self._environ = home, environ
        self._board, self._events, self._timing, self._moved = board, events, timing, moved
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Skip the rest of the pause before the next attempt."""
        self._nudged.set()

    async def run(self) -> None:
        """Watch PostgreSQL until canceled."""
        port: int | None = None
        pause: float | None = None
        while True:
            await self._until_it_runs()
            since, before = time.monotonic(), port
            port = Places(self._home).remembered().port
            if before not in {None, port}:
                self._moved()
            await self._until_it_ends()
            pause = self._timing.after(pause, time.monotonic() - since)
            await self._start_again(pause)

    async def _until_it_runs(self) -> None:
        while not (running := postmaster.read(Places(self._home).data)):  # noqa: ASYNC110 - not our child process
            await asyncio.sleep(self._timing.watch)
        process = record.Process.of(running.pid)
        self._board.note(POSTGRES, phase=Phase.RUNNING, process=process)

    async def _until_it_ends(self) -> None:
        while postmaster.read(Places(self._home).data):  # noqa: ASYNC110 - same
            await asyncio.sleep(self._timing.watch)

    async def _start_again(self, pause: float) -> None:
        """Restart PostgreSQL, trying again until it runs."""
        reason, running = "its main process ended", False
        while not running:
            self._events.write(f"{POSTGRES}: {reason}; it is started again in {pause:g} s")
            self._board.note(POSTGRES, phase=Phase.RESTARTING, process=None, reason=reason)
            self._nudged.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            running = await self._start()
            reason, pause = "it could not be started", self._timing.after(pause, 0)
        restarts = self._board.record[POSTGRES].restarts + 1
        self._board.note(POSTGRES, restarts=restarts, last_restart=time.time())

    async def _start(self) -> bool:
        """Start PostgreSQL in a separate process, as that loads a lot and may wait for long."""
        starting = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "local.revive", "--home", str(self._home)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._environ,
            cwd="/",
        )
        try:
            said, _ = await starting.communicate()
        except asyncio.CancelledError:
            starting.kill()
            raise
        for line in said.decode(errors="replace").splitlines():
            self._events.write(f"{POSTGRES}: {line}")
        return starting.returncode == 0
