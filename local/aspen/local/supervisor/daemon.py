"""``python -m aspen.local.supervisor --home D --parts a,b``: keep the parts running until stopped.

``aspencli local up`` starts it in the background.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from aspen.local.aws.content import made_values, new_credentials
from aspen.local.logs import RotatingLog
from aspen.local.services import POSTGRES, SERVICES, SUPERVISOR
from aspen.local.state import Phase, Process, State
from aspen.local.supervisor.service import DatabaseKeeper, Keeper
from aspen.local.supervisor.state import Board, Timing
from aspencli.files import open_own


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
        self._events.write(f"started (PID {os.getpid()}) for {', '.join(self._board.record)}")
        tasks = [asyncio.create_task(one.run()) for one in self._all]
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(self._until_orphaned())]
        done, _ = await asyncio.wait([*tasks, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, *ends):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._events.write("all parts stopped")
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
            [sys.executable, "-P", "-m", "aspen.local.launch", name, "--home", home],
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
                keeper.restart("PostgreSQL moved to another port")


def _same(path: Path, before: os.stat_result) -> bool:
    try:
        now = path.stat()
    except OSError:
        return False
    return (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino)


_LOCK_S = 1.0  # a command that checks whether we are alive holds the lock briefly
_TAKEN = 3


def main() -> int:
    """Keep the parts running until SIGTERM; refuse if another process already does."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the deployment")
    parser.add_argument("--parts", required=True, help="parts to run, comma-separated")
    parser.add_argument("--timing", default="{}", help="timeouts and intervals, as a JSON object")
    chosen = parser.parse_args()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until a handler is installed
    state = State(chosen.home)
    descriptor = open_own(state.alive)
    if not _lock(descriptor):
        sys.stderr.write("A supervisor is already running for this deployment.\n")
        return _TAKEN
    made_values(state.part("aws"))  # before two parts could create them at once
    if "aws" in (ports := state.ports()):
        new_credentials(state.part("aws"), ports["aws"])
    timing = Timing(**json.loads(chosen.timing))
    supervisor = Supervisor(state, tuple(chosen.parts.split(",")), os.environ, timing)
    Process.of(os.getpid()).write(descriptor)  # commands wait for this
    asyncio.run(supervisor.run())
    return 0


def _lock(descriptor: int) -> bool:
    """Lock the file that shows that this process is alive, for as long as it is."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        else:
            return True
