"""The supervisor, which runs a keeper for each part until it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from local.record import Phase
from local.rotating import RotatingLog
from local.services import POSTGRES, SERVICES, SUPERVISOR
from local.state import State
from local.supervisor.board import Board
from local.supervisor.database import DatabaseKeeper
from local.supervisor.keeper import Keeper
from local.supervisor.timing import Timing


class Supervisor:
    """A supervisor that keeps parts running.

    Args:
        state: The deployment's files.
        names: The parts to keep running.
        environ: The environment for each part.
        timing: The timeouts and intervals.
    """

    def __init__(
        self,
        state: State,
        names: tuple[str, ...],
        environ: Mapping[str, str],
        timing: Timing | None = None,
    ):
        self._state, self._timing = state, timing or Timing()
        self._environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self._events = RotatingLog(state.log(SUPERVISOR))
        self._board = Board(state.record, names)
        self._keepers = [self._keeper(name) for name in names if name != POSTGRES]
        self._database = DatabaseKeeper(
            state.home,
            self._environ,
            board=self._board,
            events=self._events,
            timing=self._timing,
            moved=self._tell_of_the_move,
        )

    async def run(self) -> None:
        """Keep everything running until SIGTERM, or until the deployment's folder is gone."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._nudge)
        self._events.write(f"process {os.getpid()} keeps {', '.join(self._board.record)}")
        tasks = [asyncio.create_task(one.run()) for one in self._all]
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(self._until_orphaned())]
        done, _ = await asyncio.wait([*tasks, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, *ends):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._events.write("everything is stopped")
        for name in self._board.record:
            self._board.note(name, phase=Phase.STOPPED, process=None)
        for task in done:
            task.result()  # a keeper only ends by itself with an error, which is raised here

    @property
    def _all(self) -> list[Keeper | DatabaseKeeper]:
        return [*self._keepers, self._database]

    async def _until_orphaned(self) -> None:
        """Wait until the folder is deleted, after which no command could stop this process."""
        mine = self._state.alive.stat()
        while _same(self._state.alive, mine):  # noqa: ASYNC110 - nothing signals a deletion
            await asyncio.sleep(self._timing.check)

    def _keeper(self, name: str) -> Keeper:
        service = next(one for one in SERVICES if one.name == name)
        home = str(self._state.home)
        return Keeper(
            service,
            self._state.ports()[name],
            [sys.executable, "-P", "-m", "local.launch", name, "--home", home],
            self._environ,
            board=self._board,
            log=RotatingLog(self._state.log(name)),
            events=self._events,
            timing=self._timing,
        )

    def _nudge(self) -> None:
        for one in self._all:
            one.nudge()

    def _tell_of_the_move(self) -> None:
        for keeper in self._keepers:
            if keeper.name != "identity":
                keeper.restart("PostgreSQL answers on another port now")


def _same(path: Path, before: os.stat_result) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)
