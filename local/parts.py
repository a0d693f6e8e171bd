"""What the parts of a local deployment have in common.

PostgreSQL is the first part; each further one (an API server, an identity provider) brings the
same four verbs, so that ``local up`` goes through a list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

Steps = Callable[[str], None]
"""Told the name of each longer step as it begins, such as ``initialising``."""


class State(Enum):
    """What a part is doing."""

    ABSENT = "absent"
    """It was never started, or was reset: there is no data."""
    STOPPED = "stopped"
    RUNNING = "running"
    CRASHED = "crashed"
    """It ended without being stopped; the next start repairs it."""


@dataclass(frozen=True)
class Started:
    """What starting a part did.

    Attributes:
        already_running: It ran before, and nothing was done.
        port: Where it answers on 127.0.0.1.
        pid: Its process.
        seconds: How long it took to be ready.
        created: Its data was made from nothing.
        repaired: It had crashed before.
        notes: What the operator should be told.
    """

    already_running: bool
    port: int
    pid: int
    seconds: float
    created: bool = False
    repaired: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """What stopping a part did.

    Attributes:
        was_running: It ran (or left processes behind) before.
        how: ``fast``, ``immediate`` or ``killed``: what it took; empty when it was not running.
        seconds: How long it took until every process was gone.
    """

    was_running: bool
    how: str
    seconds: float


@dataclass(frozen=True)
class PartStatus:
    """What a part is doing, and where.

    Attributes:
        name: Which part.
        state: What it is doing.
        pid: Its process, when running.
        port: Where it answers on 127.0.0.1; None before the first start.
        version: Its version; None when not known.
        data: The folder of its data.
        size: The bytes in that folder.
        uptime: The seconds since its start, when running.
        program: The folder of its program files; None when there are none.
    """

    name: str
    state: State
    pid: int | None
    port: int | None
    version: str | None
    data: Path
    size: int
    uptime: float | None
    program: Path | None


class Part(Protocol):
    """One server of the local deployment."""

    name: str

    def up(self, *, progress: Steps | None = None) -> Started:
        """Start it and wait until it is ready; nothing to do when it runs."""
        ...

    def down(self) -> Stopped:
        """Stop it and wait until no process is left."""
        ...

    def status(self) -> PartStatus:
        """What it is doing."""
        ...

    def reset(self) -> bool:
        """Stop it and delete its data; whether there was any."""
        ...
