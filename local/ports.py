"""Ports for servers that only this machine reaches."""

from __future__ import annotations

import socket

from aspencli.errors import UnreachableError

HOST = "127.0.0.1"
# Below the range that systems take outgoing connections' ports from (32768 and up), so that the
# port is still free at the next start.
_FIRST, _COUNT = 15432, 1000


def is_free(port: int) -> bool:
    """Whether a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(start: int) -> int:
    """A free port; the search begins at a place that ``start`` chooses.

    Raises:
        UnreachableError: There is none.
    """
    for step in range(_COUNT):
        port = _FIRST + (start + step) % _COUNT
        if is_free(port):
            return port
    raise UnreachableError(
        f"no port from {_FIRST} to {_FIRST + _COUNT - 1} is free",
        hint="Stop programs that hold some of them.",
    )
