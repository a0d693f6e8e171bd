"""The local deployment as commands find it: its addresses, in ``endpoints.json``.

`aspen.local` writes the file whenever it starts parts of the deployment, and deletes it with the
deployment. Commands that only use the deployment read this file, and ask the system whether the
processes behind the addresses are alive; they load nothing of `aspen.local`. An address is never
used while its process is gone, since another program may have its port by then.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from aspencli.files import write_whole
from aspencli.machine import born, command_of

PID_FILE = "postmaster.pid"
_PID_LINE, _START_LINE, _PORT_LINE = 0, 2, 3  # of that file (PostgreSQL's miscadmin.h)


@dataclass(frozen=True)
class Postmaster:
    """The main process of a PostgreSQL server.

    Attributes:
        pid: The process ID.
        since: When it started, in seconds since 1970.
        port: The port it listens on.
    """

    pid: int
    since: float
    port: int


def read_postmaster(data: Path) -> Postmaster | None:
    """Return the main process of a data folder's server if it is alive.

    Stale files and reused process IDs are ignored.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        lines = (data / PID_FILE).read_text().splitlines()
        numbers = int(lines[_PID_LINE]), float(lines[_START_LINE]), int(lines[_PORT_LINE])
    except (FileNotFoundError, ValueError, IndexError):
        return None  # missing, or incomplete while the server starts
    found = Postmaster(*numbers)
    return found if is_postmaster(found.pid, data) else None


def is_postmaster(pid: int, data: Path) -> bool:
    """Return True if a process is the main process of this data folder's server."""
    return command_of(pid).endswith(f"-D {data}")


@dataclass(frozen=True)
class Endpoints:
    """The addresses of a local deployment, which its parts keep while they are stopped.

    Attributes:
        database: The URL of the database for the role of the program, including the password.
        admin: The same for the server's superuser.
        port: The port of the database.
        data: PostgreSQL's data folder.
        services: The URL of each service by name, without a trailing slash; ``api`` and
            ``identity`` (the identity provider) among them.
        client_id: The client that the command line signs in as.
        record: The file in which the supervisor records the processes of the services.
    """

    database: str
    admin: str
    port: int
    data: str
    services: dict[str, str]
    client_id: str
    record: str

    @property
    def api_url(self) -> str | None:
        """Return the address of the API, or None if it was never started."""
        return self.services.get("api")

    @property
    def auth_url(self) -> str | None:
        """Return the address of the identity provider, or None if it was never started."""
        return self.services.get("identity")

    @property
    def has_running_database(self) -> bool:
        """Return True if the server that listens on the port is the one of the data folder."""
        try:
            found = read_postmaster(Path(self.data))
        except OSError:
            return False
        return found is not None and found.port == self.port

    def runs(self, *names: str) -> bool:
        """Return True if the processes of all the named services are alive."""
        try:
            record = json.loads(Path(self.record).read_text())
            processes = [record[name]["process"] for name in names]
            return all(
                process["born"] and process["born"] == born(process["pid"]) for process in processes
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False  # the supervisor never ran, or a service has no process


def endpoints_file(home: Path) -> Path:
    """Return the file of the deployment in a folder."""
    return home / "endpoints.json"


def write_endpoints(home: Path, endpoints: Endpoints) -> None:
    """Write the file, readable only by its owner."""
    write_whole(endpoints_file(home), json.dumps(asdict(endpoints), indent=2))


def read_endpoints(home: Path) -> Endpoints | None:
    """Read the file; return None if there is none, or if another version or folder wrote it."""
    try:
        found = Endpoints(**json.loads(endpoints_file(home).read_text()))
        # A copied or moved folder still names the files of the original.
        is_own = any(parent.samefile(home) for parent in Path(found.record).parents)
    except (OSError, ValueError, TypeError):
        return None
    return found if is_own else None
