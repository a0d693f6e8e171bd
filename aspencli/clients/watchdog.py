"""An end to waiting that holds even where something trickles in all the time.

Timeouts of a socket begin anew with each byte. So at the deadline the connection is closed from
outside, which ends whatever is waiting for it.
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
    """Knows the sockets of a client, and closes them at a deadline."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Told by the HTTP library what it does; notes each connection that it opens."""
        if event.endswith(_OPENED):
            opened = info["return_value"].get_extra_info("socket")
            # What is closed by now is of no interest any more.
            self._sockets = [each for each in self._sockets if each.fileno() != -1]
            self._sockets.append(opened)

    @contextmanager
    def until(self, seconds: float) -> Iterator[None]:
        """Let nothing in the block wait for the network any longer than so many seconds."""
        timer = threading.Timer(max(seconds, 0), self._bite)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _bite(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):  # it was closed meanwhile
                # Not that of an encrypted socket, which would pull the rug from under its reader.
                socket.socket.shutdown(each, socket.SHUT_RDWR)
