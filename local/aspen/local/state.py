"""The deployment's own files: ports, the supervisor's record of the parts, logs, and locks."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from zlib import crc32

from aspen.local.processes import (
    SERVICES_FIRST,
    file_lock,
    free_port,
    is_free,
    making,
    passage_mode,
)
from aspen.local.services import WORKER, Phase, Service
from aspencli import machine
from aspencli.errors import AspenError
from aspencli.files import make_folder, write_whole


@dataclass(frozen=True)
class KnownProcess:
    """A process, distinguished from a later one with the same ID by `aspencli.machine.born`."""

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> KnownProcess:
        """Return the process that currently has this process ID."""
        return cls(pid, machine.born(pid))

    @classmethod
    def read(cls, path: Path) -> KnownProcess | None:
        """Return the process written to a file; None if there is none."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, descriptor: int) -> None:
        """Write the process to an open file, replacing its content."""
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(self)).encode(), 0)

    @property
    def lives(self) -> bool:
        """Return True if the process still exists."""
        return bool(self.born) and machine.born(self.pid) == self.born


@dataclass
class PartRecord:
    """A part, as the supervisor sees it. Times are in seconds since 1970.

    Attributes:
        since: When its current phase began.
        restarts: The number of restarts since the supervisor started.
        reason: The reason why it last ended; empty if it never did.
        conflict: True if another program had its port.
        how: How it was stopped: ``fast``, or ``killed`` if it did not end by itself.
    """

    phase: Phase = Phase.STARTING
    since: float = 0.0
    process: KnownProcess | None = None
    restarts: int = 0
    last_restart: float | None = None
    reason: str = ""
    conflict: bool = False
    how: str = ""

    @property
    def lives(self) -> bool:
        """Return True if its process is alive."""
        return self.process is not None and self.process.lives

    @property
    def runs(self) -> bool:
        """Return True if it was last seen running and its process is alive."""
        return self.phase is Phase.RUNNING and self.lives


Record = dict[str, PartRecord]
"""The record of each part that the supervisor keeps running, by name."""


def write_record(path: Path, record: Record) -> None:
    """Write the record to a file."""
    write_whole(path, json.dumps({name: asdict(part) for name, part in record.items()}))


def read_record(path: Path) -> Record:
    """Read the record from a file; it is empty if the file is missing or damaged."""
    try:
        return {name: _part(values) for name, values in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _part(values: dict[str, Any]) -> PartRecord:
    process = values["process"]
    known = {one.name: values[one.name] for one in fields(PartRecord)}
    known |= {
        "phase": Phase(values["phase"]),
        "process": KnownProcess(**process) if process else None,
    }
    return PartRecord(**known)


@dataclass(frozen=True)
class Timing:
    """The timeouts and intervals, in seconds.

    Attributes:
        pause: The pause before a restart; doubled each time that the part soon ends again.
        longest_pause: The maximum of that pause.
        calm: The time that a part must run before the pause is reset.
        start: The time that a part may take to be ready, including its wait for others.
        poll: The interval between checks of a part that is starting.
        check: The interval between checks of a part that is running.
        answer: The time that an answer may take.
        hung: The time without an answer after which a part is restarted.
        stop: The time that a part may take to end by itself.
        watch: The interval between checks of PostgreSQL.
    """

    pause: float = 0.5
    longest_pause: float = 30.0
    calm: float = 60.0
    start: float = 150.0
    poll: float = 0.05
    check: float = 5.0
    answer: float = 5.0
    hung: float = 60.0
    stop: float = 6.0
    watch: float = 0.5

    def after(self, pause: float | None, lived: float) -> float:
        """Return the pause before a restart, given the previous one and how long the part lived."""
        if pause is None or lived >= self.calm:
            return self.pause
        return min(2 * pause, self.longest_pause)


class DeploymentFiles:
    """The files of a deployment that do not belong to a part."""

    def __init__(self, home: Path):
        self.home = home.expanduser().absolute()
        self.folder = self.home / "supervisor"
        self.record = self.folder / "record.json"
        """The supervisor's record of the parts."""
        self.alive = self.folder / "alive"
        """The file that the supervisor locks for as long as it is alive."""
        self.filling = self.folder / "filling"
        """The marker file that exists while test data is added to the database."""
        self._ports = self.folder / "ports.json"

    def log(self, part: str) -> Path:
        """Return the log file of a part, or of the ``supervisor``."""
        return self.folder / "logs" / f"{part}.log"

    def part(self, name: str) -> Path:
        """Return the folder of a part."""
        return self.home / name

    def make(self) -> None:
        """Create the folders.

        Raises:
            BadInputError: The folders cannot be created.
            RefusedError: The folders belong to another user.
        """
        with making(self.folder, self.home):
            make_folder(self.home, passage_mode())
            make_folder(self.log("").parent)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from starting or stopping the deployment."""
        self.make()
        with file_lock(self.folder / "lock"):
            yield

    def ports(self) -> dict[str, int]:
        """Return the port of each service for which one was chosen.

        Raises:
            AspenError: The file is damaged.
        """
        try:
            kept = json.loads(self._ports.read_text())
            return {str(name): int(port) for name, port in kept.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise AspenError(
                f"Damaged file: {self._ports}",
                hint="Delete the file; new ports are chosen at the next start.",
            ) from error

    def choose_ports(self, services: Iterable[Service]) -> list[str]:
        """Choose the ports of services that are not running yet; return notes for the operator.

        Each keeps the port of its last start, unless another program has taken it.
        """
        kept, notes = self.ports(), list[str]()
        before, start = dict(kept), crc32(str(self.home).encode())
        for one in services:
            wanted = kept.pop(one.name, one.port)
            if wanted not in kept.values() and is_free(wanted):
                kept[one.name] = wanted
                continue
            avoid = {*kept.values(), *before.values(), *(other.port for other in services)}
            kept[one.name] = free_port(start, first=SERVICES_FIRST, avoid=avoid)
            notes.append(
                f"Port {wanted} is in use by another program;"
                f" {one.name} uses {kept[one.name]} instead."
            )
        if kept != before:
            # If this start is killed, they would name ports that belong to other programs now.
            machine.endpoints_file(self.home).unlink(missing_ok=True)
            write_whole(self._ports, json.dumps(kept))
        return notes

    def clear(self) -> None:
        """Delete the files, except the lock, which other processes may be waiting for."""
        shutil.rmtree(self.log("").parent, ignore_errors=True)
        for path in (self.record, self.filling, self._ports, machine.endpoints_file(self.home)):
            path.unlink(missing_ok=True)


def jobs_folder(state: DeploymentFiles) -> Path:
    """Return the folder of the worker's jobs."""
    return state.part(WORKER) / "jobs"
