"""A proxy between a command and PostgreSQL that holds back the commit or its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from sqlalchemy.engine import make_url

# Samples or users are updated.
_UPDATES, _COMMIT = (b"UPDATE aspen.samples", b"UPDATE aspen.users SET"), b"COMMIT\x00"
_PATIENCE_S = 120


class CommitProxy:
    """A proxy that passes everything on until a commit is requested after an update.

    At that point `asked` is set, and nothing returns to the client before `let_go`.

    Args:
        address: The database's address.
        deliver: True if the server gets the commit; otherwise it never does, and `let_go` closes
            the connection to the server.
        write: The start of the statement to look out for, if not an update of samples or users.
    """

    def __init__(self, address: str, *, deliver: bool, write: bytes | None = None):
        self._server = make_url(address)
        self._deliver, self._writes = deliver, (write,) if write else _UPDATES
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._free = threading.Event()
        self.asked = threading.Event()

    @property
    def address(self) -> str:
        """Return the database address that goes through this proxy."""
        port = self._listener.getsockname()[1]
        url = self._server.set(host="127.0.0.1", port=port)
        return url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
        for each in self._sockets:
            each.close()

    def let_go(self) -> None:
        """Pass the answer on, or close the connection."""
        self._free.set()

    def cut(self) -> None:
        """Break every connection, and accept no new ones."""
        self._break(self._sockets)

    def drop(self) -> None:
        """Break every connection, and accept new ones, as when a network is back."""
        self._break(self._sockets[1:])

    def _break(self, sockets: Sequence[socket.socket]) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._free.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._server.host, self._server.port))
                self._sockets += [client, server]
                held = threading.Event()
                self._spawn(self._up, client, server, held)
                self._spawn(self._down, server, client, held)

    def _up(self, client: socket.socket, server: socket.socket, held: threading.Event) -> None:
        updated = False
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                updated = updated or any(each in data for each in self._writes)
                if not (updated and _COMMIT in data):
                    server.sendall(data)
                    continue
                held.set()
                if self._deliver:
                    server.sendall(data)
                self.asked.set()
                self._free.wait(_PATIENCE_S)
                if not self._deliver:
                    break
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _down(self, server: socket.socket, client: socket.socket, held: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                if held.is_set():
                    self._free.wait(_PATIENCE_S)
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
