"""The supervisor's record of the parts, in a file that commands read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from aspencli.files import write_whole
from local import processes


class Phase(StrEnum):
    """The phase of a part's life cycle."""

    STARTING = "starting"
    """It is loading, or waiting for the parts that it needs."""
    RUNNING = "running"
    UNRESPONSIVE = "unresponsive"
    """Its process is alive but does not answer."""
    RESTARTING = "restarting"
    """It ended and is restarted after a pause."""
    STOPPED = "stopped"


@dataclass(frozen=True)
class Process:
    """A process, distinguished from a later one with the same process ID.

    Attributes:
        pid: The process ID.
        born: When it started; see `processes.born`.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that currently has this process ID."""
        return cls(pid, processes.born(pid))

    @classmethod
    def read(cls, path: Path) -> Process | None:
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
        return bool(self.born) and processes.born(self.pid) == self.born


@dataclass
class PartRecord:
    """A part, as the supervisor sees it. Times are in seconds since 1970.

    Attributes:
        phase: Its current phase.
        since: When that phase began.
        process: Its process, if there is one.
        restarts: The number of restarts since the supervisor started.
        last_restart: When it was last restarted; None if never.
        reason: The reason why it last ended; empty if it never did.
        conflict: True if another program had its port.
        how: How it was stopped: ``fast``, or ``killed`` if it did not end by itself.
    """

    phase: Phase = Phase.STARTING
    since: float = 0.0
    process: Process | None = None
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
    known |= {"phase": Phase(values["phase"]), "process": Process(**process) if process else None}
    return PartRecord(**known)
