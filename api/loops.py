"""The event loop of one of several processes that accept connections at one port."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


class SharingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that accepts one connection at a time, and leaves the next to the others.

    asyncio accepts as many at once as the backlog holds: the process that woke first took nearly
    all, and as clients keep their connections, the others stayed idle.
    """

    async def create_server(  # type: ignore[override] # the server passes a socket, nothing else
        self,
        protocol_factory: Any,
        *,
        sock: socket.socket,
        backlog: int,
        **options: Any,
    ) -> asyncio.Server:
        """Return a server that listens at a socket which other processes listen at, too."""
        server = await super().create_server(protocol_factory, sock=sock, backlog=1, **options)
        sock.listen(backlog)  # how many may wait is another matter
        return server
