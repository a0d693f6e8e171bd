"""The event loop of worker processes that accept connections on the same port."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


class SharingEventLoop(asyncio.SelectorEventLoop):
    """An event loop that accepts one connection at a time and leaves the next to other workers.

    asyncio accepts as many at once as the backlog holds: the worker that woke up first took almost
    all of them, and as clients keep their connections open, the others stayed idle.
    """

    async def create_server(  # type: ignore[override] # uvicorn passes only a socket
        self,
        protocol_factory: Any,
        *,
        sock: socket.socket,
        backlog: int,
        **options: Any,
    ) -> asyncio.Server:
        """Return a server that listens on a socket shared with other processes."""
        server = await super().create_server(protocol_factory, sock=sock, backlog=1, **options)
        sock.listen(backlog)  # restore the requested backlog
        return server
