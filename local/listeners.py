"""Which process listens on a port, and which account a connection comes from."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from local.ports import HOST

_TABLE = Path("/proc/net/tcp")
_TABLE_6 = Path("/proc/net/tcp6")
_ADDRESS, _PEER, _STATE, _UID, _INODE = 1, 2, 3, 7, 9  # columns
_LISTENING = "0A"


def may_own(pid: int, port: int) -> bool:
    """Whether a process listens on a port of this machine; yes where that cannot be known.

    What answers on the port of a process that has only just been started may be another program,
    which took the port in the meantime.
    """
    try:
        rows = [line.split() for line in _TABLE.read_text().splitlines()[1:]]
    except OSError:  # as on macOS
        return True
    sockets = {
        f"socket:[{row[_INODE]}]"
        for row in rows
        if row[_STATE] == _LISTENING and row[_ADDRESS].endswith(f":{port:04X}")
    }
    held = set()
    with contextlib.suppress(FileNotFoundError):  # it has ended
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                held.add(str(entry.readlink()))
    return bool(sockets & held)


def is_own_connection(port: int, own_port: int) -> bool:
    """Return True if a connection on 127.0.0.1 comes from our own account, or from root's.

    Linux shows the account that each socket belongs to. Where that cannot be known (macOS), every
    connection counts as our own; on Linux, one whose socket is not found does not.

    Args:
        port: The port that the connection comes from.
        own_port: The port that it leads to.
    """
    if not _TABLE.exists():
        return True
    ends = (_encoded(port), _encoded(own_port))
    for row in (*_rows(_TABLE), *_rows(_TABLE_6)):
        # A socket that its process has closed belongs to no account, and is shown as root's.
        if (row[_ADDRESS][-13:], row[_PEER][-13:]) == ends and row[_INODE] != "0":
            return int(row[_UID]) in {0, os.geteuid()}
    return False


def _encoded(port: int) -> str:
    """Return an address as the table shows it; one that is mapped to IPv6 ends the same way."""
    number = int.from_bytes(socket.inet_aton(HOST), sys.byteorder)
    return f"{number:08X}:{port:04X}"


def _rows(table: Path) -> Iterator[list[str]]:
    with contextlib.suppress(FileNotFoundError):  # no IPv6
        yield from (line.split() for line in table.read_text().splitlines()[1:])
