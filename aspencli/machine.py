"""This machine: its user, processes, and environment, and the local deployment on it.

`aspen.local` writes the deployment's addresses to ``endpoints.json`` whenever it starts parts of
it, and deletes the file with the deployment. Commands that only use the deployment read this file,
and ask the system whether the processes behind the addresses are alive; they load nothing of
`aspen.local`. An address is never used while its process is gone, since another program may have
its port by then.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from aspencli.files import write_whole

PID_FILE = "postmaster.pid"
_PID_LINE, _START_LINE, _PORT_LINE = 0, 2, 3  # of that file (PostgreSQL's miscadmin.h)
_PROC = Path("/proc")  # of Linux; other systems have ps
_STATE, _START = 0, 19  # fields of /proc/PID/stat after the name (proc_pid_stat(5))
_ENDED = ("Z", "X", "x")
_GLANCES, _GLANCE_S = 5, 0.002


@dataclass(frozen=True)
class Process:
    """A process, distinguishable from a later one with the same PID."""

    host: str
    pid: int
    started: str  # in a form that only the same machine can compare

    @property
    def is_here(self) -> bool:
        """Return True if the process runs, or ran, on this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Return True if the process is still running; False if this machine cannot check."""
        return self.is_here and bool(self.started) and start_of(self.pid) == self.started


def this_process() -> Process:
    """Return the current process."""
    return Process(socket.gethostname(), os.getpid(), start_of(os.getpid()))


def this_user() -> str:
    """Return the account name, or the UID if it has none, as in some containers."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def start_of(pid: int) -> str:
    """Return when a process started, as text that with the PID identifies it on this machine.

    The text is empty if the process does not exist or is a zombie.
    """
    if not (_PROC / "self" / "stat").exists():
        state, _, started = _ps("-p", str(pid), "-o", "stat=,lstart=").strip().partition(" ")
        return "" if state.startswith(_ENDED) else " ".join(started.split())
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    # The name is in parentheses, and may contain some itself.
    fields = text.rpartition(")")[2].split()
    return "" if fields[_STATE] in _ENDED else f"{_boot()} {fields[_START]}"


def born(pid: int) -> str:
    """Return `start_of` in the form of the local deployment's records, without spaces."""
    return start_of(pid).replace(" ", "-")


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it does not exist or is a zombie."""
    if (_PROC / "self" / "cmdline").exists():
        for _ in range(_GLANCES):
            # During exec, a process briefly has no command line.
            if (command := _read_command(pid)) or not start_of(pid):
                return command
            time.sleep(_GLANCE_S)
        return ""
    return _ps("-p", str(pid), "-ww", "-o", "command=").strip()


def running() -> Iterator[tuple[int, str]]:
    """Yield every process ID with its command line, joined by spaces; zombies are omitted."""
    if (_PROC / "self" / "cmdline").exists():
        for entry in os.listdir(_PROC):  # noqa: PTH208 - takes half the time of Path.iterdir
            if entry.isdigit() and (command := _read_command(int(entry))):
                yield int(entry), command
        return
    listing = _ps("-ax", "-ww", "-o", "pid=,command=")
    for line in listing.splitlines():
        number, _, command = line.strip().partition(" ")
        yield int(number), command.strip()


def _read_command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
    return words.rstrip(b"\0 ").replace(b"\0", b" ").decode(errors="replace")


@cache
def _boot() -> str:
    return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()


def _ps(*arguments: str) -> str:
    command = ["ps", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ps
    return done.stdout


@dataclass(frozen=True)
class Postmaster:
    """The main process of a PostgreSQL server."""

    pid: int
    since: float  # when it started, in seconds since 1970
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
    """The addresses of a local deployment, which its parts keep while they are stopped."""

    database: str  # its URL for the role of the program, including the password
    admin: str  # the same for the server's superuser
    port: int
    data: str  # PostgreSQL's data folder
    services: dict[str, str]  # URLs without a trailing slash, of "api" and "identity" among others
    client_id: str  # the client that the command line signs in as
    record: str  # the file in which the supervisor records the processes of the services
    # AWS's own file with the access key of the emulator; empty if an earlier version started it.
    aws_credentials: str = ""

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


def clear_environment(names: Iterable[str]) -> None:
    """Remove variables from the environment of this process, and so of its children."""
    for name in names:
        os.environ.pop(name, None)
