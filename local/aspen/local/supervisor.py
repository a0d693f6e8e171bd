"""``python -m aspen.local.supervisor --home D --parts a,b``: keep the parts running until stopped.

``aspencli local up`` starts it in the background.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aspen.local.aws.content import made_values, new_credentials
from aspen.local.logs import RotatingLog
from aspen.local.postgres.paths import Places
from aspen.local.processes import HOST, is_free, may_own, wait_for_lock
from aspen.local.services import POSTGRES, SUPERVISOR, Phase, Service, service
from aspen.local.state import DeploymentFiles, KnownProcess, PartRecord, Timing, write_record
from aspencli.files import open_own
from aspencli.machine import read_postmaster

_CHUNK = 65_536
_LONGEST_LINE = 20_000
_LOCK_S = 1.0  # a command that checks whether we are alive holds the lock briefly
_TAKEN = 3


async def answers(port: int, path: str, seconds: float) -> bool:
    """Return True if a path returns 200 within a number of seconds."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]


def is_check(line: str, service: Service) -> bool:
    """Return True if a line of a service's log only shows a health check.

    A response of "not ready" is expected until the parts that the service needs answer; the
    supervisor's own log shows the change.
    """
    expected = [(service.health, 200), (service.ready, 200)]
    if service.readiness:
        expected.append((service.readiness, 503))
    return any(f'"GET {path} HTTP/1.1" {status}' in line for path, status in expected)


class Keeper:
    """A keeper of one part, which restarts it when it ends."""

    def __init__(self, name: str, supervisor: Supervisor):
        self.name, self._supervisor = name, supervisor
        self._timing = supervisor.timing
        self._nudged = asyncio.Event()

    def nudge(self) -> None:
        """Skip the rest of the pause before the next attempt."""
        self._nudged.set()

    @property
    def _record(self) -> PartRecord:
        return self._supervisor.record[self.name]

    def _note(self, **changes: Any) -> None:
        self._supervisor.note(self.name, **changes)

    def _tell(self, what: str) -> None:
        self._supervisor.events.write(f"{self.name}: {what}")

    async def _pause(self, pause: float, reason: str, *, conflict: bool = False) -> None:
        """Report why the part ended, and wait until it is to be restarted."""
        self._tell(f"{reason}; restarting in {pause:g} s")
        self._note(phase=Phase.RESTARTING, process=None, reason=reason, conflict=conflict)
        self._nudged.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudged.wait(), pause)

    def _count_restart(self) -> None:
        self._note(restarts=self._record.restarts + 1, last_restart=time.time())


class ServiceKeeper(Keeper):
    """A keeper that runs one service until it is canceled."""

    def __init__(self, name: str, supervisor: Supervisor):
        super().__init__(name, supervisor)
        self._service, self._port = service(name), supervisor.state.ports()[name]
        self._log = RotatingLog(supervisor.state.log(name))
        self._stale = asyncio.Event()
        self._asked = ""  # the reason for a requested restart
        self._healthy_since: float | None = None

    @property
    def _lived(self) -> float:
        """Return the number of seconds since it became ready; 0 if it never did."""
        return time.monotonic() - self._healthy_since if self._healthy_since else 0.0

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
            await self._pause(pause, reason, conflict=conflict)
            self._count_restart()

    async def _live(self) -> tuple[str, bool]:
        """Run the process once; return the reason why it ended, and True if its port was taken."""
        self._healthy_since = None
        self._stale.clear()
        process = await self._spawn()
        self._tell(f"started (PID {process.pid})")
        self._note(phase=Phase.STARTING, process=KnownProcess.of(process.pid))
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

    async def _spawn(self) -> asyncio.subprocess.Process:
        home = str(self._supervisor.state.home)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "aspen.local.launch", self.name, "--home", home),
            stdin=PIPE,  # it closes when the supervisor ends for any reason; the service ends then
            stdout=PIPE,
            stderr=STDOUT,
            env=self._supervisor.environ,
            cwd="/",
            start_new_session=True,
        )

    async def _until_it_ends(self, process: asyncio.subprocess.Process) -> str:
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
                if self._record.phase is Phase.UNRESPONSIVE:
                    self._tell("responding again")
                    self._note(phase=Phase.RUNNING)
                continue
            if self._record.phase is Phase.RUNNING:
                self._tell("not responding")
                self._note(phase=Phase.UNRESPONSIVE)
            if await self._answers(self._service.health):
                answered = time.monotonic()  # restarting it would not bring back what it needs
            elif time.monotonic() - answered > self._timing.hung:
                return f"no response for {self._timing.hung:g} s"

    async def _answers(self, path: str) -> bool:
        return await answers(self._port, path, self._timing.answer)

    async def _end(self, process: asyncio.subprocess.Process) -> str:
        """Stop the process, gracefully if possible; return the method that worked."""
        for number, how in ((signal.SIGTERM, "fast"), (signal.SIGKILL, "killed")):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._timing.stop)
                self._tell(f"stopped ({how})")
                return how
        return "killed"  # it may be waiting for a disk; the command that stops us will handle it

    async def _pump(self, process: asyncio.subprocess.Process) -> None:
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


def _ending(code: int) -> str:
    if code >= 0:
        return f"exited with code {code}"
    return f"terminated by {signal.Signals(-code).name}"


class DatabaseKeeper(Keeper):
    """A keeper that restarts PostgreSQL when it ends; the first start is left to the command."""

    def __init__(self, supervisor: Supervisor, moved: Callable[[], None]):
        super().__init__(POSTGRES, supervisor)
        self._places, self._moved = Places(supervisor.state.home), moved

    async def run(self) -> None:
        """Watch PostgreSQL until canceled."""
        port: int | None = None
        pause: float | None = None
        while True:
            await self._until_it_runs()
            since, before = time.monotonic(), port
            port = self._places.remembered().port
            if before not in {None, port}:
                self._moved()
            await self._until_it_ends()
            pause = self._timing.after(pause, time.monotonic() - since)
            await self._start_again(pause)

    async def _until_it_runs(self) -> None:
        while not (running := read_postmaster(self._places.data)):  # noqa: ASYNC110 - not our child process
            await asyncio.sleep(self._timing.watch)
        self._note(phase=Phase.RUNNING, process=KnownProcess.of(running.pid))

    async def _until_it_ends(self) -> None:
        while read_postmaster(self._places.data):  # noqa: ASYNC110 - same
            await asyncio.sleep(self._timing.watch)

    async def _start_again(self, pause: float) -> None:
        """Restart PostgreSQL, trying again until it runs."""
        reason, running = "main process exited", False
        while not running:
            await self._pause(pause, reason)
            running = await self._start()
            reason, pause = "failed to start", self._timing.after(pause, 0)
        self._count_restart()

    async def _start(self) -> bool:
        """Start PostgreSQL in a separate process, as that loads a lot and may wait for long."""
        home = str(self._supervisor.state.home)
        starting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "aspen.local.postgres.server", "--home", home),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._supervisor.environ,
            cwd="/",
        )
        try:
            said, _ = await starting.communicate()
        except asyncio.CancelledError:
            starting.kill()
            raise
        for line in said.decode(errors="replace").splitlines():
            self._tell(line)
        return starting.returncode == 0


class Supervisor:
    """A supervisor that keeps parts running; its record of each is saved at every change."""

    def __init__(
        self,
        state: DeploymentFiles,
        names: tuple[str, ...],
        environ: Mapping[str, str],
        timing: Timing,
    ):
        self.state, self.timing = state, timing
        self.environ = {**environ, "PYTHONUNBUFFERED": "1"}
        self.events = RotatingLog(state.log(SUPERVISOR))
        self.record = {name: PartRecord(since=time.time()) for name in names}
        self._save()
        self._services = [ServiceKeeper(name, self) for name in names if name != POSTGRES]
        self._database = DatabaseKeeper(self, self._tell_of_the_move)

    def note(self, name: str, **changes: Any) -> None:
        """Record a change to a part."""
        part = self.record[name]
        if changes.get("phase", part.phase) is not part.phase:
            changes["since"] = time.time()
        self.record[name] = replace(part, **changes)
        self._save()

    async def run(self) -> None:
        """Keep everything running until SIGTERM, or until the deployment's folder is gone."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._nudge)
        self.events.write(f"started (PID {os.getpid()}) for {', '.join(self.record)}")
        runs = [*(one.run() for one in self._services), self._database.run()]
        tasks = [asyncio.create_task(one) for one in runs]
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(self._until_orphaned())]
        done, _ = await asyncio.wait([*tasks, *ends], return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, *ends):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.events.write("all parts stopped")
        for name in self.record:
            self.note(name, phase=Phase.STOPPED, process=None)
        for task in done:
            task.result()  # a keeper only ends by itself with an error, which is raised here

    def _save(self) -> None:
        # A full disk must not end the parts; the next change saves the whole record again.
        with contextlib.suppress(OSError):
            write_record(self.state.record, self.record)

    async def _until_orphaned(self) -> None:
        """Wait until the folder is deleted, after which no command could stop this process."""
        mine = self.state.alive.stat()
        while _same(self.state.alive, mine):  # noqa: ASYNC110 - nothing signals a deletion
            await asyncio.sleep(self.timing.check)

    def _nudge(self) -> None:
        for one in (*self._services, self._database):
            one.nudge()

    def _tell_of_the_move(self) -> None:
        for keeper in self._services:
            if keeper.name != "identity":
                keeper.restart("PostgreSQL moved to another port")


def _same(path: Path, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), before)
    except OSError:
        return False


def main() -> int:
    """Keep the parts running until SIGTERM; refuse if another process already does."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.supervisor", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the deployment")
    parser.add_argument("--parts", required=True, help="parts to run, comma-separated")
    parser.add_argument("--timing", default="{}", help="timeouts and intervals, as a JSON object")
    chosen = parser.parse_args()
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until a handler is installed
    state = DeploymentFiles(chosen.home)
    descriptor = open_own(state.alive)
    if not wait_for_lock(descriptor, _LOCK_S):
        sys.stderr.write("A supervisor is already running for this deployment.\n")
        return _TAKEN
    made_values(state.part("aws"))  # before two parts could create them at once
    if "aws" in (ports := state.ports()):
        new_credentials(state.part("aws"), ports["aws"])
    timing = Timing(**json.loads(chosen.timing))
    supervisor = Supervisor(state, tuple(chosen.parts.split(",")), os.environ, timing)
    KnownProcess.of(os.getpid()).write(descriptor)  # commands wait for this
    asyncio.run(supervisor.run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
