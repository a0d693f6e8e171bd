"""Ports for servers that only this machine can reach."""

from __future__ import annotations

import socket
from collections.abc import Collection

from aspencli.errors import UnreachableError

HOST = "127.0.0.1"
# These are below the range that systems use for outgoing connections (32768 and up), so that a port
# is still free at the next start.
_FIRST, _COUNT = 15432, 1000
SERVICES_FIRST = 16432
"""The first port to try for services; PostgreSQL's ports are below it."""


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
        f"no port from {first} to {first + _COUNT - 1} is free",
        hint="Stop programs that hold some of them.",
    )
