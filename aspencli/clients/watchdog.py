"""A time limit for waiting that holds even if data keeps trickling in.

Socket timeouts start over with each byte. So the connection is shut down from another thread at the
deadline, which ends whatever is waiting for it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_OPENED = ("connect_tcp.complete", "start_tls.complete")


class Watchdog:
    """A list of a client's sockets, which are shut down at a deadline."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Record each connection that the HTTP library reports as opened."""
        if event.endswith(_OPENED):
            opened = info["return_value"].get_extra_info("socket")
            # Closed sockets are no longer needed.
            self._sockets = [each for each in self._sockets if each.fileno() != -1]
            self._sockets.append(opened)

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Shut down the connections if the block takes longer than this many seconds."""
        timer = threading.Timer(max(seconds, 0), self._bite)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _bite(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it was closed in the meantime
                # Not the method of ssl.SSLSocket, which discards state that its reader is using.
                socket.socket.shutdown(each, socket.SHUT_RDWR)
