"""The parts of a local deployment: PostgreSQL, and the services kept running beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

from aspencli.errors import UnreachableError

POSTGRES, SUPERVISOR, WORKER = "postgres", "supervisor", "worker"
CLIENT_ID, MANAGEMENT_CLIENT_ID = "aspencli-local", "aspen-management"
"""The client IDs of the command line and the service at the identity provider."""

Steps = Callable[[str], None]
"""Called with the name of each longer step as it starts, such as ``initializing``."""
PartSteps = Callable[[str, str], None]
"""Called with a part's name, and the name of each longer step as it starts."""


class Phase(StrEnum):
    """The phase of a part's life cycle."""

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
        seconds: The time until it was ready.
        created: True if its data was newly created.
        repaired: True if it had crashed before.
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

    was_running: bool = False
    how: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PartStatus:
    """The status of a part.

    Attributes:
        port: Its port on 127.0.0.1; None before the first start.
        version: Its version; None if unknown.
        size: The size of its data in bytes.
        uptime: The seconds since its start, if it is running.
        program: The folder of its program files; None if there are none.
        url: Its URL, if it is running; a database's URL omits the password.
        restarts: The number of restarts since ``up``.
        last_restart: When it was last restarted, in seconds since 1970; None if never.
        reason: The reason why it last ended; empty if it did not.
    """

    name: str
    state: Phase
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
        return self.state is Phase.RUNNING


@dataclass(frozen=True)
class Service:
    """A service.

    Attributes:
        port: The port on 127.0.0.1 to use if it is free.
        health: A path that returns 200 while the process works.
        needs: The parts that it waits for, once it is loaded.
        modules: The Python modules that it requires.
        readiness: A path that returns 200 while the parts it needs answer, too; `health` if None.
        optional: True if the deployment does without it where its modules are not installed.
    """

    name: str
    port: int
    health: str
    needs: tuple[str, ...]
    modules: tuple[str, ...]
    readiness: str | None = None
    optional: bool = False

    @property
    def ready(self) -> str:
        """Return the path that returns 200 when the service is ready for requests."""
        return self.readiness or self.health


SERVICES = (
    # Its secret contains the address of PostgreSQL.
    Service("aws", 4566, "/_health", (POSTGRES,), ("moto", "flask", "boto3")),
    Service("identity", 3031, "/healthz", (), ("fastapi", "uvicorn", "joserfc", "multipart")),
    Service(
        "api",
        3000,
        "/v2/health/",
        (POSTGRES, "aws", "identity"),
        ("fastapi", "uvicorn", "asyncpg", "orjson"),
        readiness="/v2/health/ready",
    ),
    Service(
        WORKER,
        3050,
        "/health",
        (POSTGRES, "aws"),
        ("augur", "dbos", "edlib", "piqtree", "psycopg"),
        readiness="/ready",
        optional=True,
    ),
)
"""The services, in the order in which they are listed."""
PARTS = (POSTGRES, *(service.name for service in SERVICES))
"""The names of all parts."""
NO_WORKER = (
    "Compute jobs do not run here. To run them, install aspencli[local,workflows] "
    "(in a checkout: make workflows), then: aspencli local up"
)
"""The hint for a deployment without a worker."""


def service(name: str) -> Service:
    """Return the service with a name."""
    return next(one for one in SERVICES if one.name == name)


def installed_parts() -> tuple[str, ...]:
    """Return the names of all parts, except optional ones whose modules are not installed."""
    absent = {one.name for one in SERVICES if one.optional and _missing([one])}
    return tuple(name for name in PARTS if name not in absent)


def with_needed(names: Iterable[str]) -> tuple[str, ...]:
    """Return the parts and their dependencies in order; PostgreSQL is always included."""
    chosen = {POSTGRES, *names}
    chosen.update(*(one.needs for one in SERVICES if one.name in chosen))
    return tuple(name for name in PARTS if name in chosen)


def check_installed(services: Iterable[Service]) -> None:
    """Check that the modules that the services require are installed.

    Raises:
        UnreachableError: A module is missing; the hint says how to install it.
    """
    chosen = list(services)
    if missing := _missing(one for one in chosen if not one.optional):
        raise UnreachableError(
            f"The local deployment requires packages that are not installed: {', '.join(missing)}",
            hint="Install aspencli[local]. "
            "The database does not need them: aspencli local up --only postgres",
        )
    if missing := _missing(one for one in chosen if one.optional):
        raise UnreachableError(
            f"The worker requires packages that are not installed: {', '.join(missing)}",
            hint="Install aspencli[local,workflows] (in a checkout: make workflows). "
            "The other parts do not need them: aspencli local up",
        )


def _missing(services: Iterable[Service]) -> list[str]:
    return sorted({name for one in services for name in one.modules if not find_spec(name)})
