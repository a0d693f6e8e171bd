"""What is told of the parts of a local deployment: PostgreSQL, and the supervised services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Steps = Callable[[str], None]
"""Told the name of each longer step as it begins, such as ``initialising``."""
PartSteps = Callable[[str, str], None]
"""Told a part's name, and the name of each longer step as it begins."""


class State(Enum):
    """What a part is doing."""

    ABSENT = "absent"
    """It was never started, or was reset: there is no data."""
    STOPPED = "stopped"
    RUNNING = "running"
    CRASHED = "crashed"
    """It ended without being stopped; the next start repairs it."""
    STARTING = "starting"
    """It loads, or waits for the parts that it needs."""
    UNRESPONSIVE = "unresponsive"
    """Its process lives and does not answer."""
    RESTARTING = "restarting"
    """It ended by itself, and is started again after a pause."""


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
        url: Where it answers, when running; a database's is without its password.
        restarts: How often it was started again since ``up``.
        last_restart: When that was last, in seconds since 1970; None when never.
        reason: Why it ended before that; empty when it did not.
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
    url: str | None = None
    restarts: int = 0
    last_restart: float | None = None
    reason: str = ""

    @property
    def runs(self) -> bool:
        """Whether it can be used."""
        return self.state is State.RUNNING
