"""Ports for servers that only this machine reaches."""

from __future__ import annotations

import socket
from collections.abc import Collection

from aspencli.errors import UnreachableError

HOST = "127.0.0.1"
# Below the range that systems take outgoing connections' ports from (32768 and up), so that the
# port is still free at the next start.
_FIRST, _COUNT = 15432, 1000
SERVICES_FIRST = 16432
"""Where the services' ports are looked for; PostgreSQL's come before."""


def is_free(port: int) -> bool:
    """Whether a server could listen on a port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL itself does
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(start: int, *, first: int = _FIRST, avoid: Collection[int] = ()) -> int:
    """A free port; the search begins at a place that ``start`` chooses.

    Args:
        start: Chooses that place.
        first: The first port of the range.
        avoid: Ports that are not to be taken, free or not.

    Raises:
        UnreachableError: There is none.
    """
    for step in range(_COUNT):
        port = first + (start + step) % _COUNT
        if port not in avoid and is_free(port):
            return port
    raise UnreachableError(
        f"no port from {first} to {first + _COUNT - 1} is free",
        hint="Stop programs that hold some of them.",
    )
