"""Lookup of the process that listens on a port, and of the account that a connection comes from."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from local.ports import HOST

_TABLE = Path("/proc/net/tcp")
_TABLE_6 = Path("/proc/net/tcp6")
_ADDRESS, _PEER, _STATE, _UID, _INODE = 1, 2, 3, 7, 9  # columns
_LISTENING = "0A"
# The kernel's interface for looking up one socket: linux/sock_diag.h and linux/inet_diag.h.
_SOCKET_MONITORING, _BY_FAMILY, _IS_REQUEST = 4, 20, 1
_ANY_STATE, _ANY_COOKIE = 0xFFFFFFFF, b"\xff" * 8
_HEAD = struct.Struct("=IHHII")  # length, kind, flags, sequence, sender
_ASKED = struct.Struct("=BBHI")  # family, protocol, extensions, states
_ENDS = struct.Struct("!HH16s16sI8s")  # ports, addresses, interface, cookie
_OWNER = struct.Struct("=12xII")  # account, inode
_LARGEST_ANSWER, _ANSWER_S = 4096, 1.0


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
        if row[_STATE] == _LISTENING and row[_ADDRESS].endswith(f":{port:04X}")
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
