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

_PID_LINE, _PORT_LINE = 0, 3  # of postmaster.pid (PostgreSQL's miscadmin.h)


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
            lines = (Path(self.data) / "postmaster.pid").read_text().splitlines()
            pid, port = int(lines[_PID_LINE]), int(lines[_PORT_LINE])
        except (OSError, ValueError, IndexError):
            return False  # it is missing, or incomplete while the server starts
        return port == self.port and command_of(pid).endswith(f"-D {self.data}")

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
