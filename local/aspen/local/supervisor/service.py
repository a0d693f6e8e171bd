"""The keepers of the services and of PostgreSQL, which restart what ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from aspen.local import state
from aspen.local.logs import RotatingLog
from aspen.local.postgres.paths import Places
from aspen.local.processes import is_free, may_own
from aspen.local.services import POSTGRES, Service
from aspen.local.state import Phase
from aspen.local.supervisor.state import Board, Timing, answers, is_check
from aspencli.machine import read_postmaster

_CHUNK = 65_536
_LONGEST_LINE = 20_000


class Keeper:
    """A keeper that runs one service until it is canceled.

    Args:
        service: The service.
        port: The service's port.
        command: The command to start it. Its standard input is a pipe that closes when the
            supervisor ends for any reason; the service must end then.
        environ: The service's environment.
        board: Where to record what happens.
        log: The log for its output.
        events: The log for what happens to it.
        timing: The timeouts and intervals.
    """

    def __init__(
        self,
        service: Service,
        port: int,
        command: Sequence[str],
        environ: Mapping[str, str],
        *,
        board: Board,
        log: RotatingLog,
        events: RotatingLog,
        timing: Timing,
    ):
        self._service, self._port = service, port
        self._command, self._environ = command, environ
        self._board, self._log, self._events, self._timing = board, log, events, timing
        self._nudged, self._stale = asyncio.Event(), asyncio.Event()
        self._asked = ""  # the reason for a requested restart
        self._healthy_since: float | None = None

    @property
    def name(self) -> str:
        """Return the service's name."""
        return self._service.name

    @property
    def _lived(self) -> float:
        """Return the number of seconds since it became ready; 0 if it never did."""
        return time.monotonic() - self._healthy_since if self._healthy_since else 0.0

    def nudge(self) -> None:
        """Skip the rest of the pause before the next attempt."""
        self._nudged.set()

    def restart(self, reason: str) -> None:
        """Request a restart of the service."""
        self._asked = reason
        self._stale.set()

    async def run(self) -> None:
        """Keep the service running; when canceled, stop it."""
        pause = None
        while True:
            reason, conflict = await self._live()
            pause = self._timing.after(pause, self._lived)
            self._tell(f"{reason}; restarting in {pause:g} s")
            self._note(phase=Phase.RESTARTING, process=None, reason=reason, conflict=conflict)
            self._nudged.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            restarts = self._board.record[self.name].restarts + 1
            self._note(restarts=restarts, last_restart=time.time())

    async def _live(self) -> tuple[str, bool]:
        """Run the process once; return the reason why it ended, and True if its port was taken."""
        self._healthy_since = None
        self._stale.clear()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._environ,
            cwd="/",
            start_new_session=True,
        )
        self._tell(f"started (PID {process.pid})")
        self._note(phase=Phase.STARTING, process=state.Process.of(process.pid))
        pump = asyncio.create_task(self._pump(process))
        try:
            reason = await self._until_it_ends(process)
        except asyncio.CancelledError:
            self._note(how=await self._end(process))
            raise
        finally:
            # A child process left behind may keep the pipe open.
            await asyncio.wait({pump}, timeout=1)
            pump.cancel()
        if not self._lived and not is_free(self._port):
            return f"port {self._port} is in use by another program", True
        return reason, False

    async def _until_it_ends(self, process: Process) -> str:
        """Wait until it ends, stops answering, or is to be restarted; return the reason."""
        ended = asyncio.create_task(process.wait())
        hopeless = asyncio.create_task(self._watch(process.pid))
        tasks = {ended, hopeless, asyncio.create_task(self._stale.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return _ending(process.returncode or 0)
            reason = hopeless.result() if hopeless.done() else self._asked
            await self._end(process)
            return reason
        finally:
            for task in tasks:
                task.cancel()

    async def _watch(self, pid: int) -> str:
        """Check the service repeatedly; return the reason once it has to be restarted."""
        deadline = time.monotonic() + self._timing.start
        while not (await self._answers(self._service.ready) and may_own(pid, self._port)):
            if time.monotonic() > deadline:
                return f"not ready after {self._timing.start:g} s"
            await asyncio.sleep(self._timing.poll)
        self._healthy_since = answered = time.monotonic()
        self._tell("ready")
        self._note(phase=Phase.RUNNING)
        while True:
            await asyncio.sleep(self._timing.check)
            if await self._answers(self._service.ready):
                answered = time.monotonic()
                if self._board.record[self.name].phase is Phase.UNRESPONSIVE:
                    self._tell("responding again")
                    self._note(phase=Phase.RUNNING)
                continue
            if self._board.record[self.name].phase is Phase.RUNNING:
                self._tell("not responding")
                self._note(phase=Phase.UNRESPONSIVE)
            if await self._answers(self._service.health):
                answered = time.monotonic()  # restarting it would not bring back what it needs
            elif time.monotonic() - answered > self._timing.hung:
                return f"no response for {self._timing.hung:g} s"

    async def _answers(self, path: str) -> bool:
        return await answers(self._port, path, self._timing.answer)

    async def _end(self, process: Process) -> str:
        """Stop the process, gracefully if possible; return the method that worked."""
        for number, how in ((signal.SIGTERM, "fast"), (signal.SIGKILL, "killed")):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._timing.stop)
                self._tell(f"stopped ({how})")
                return how
        return "killed"  # it may be waiting for a disk; the command that stops us will handle it

    async def _pump(self, process: Process) -> None:
        """Save the process's output, line by line."""
        assert process.stdout  # noqa: S101 - we asked for the pipe
        rest = b""
        while chunk := await process.stdout.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._keep(line)
        self._keep(rest)

    def _keep(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace")
        if not is_check(text, self._service):
            self._log.write(text)

    def _note(self, **changes: object) -> None:
        self._board.note(self.name, **changes)

    def _tell(self, what: str) -> None:
        self._events.write(f"{self.name}: {what}")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"terminated by {signal.Signals(-code).name}"


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
        while not (running := read_postmaster(Places(self._home).data)):  # noqa: ASYNC110 - not our child process
            await asyncio.sleep(self._timing.watch)
        process = state.Process.of(running.pid)
        self._board.note(POSTGRES, phase=Phase.RUNNING, process=process)

    async def _until_it_ends(self) -> None:
        while read_postmaster(Places(self._home).data):  # noqa: ASYNC110 - same
            await asyncio.sleep(self._timing.watch)

    async def _start_again(self, pause: float) -> None:
        """Restart PostgreSQL, trying again until it runs."""
        reason, running = "main process exited", False
        while not running:
            self._events.write(f"{POSTGRES}: {reason}; restarting in {pause:g} s")
            self._board.note(POSTGRES, phase=Phase.RESTARTING, process=None, reason=reason)
            self._nudged.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudged.wait(), pause)
            running = await self._start()
            reason, pause = "failed to start", self._timing.after(pause, 0)
        restarts = self._board.record[POSTGRES].restarts + 1
        self._board.note(POSTGRES, restarts=restarts, last_restart=time.time())

    async def _start(self) -> bool:
        """Start PostgreSQL in a separate process, as that loads a lot and may wait for long."""
        starting = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "aspen.local.postgres", "--home", str(self._home)),
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
