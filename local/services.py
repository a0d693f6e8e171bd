"""The parts beside PostgreSQL: Python programs, each a process that the supervisor keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from aspencli.errors import UnreachableError

POSTGRES, SUPERVISOR = "postgres", "supervisor"
CLIENT_ID, MANAGEMENT_CLIENT_ID = "aspencli-local", "aspen-management"
"""What the identity provider knows the command line and the service by."""


@dataclass(frozen=True)
class Service:
    """One of them.

    Attributes:
        name: What it is called.
        port: Where it answers on 127.0.0.1, when that port is free.
        health: A path that answers 200 while the process works.
        needs: The parts that it waits for, once it is loaded.
        modules: What must be installed for it.
        readiness: A path that answers 200 while what it needs answers, too; `health` if None.
    """

    name: str
    port: int
    health: str
    needs: tuple[str, ...]
    modules: tuple[str, ...]
    readiness: str | None = None

    @property
    def ready(self) -> str:
        """The path that answers 200 when it is ready for requests."""
        return self.readiness or self.health


SERVICES = (
    # Its secret tells where PostgreSQL answers.
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
"""In the order in which they are told of."""
PARTS = (POSTGRES, *(service.name for service in SERVICES))
"""The name of every part."""


def service(name: str) -> Service:
    """The service of that name."""
    return next(one for one in SERVICES if one.name == name)


def with_needed(names: Iterable[str]) -> tuple[str, ...]:
    """Those parts and the parts that they need, in their order; PostgreSQL is always one."""
    chosen = {POSTGRES, *names}
    chosen.update(*(one.needs for one in SERVICES if one.name in chosen))
    return tuple(name for name in PARTS if name in chosen)


def check_installed(services: Iterable[Service]) -> None:
    """Make sure that what the services need is installed.

    Raises:
        UnreachableError: Something is missing; the hint tells how to get it.
    """
    missing = sorted({name for one in services for name in one.modules if not find_spec(name)})
    if missing:
        raise UnreachableError(
            f"the local deployment needs what is not installed: {', '.join(missing)}",
            hint="Install this program with its extra: aspencli[local]. "
            "The database alone does without: aspencli local up --only postgres",
        )
