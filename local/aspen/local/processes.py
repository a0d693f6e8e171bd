"""Server processes on this machine: their accounts and ports, their start, and their end.

They listen on 127.0.0.1 only. PostgreSQL refuses to run as root, so a server that root starts runs
as another account. A file lock keeps two commands from acting on them at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    RefusedError,
    UnreachableError,
)
from aspencli.files import open_own

HOST = "127.0.0.1"
# These are below the range that systems use for outgoing connections (32768 and up), so that a port
# is still free at the next start.
_FIRST, _COUNT = 15432, 1000
SERVICES_FIRST = 16432
"""The first port to try for services; PostgreSQL's ports are below it."""
POLL_S = 0.01
_HARD_S = 3.0  # the time that SIGQUIT or SIGKILL may take to end a process

_PREFERRED = ("postgres", "nobody")
_SHELL = "/bin/sh"
# A folder that the account can enter, or a program file that it can run.
_USABLE = 'test -x "$1" && { test -d "$1" || test -r "$1"; }'
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


@dataclass(frozen=True)
class Account:
    """An operating system account to run a server as.

    Attributes:
        name: The account name, for messages.
        switched: True if this is not the account of this process.
    """

    uid: int
    gid: int
    name: str
    switched: bool

    def run_as(self) -> dict[str, Any]:
        """Return the keyword arguments that make ``subprocess`` run a program as this account."""
        if not self.switched:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Give this account ownership of a file or folder."""
        if self.switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def can_use(self, path: Path) -> bool:
        """Return True if it can enter a folder and every folder above it, or run a program file."""
        if not self.switched:
            return os.access(path, os.X_OK)
        return self._passes(_USABLE, str(path))

    def works(self) -> bool:
        """Return True if this process can become this account (a container may not map its ID)."""
        try:
            return self._passes("exit 0")
        except (OSError, subprocess.SubprocessError):
            return False

    def _passes(self, script: str, *arguments: str) -> bool:
        command = [_SHELL, "-c", script, "sh", *arguments]
        done = subprocess.run(command, cwd="/", check=False, **self.run_as())  # noqa: S603 - our own script
        return done.returncode == 0


def own_account() -> Account:
    """Return the account of this process."""
    return Account(os.geteuid(), os.getegid(), _account_name(os.geteuid()), switched=False)


def server_account(data: Path) -> Account:
    """Return this process's account or, for root, the owner of the data or an unprivileged account.

    Raises:
        RefusedError: This process is root, and no other account is usable.
    """
    if os.geteuid() != 0:
        return own_account()
    if data.exists() and (owner := data.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid, _account_name(owner.st_uid), switched=True)
    for account in _unprivileged():
        if account.works():
            return account
    raise RefusedError(
        "PostgreSQL cannot run as root, and there is no other account to run it as.",
        hint="Run this as a regular user, or add an account named postgres.",
    )


def _unprivileged() -> Iterator[Account]:
    entries = {entry.pw_name: entry for entry in pwd.getpwall() if entry.pw_uid != 0}
    first = [entries[name] for name in _PREFERRED if name in entries]
    for entry in first + [e for name, e in entries.items() if name not in _PREFERRED]:
        yield Account(entry.pw_uid, entry.pw_gid, entry.pw_name, switched=True)


def _account_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container may run under a user ID that has no name
        return str(uid)


def passage_mode() -> int:
    """Return the mode for a folder that holds a server's data.

    A server started by root runs as another account, which needs to traverse but not list it.
    """
    return 0o711 if os.geteuid() == 0 else 0o700


def check_owner(folder: Path, shown: Path) -> None:
    """Check that a folder of the deployment, if it exists, does not belong to another user.

    Raises:
        RefusedError: It belongs to another user.
    """
    if folder.exists() and os.geteuid() not in {0, folder.stat().st_uid}:
        raise RefusedError(
            f"The local deployment in {shown} belongs to another user.",
            hint="Run the command as that user, or set ASPEN_HOME to a folder of your own.",
        )


@contextmanager
def making(folder: Path, shown: Path) -> Iterator[None]:
    """Check the owner of a folder of the deployment, and report why it cannot be created.

    Raises:
        BadInputError: The folder cannot be created.
        RefusedError: The folder belongs to another user.
    """
    check_owner(folder, shown)
    try:
        yield
    except OSError as error:
        raise BadInputError(
            f"Cannot create the folder {folder}: {error.strerror}",
            hint="Set ASPEN_HOME to another folder, or fix the permissions.",
        ) from error


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
        [_SHELL, "-c", _DETACH, "sh", str(log), *command],
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

    The first signal is sent after ``patience`` seconds. If ``kill``, it is SIGKILL, not SIGQUIT.

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
        if not wait_for_lock(descriptor, timeout):
            raise ConflictError(
                f"Another command is using the local deployment (waited {timeout:.0f} s).",
                hint="Wait for it to finish, then try again.",
            )
        yield
    finally:
        os.close(descriptor)


def wait_for_lock(descriptor: int, timeout: float, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file until it is closed; return False on timeout."""

    def is_locked() -> bool:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return wait_until(is_locked, timeout)
