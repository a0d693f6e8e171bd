"""What the supervisor tells of the parts, in a file that commands read."""

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
    """Where a part is in its life."""

    STARTING = "starting"
    """It loads, or waits for the parts that it needs."""
    RUNNING = "running"
    UNRESPONSIVE = "unresponsive"
    """Its process lives and does not answer."""
    RESTARTING = "restarting"
    """It ended, and is started again after a pause."""
    STOPPED = "stopped"


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one of the same number.

    Attributes:
        pid: Its number.
        born: When it began; see `processes.born`.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now."""
        return cls(pid, processes.born(pid))

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """The process that wrote itself into a file."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, descriptor: int) -> None:
        """Write it into an open file, in place of what is there."""
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(self)).encode(), 0)

    @property
    def lives(self) -> bool:
        """Whether it is still there."""
        return bool(self.born) and processes.born(self.pid) == self.born


@dataclass
class PartRecord:
    """A part, as the supervisor sees it. Times are seconds since 1970.

    Attributes:
        phase: Where it is in its life.
        since: When it came there.
        process: Its process, where it has one.
        restarts: How often it was started again since the supervisor began.
        last_restart: When that was last; None when never.
        reason: Why it ended last; empty when it never did.
        conflict: Whether another program had its port.
        how: How it was stopped: ``fast``, or ``killed`` where it did not end by itself.
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
        """Whether its process is there."""
        return self.process is not None and self.process.lives

    @property
    def runs(self) -> bool:
        """Whether it can be used, as far as is known: its process may have ended just now."""
        return self.phase is Phase.RUNNING and self.lives


Record = dict[str, PartRecord]
"""Each part that the supervisor keeps, by name."""


def write_record(path: Path, record: Record) -> None:
    """Keep what is known of each part."""
    write_whole(path, json.dumps({name: asdict(part) for name, part in record.items()}))


def read_record(path: Path) -> Record:
    """What was kept last; nothing where nothing was, or it cannot be read."""
    try:
        return {name: _part(values) for name, values in json.loads(path.read_text()).items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _part(values: dict[str, Any]) -> PartRecord:
    process = values["process"]
    known = {one.name: values[one.name] for one in fields(PartRecord)}
    known |= {"phase": Phase(values["phase"]), "process": Process(**process) if process else None}
    return PartRecord(**known)
