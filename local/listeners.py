"""Which process listens on a port."""

from __future__ import annotations

import contextlib
from pathlib import Path

_TABLE = Path("/proc/net/tcp")
_ADDRESS, _STATE, _INODE = 1, 3, 9  # columns
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
