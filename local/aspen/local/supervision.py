"""The supervisor from the commands' side: start it, wait for it, stop it, and clean up after it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace

from aspen.local import logs, processes
from aspen.local.processes import own_account, wait_for_lock
from aspen.local.services import (
    POSTGRES,
    SUPERVISOR,
    WORKER,
    PartSteps,
    Phase,
    Stopped,
    check_installed,
    service,
    with_needed,
)
from aspen.local.state import (
    DeploymentFiles,
    KnownProcess,
    Record,
    Timing,
    read_record,
    write_record,
)
from aspencli.errors import AspenError, ConflictError, UnreachableError

_BEGIN_S = 15.0  # for Python to start, and to read the port of each part
_READY_S = 180.0
_STOP_S = 8.0  # longer than it gives the parts
_CLEAR_S = 6.0
_TAIL = 15  # lines of a log in a message
_PASSED_ON = ("COVERAGE_", "LC_", "PYTHON")
_NAMED = {
    "ASPEN_JOB_STEPS",
    "ASPEN_PG_BINDIR",
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "TMPDIR",
    "TZ",
    "USER",
}


class PortTakenError(ConflictError):
    """A conflict with another program over a part's port; the next start chooses another port."""


class LostError(AspenError):
    """The end of the supervisor while a command waited for it; the next start creates another."""


class Supervision:
    """The supervisor of a deployment.

    Commands that start or stop it must hold the deployment's lock.
    """

    def __init__(self, state: DeploymentFiles, timing: Timing | None = None):
        self._state, self._timing = state, timing or Timing()

    @property
    def process(self) -> KnownProcess | None:
        """Return the supervisor's process; None if it is not alive."""
        process = KnownProcess.read(self._state.alive)
        return process if process and process.lives else None

    def record(self) -> Record:
        """Return its latest record of the parts."""
        return read_record(self._state.record)

    def start(self, names: tuple[str, ...], notes: list[str]) -> list[str]:
        """Have the supervisor keep parts running; return the services to wait for.

        Messages for the operator are added to ``notes``.
        """
        if self._is_alive():
            kept = tuple(self.record())
            if set(names) <= set(kept):
                self._nudge()
                return [name for name in names if name != POSTGRES]
            self.stop()  # it keeps fewer parts running; a new one will keep them all
            names = with_needed((*names, *kept))
        self.clear()
        services = [service(name) for name in names if name != POSTGRES]
        check_installed(services)
        notes += self._state.choose_ports(services)
        self._spawn(names)
        return [one.name for one in services]

    def wait(self, names: Iterable[str], since: float, progress: PartSteps) -> None:
        """Wait until services are running; only failures after ``since`` count.

        Raises:
            PortTakenError: Another program has the port of a service.
            LostError: The supervisor ended.
            AspenError: A service cannot be started; the details are its last messages.
        """
        announced: dict[str, Phase] = {}
        deadline = time.monotonic() + _READY_S
        while True:
            record = self.record()
            phases = {name: record[name].phase for name in names if name in record}
            _announce(phases, announced, progress)
            self._check(record, phases, since)
            if phases and all(record[name].runs for name in phases):
                return
            if time.monotonic() > deadline:
                late = ", ".join(f"{n} is {p}" for n, p in phases.items() if p is not Phase.RUNNING)
                raise UnreachableError(
                    f"The local deployment was not ready after {_READY_S:.0f} s: {late}",
                    hint="Check 'aspencli local logs', then try again.",
                )
            time.sleep(0.02)

    def stop(self) -> dict[str, Stopped]:
        """Stop the supervisor and all of its services; return the results by name."""
        began, before = time.monotonic(), self.record()
        was = {name: one.lives for name, one in before.items()}
        if process := self.process:
            _end([process], _STOP_S)
        killed, after = self.clear(), self.record()
        seconds = time.monotonic() - began
        how = {name: "killed" if name in killed else after[name].how or "fast" for name in after}
        return {
            name: Stopped(True, how[name], seconds) if was[name] else Stopped()
            for name in reversed(before)
            if name != POSTGRES
        }

    def clear(self) -> set[str]:
        """End the services that a killed supervisor left behind; return their names."""
        record = self.record()
        left = {
            name: one.process
            for name, one in record.items()
            if name != POSTGRES and one.process and one.process.lives
        }
        _end(left.values(), _CLEAR_S)
        ended = {n: replace(one, process=None, phase=Phase.STOPPED) for n, one in record.items()}
        if ended != record:
            write_record(self._state.record, ended)
        return set(left)

    def _is_alive(self) -> bool:
        """Return True if a supervisor is alive, even if it has not written its process ID yet."""
        try:
            descriptor = os.open(self._state.alive, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            if wait_for_lock(descriptor, 0, fcntl.LOCK_SH):
                return False
        finally:
            os.close(descriptor)
        return processes.wait_until(lambda: self.process is not None, _BEGIN_S)

    def _nudge(self) -> None:
        """Have the supervisor retry waiting parts at once."""
        waiting = any(one.phase is Phase.RESTARTING for one in self.record().values())
        if waiting and (process := self.process):
            processes.send(process.pid, signal.SIGHUP)

    def _spawn(self, names: tuple[str, ...]) -> None:
        log = self._state.log(SUPERVISOR)
        home = str(self._state.home)
        timing = json.dumps(asdict(self._timing))
        words = ["-P", "-m", "aspen.local.supervisor", "--home", home, "--parts", ",".join(names)]
        words += ["--timing", timing] if self._timing != Timing() else []
        pid = processes.spawn_detached(
            [sys.executable, *words], account=own_account(), environ=_environment(), log=log
        )
        spawned = KnownProcess.of(pid)
        if (
            not processes.wait_until(lambda: self.process == spawned or not spawned.lives, _BEGIN_S)
            or not spawned.lives
        ):
            raise AspenError(
                "Cannot start the supervisor of the local deployment.",
                hint=f"Its last messages are above; full log: {log}",
                details=logs.tail(log, _TAIL),
            )

    def _check(self, record: Record, phases: Mapping[str, Phase], since: float) -> None:
        if self.process is None:
            raise LostError(
                "The supervisor of the local deployment exited while starting the parts.",
                hint="Try again. To see the supervisor's log: aspencli local logs supervisor",
                details=logs.tail(self._state.log(SUPERVISOR), _TAIL),
            )
        for name, phase in phases.items():
            one = record[name]
            if phase is not Phase.RESTARTING or one.since < since:
                continue
            if one.conflict:
                raise PortTakenError(f"{name}: {one.reason}", hint="Try again in a moment.")
            raise AspenError(
                f"Cannot start {name}: {one.reason}",
                hint=f"Its last messages are above; for more: aspencli local logs {name}. "
                + _without(name),
                details=logs.tail(self._state.log(name), _TAIL),
            )


def _announce(
    phases: Mapping[str, Phase], announced: dict[str, Phase], progress: PartSteps
) -> None:
    """Report services that have begun to start since the last call."""
    for name, phase in phases.items():
        if phase is Phase.STARTING and announced.get(name) is not phase:
            progress(name, phase.value)
        announced[name] = phase


def _without(name: str) -> str:
    """Return how to start what does not need a part."""
    if name == WORKER:
        return "The other parts do not need it: aspencli local up --only api"
    return "The database does not need it: aspencli local up --only postgres"


def _end(ending: Collection[KnownProcess], patience: float) -> None:
    """End processes: gracefully, and after some seconds by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in ending:
            if process.lives:
                processes.send(process.pid, number)
        if processes.wait_until(lambda: not any(one.lives for one in ending), patience):
            return


def _environment() -> dict[str, str]:
    """Return the environment for the services.

    It contains no settings, which would override the deployment's own, and no secrets.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name in _NAMED or name.startswith(_PASSED_ON)
    }
