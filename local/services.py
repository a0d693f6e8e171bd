"""The services that the supervisor keeps running beside PostgreSQL, each a Python process."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from aspencli.errors import UnreachableError

POSTGRES, SUPERVISOR = "postgres", "supervisor"
CLIENT_ID, MANAGEMENT_CLIENT_ID = "aspencli-local", "aspen-management"
"""The client IDs of the command line and the service at the identity provider."""


@dataclass(frozen=True)
class Service:
    """A service.

    Attributes:
        name: The name.
        port: The port on 127.0.0.1 to use if it is free.
        health: A path that returns 200 while the process works.
        needs: The parts that it waits for, once it is loaded.
        modules: The Python modules that it requires.
        readiness: A path that returns 200 while the parts it needs answer, too; `health` if None.
    """

    name: str
    port: int
    health: str
    needs: tuple[str, ...]
    modules: tuple[str, ...]
    readiness: str | None = None

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
)
"""The services, in the order in which they are listed."""
PARTS = (POSTGRES, *(service.name for service in SERVICES))
"""The names of all parts."""


def service(name: str) -> Service:
    """Return the service with a name."""
    return next(one for one in SERVICES if one.name == name)


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
    missing = sorted({name for one in services for name in one.modules if not find_spec(name)})
    if missing:
        raise UnreachableError(
            f"the local deployment needs what is not installed: {', '.join(missing)}",
            hint="Install this program with its extra: aspencli[local]. "
            "The database alone does without: aspencli local up --only postgres",
        )
