"""Server processes on this machine: their ports, their owners, their start, and their end.

They listen on 127.0.0.1 only. A file lock keeps two commands from acting on them at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aspen.local.postgres.paths import Account
from aspencli.errors import AspenError, ConflictError, RefusedError, UnreachableError
from aspencli.files import open_own

HOST = "127.0.0.1"
# These are below the range that systems use for outgoing connections (32768 and up), so that a port
# is still free at the next start.
_FIRST, _COUNT = 15432, 1000
SERVICES_FIRST = 16432
"""The first port to try for services; PostgreSQL's ports are below it."""
POLL_S = 0.01
_HARD_S = 3.0  # the time that SIGQUIT or SIGKILL may take to end a process

# The shell ends at once, so that init adopts the program. Otherwise a zombie could remain, whose
# process ID would look like that of a live server.
_DETACH = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'

_TABLE = Path("/proc/net/tcp")
_TABLE_6 = Path("/proc/net/tcp6")
_ADDRESS, _PEER, _STATE_COLUMN, _UID, _INODE = 1, 2, 3, 7, 9  # columns
_LISTENING = "0A"
# The kernel's interface for looking up one socket: linux/sock_diag.h and linux/inet_diag.h.
_SOCKET_MONITORING, _BY_FAMILY, _IS_REQUEST = 4, 20, 1
_ANY_STATE, _ANY_COOKIE = 0xFFFFFFFF, b"\xff" * 8
_HEAD = struct.Struct("=IHHII")  # length, kind, flags, sequence, sender
_ASKED = struct.Struct("=BBHI")  # family, protocol, extensions, states
_ENDS = struct.Struct("!HH16s16sI8s")  # ports, addresses, interface, cookie
_OWNER = struct.Struct("=12xII")  # account, inode
_LARGEST_ANSWER, _ANSWER_S = 4096, 1.0


def is_free(port: int) -> bool:
    """Return True if a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(start: int, *, first: int = _FIRST, avoid: Collection[int] = ()) -> int:
    """Return a free port, searching from a position derived from ``start``.

    Args:
        start: Determines where the search starts.
        first: The first port of the range.
        avoid: Ports not to use, even if they are free.

    Raises:
        UnreachableError: No port is free.
    """
    for step in range(_COUNT):
        port = first + (start + step) % _COUNT
        if port not in avoid and is_free(port):
            return port
    raise UnreachableError(
        f"No free port from {first} to {first + _COUNT - 1}.",
        hint="Stop a program that uses one of them.",
    )


def spawn_detached(
    command: Sequence[str], *, account: Account, environ: Mapping[str, str], log: Path
) -> int:
    """Start a program that outlives this process and its terminal; return its process ID."""
    shell = subprocess.run(  # noqa: S603 - our own script, its arguments passed separately
        ["/bin/sh", "-c", _DETACH, "sh", str(log), *command],
        cwd="/",
        env=dict(environ),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        start_new_session=True,
        **account.run_as(),
    )
    if shell.returncode or not shell.stdout.strip().isdigit():
        raise AspenError(
            f"Cannot start {command[0]}: {shell.stderr.strip() or 'the shell failed'}",
            hint="Check the folder's permissions and the free space.",
        )
    return int(shell.stdout)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; do nothing if the process is gone.

    Raises:
        RefusedError: The process belongs to another user.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise RefusedError(
            f"Process {pid} belongs to another user.",
            hint="Run the command as the user who started it.",
        ) from error


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait for a condition, checking it every 10 ms; return False on timeout."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def end(find: Callable[[], list[int]], *, patience: float, kill: bool = False) -> bool:
    """End the processes that ``find`` returns; return True if that took a signal.

    Args:
        find: Returns the processes that still exist.
        patience: The seconds to wait before the first signal.
        kill: True to use SIGKILL at once, without SIGQUIT.

    Raises:
        AspenError: Some processes did not end.
    """
    if wait_until(lambda: not find(), patience):
        return False
    for number in (signal.SIGKILL,) if kill else (signal.SIGQUIT, signal.SIGKILL):
        for pid in find():
            send(pid, number)
        if wait_until(lambda: not find(), _HARD_S):
            return True
    raise AspenError(
        f"Cannot stop these processes: {', '.join(map(str, find()))}",
        hint="They may be waiting for a disk. If they do not exit, restart the machine.",
    )


def may_own(pid: int, port: int) -> bool:
    """Return True if a process listens on a port of this machine, or if that cannot be determined.

    What answers on the port of a process that was just started may be another program that took the
    port first.
    """
    try:
        rows = [line.split() for line in _TABLE.read_text().splitlines()[1:]]
    except OSError:  # not available, as on macOS
        return True
    sockets = {
        f"socket:[{row[_INODE]}]"
        for row in rows
        if row[_STATE_COLUMN] == _LISTENING and row[_ADDRESS].endswith(f":{port:04X}")
    }
    held = set()
    with contextlib.suppress(FileNotFoundError):  # the process has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed in the meantime
                held.add(str(entry.readlink()))
    return bool(sockets & held)


def is_own_connection(port: int, own_port: int) -> bool:
    """Return True if a connection on 127.0.0.1 comes from our own account or from root.

    Linux reports the account that owns each socket. Where that is not available (macOS), every
    connection counts as our own; on Linux, one whose socket is not found does not.

    Args:
        port: The port that the connection comes from.
        own_port: The port that it connects to.
    """
    if not _TABLE.exists():
        return True
    owner = _asked_owner(port, own_port)
    if owner is None:
        owner = _listed_owner(port, own_port)
    return owner in {0, os.geteuid()}


def _asked_owner(port: int, own_port: int) -> int | None:
    """Ask the kernel which account owns one end of a connection; return None if it does not say.

    This is faster than reading the table, which lists every socket and takes milliseconds.
    """
    address = socket.inet_aton(HOST)
    wanted = _ENDS.pack(port, own_port, address, address, 0, _ANY_COOKIE)
    asked = _ASKED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, _ANY_STATE) + wanted
    head = _HEAD.pack(_HEAD.size + len(asked), _BY_FAMILY, _IS_REQUEST, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _SOCKET_MONITORING) as kernel:
            kernel.settimeout(_ANSWER_S)
            kernel.send(head + asked)
            answer = kernel.recv(_LARGEST_ANSWER)
    except (AttributeError, OSError):  # not available on this system or in this container
        return None
    _size, kind, _flags, _sequence, _sender = _HEAD.unpack_from(answer)
    if kind != _BY_FAMILY:
        return None
    found = _ENDS.unpack_from(answer, _HEAD.size + 4)
    uid, inode = _OWNER.unpack_from(answer, _HEAD.size + 4 + _ENDS.size)
    # If there is no such connection, the kernel may return the listening socket instead.
    return uid if inode and found[:2] == (port, own_port) else None


def _listed_owner(port: int, own_port: int) -> int | None:
    ends = (_encoded(port), _encoded(own_port))
    for row in (*_rows(_TABLE), *_rows(_TABLE_6)):
        # A socket that its process has closed has no owner, and is shown as root's.
        if (row[_ADDRESS][-13:], row[_PEER][-13:]) == ends and row[_INODE] != "0":
            return int(row[_UID])
    return None


def _encoded(port: int) -> str:
    """Return an address as the table shows it; an IPv4-mapped IPv6 address has the same ending."""
    number = int.from_bytes(socket.inet_aton(HOST), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def _rows(table: Path) -> Iterator[list[str]]:
    with contextlib.suppress(FileNotFoundError):  # no IPv6
        yield from (line.split() for line in table.read_text().splitlines()[1:])


@contextmanager
def file_lock(path: Path, *, timeout: float = 180.0) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system releases it when the process ends.

    Raises:
        ConflictError: Another process held the lock for longer than ``timeout`` seconds.
    """
    descriptor = open_own(path)
    try:
        deadline = time.monotonic() + timeout
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"Another command is using the local deployment (waited {timeout:.0f} s).",
                    hint="Wait for it to finish, then try again.",
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
