"""The states of the parts of a local deployment: PostgreSQL, and the supervised services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

Steps = Callable[[str], None]
"""Called with the name of each longer step as it starts, such as ``initialising``."""
PartSteps = Callable[[str, str], None]
"""Called with a part's name, and the name of each longer step as it starts."""


class State(Enum):
    """The state of a part."""

    ABSENT = "absent"
    """Never started, or reset: there is no data."""
    STOPPED = "stopped"
    RUNNING = "running"
    CRASHED = "crashed"
    """It ended without being stopped; the next start repairs it."""
    STARTING = "starting"
    """It is loading, or waiting for the parts that it needs."""
    UNRESPONSIVE = "unresponsive"
    """Its process is alive but does not answer."""
    RESTARTING = "restarting"
    """It ended unexpectedly and is restarted after a pause."""


@dataclass(frozen=True)
class Started:
    """The result of starting a part.

    Attributes:
        already_running: True if it was already running, so nothing was done.
        port: Its port on 127.0.0.1.
        pid: Its process ID.
        seconds: The time until it was ready.
        created: True if its data was newly created.
        repaired: True if it had crashed before.
        notes: Messages for the operator.
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
    """The result of stopping a part.

    Attributes:
        was_running: True if it was running, or had left processes behind.
        how: The method needed: ``fast``, ``immediate``, or ``killed``; empty if it was not running.
        seconds: The time until every process was gone.
    """

    was_running: bool
    how: str
    seconds: float


@dataclass(frozen=True)
class PartStatus:
    """The status of a part.

    Attributes:
        name: The part's name.
        state: The part's state.
        pid: Its process ID, if it is running.
        port: Its port on 127.0.0.1; None before the first start.
        version: Its version; None if unknown.
        data: The folder of its data.
        size: The size of that folder in bytes.
        uptime: The seconds since its start, if it is running.
        program: The folder of its program files; None if there are none.
        url: Its URL, if it is running; a database's URL omits the password.
        restarts: The number of restarts since ``up``.
        last_restart: When it was last restarted, in seconds since 1970; None if never.
        reason: The reason why it last ended; empty if it did not.
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
        """Return True if the part is running."""
        return self.state is State.RUNNING
