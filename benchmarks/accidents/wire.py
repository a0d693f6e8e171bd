"""A TCP proxy in front of PostgreSQL that can cut, stall, or fail a connection at COMMIT."""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Self

from sqlalchemy.engine import make_url

_WRITES, _COMMIT = re.compile(rb"(UPDATE|INSERT INTO|DELETE FROM) aspen\."), b"COMMIT\0"
_GLANCE_S = 0.02
_PATIENCE_S = 120

AtCommit = Literal[
    "pass", "lose the question", "lose the answer", "hold the question", "hold the answer"
]


class Wire:
    """A proxy that passes everything on until told otherwise, and still takes new connections.

    Args:
        address: The database's address.
        at_commit: What to do with the COMMIT that follows a change of rows.
        edit: Replacements of equal length for what the client sends.

    Attributes:
        held: Set once that COMMIT has arrived and it or its answer is held back; see `let_go`.
    """

    def __init__(
        self,
        address: str,
        *,
        at_commit: AtCommit = "pass",
        edit: Mapping[bytes, bytes] | None = None,
    ):
        self._server = make_url(address)
        self._at_commit = at_commit
        self._edit = dict(edit or {})
        assert all(len(old) == len(new) for old, new in self._edit.items())
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._cuts = 0
        self._closed = False
        self._flows = threading.Event()
        self._flows.set()
        self.held = threading.Event()
        self._free = threading.Event()

    @property
    def address(self) -> str:
        """Return the database address that goes through this proxy."""
        url = self._server.set(host="127.0.0.1", port=self._listener.getsockname()[1])
        return url.render_as_string(hide_password=False)

    def cut(self) -> None:
        """Close every open connection."""
        self._cuts += 1
        self._flows.set()

    def stop(self) -> None:
        """Close every open connection, and accept no further ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()

    def stall(self) -> None:
        """Stop passing data on."""
        self._flows.clear()

    def flow(self) -> None:
        """Resume passing data on, beginning with what was held back."""
        self._flows.set()

    def let_go(self) -> None:
        """Pass on what was held back at the COMMIT."""
        self._free.set()

    def __enter__(self) -> Self:
        self._spawn(threading.Thread(target=self._accept, daemon=True))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(_PATIENCE_S)
            assert not thread.is_alive()

    def _spawn(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed:
                client, _ = self._listener.accept()
                self._spawn(threading.Thread(target=self._carry, args=(client,), daemon=True))

    def _carry(self, client: socket.socket) -> None:
        cuts = self._cuts
        with client, contextlib.suppress(OSError):
            place = (self._server.host, self._server.port)
            with socket.create_connection(place) as server:
                wrote = False
                while self._cuts == cuts:
                    for end in select.select([client, server], [], [], _GLANCE_S)[0]:
                        data = end.recv(1 << 16)
                        while not self._flows.wait(_GLANCE_S) and self._cuts == cuts:
                            pass
                        if not data or self._cuts != cuts:
                            return
                        wrote = wrote or (end is client and bool(_WRITES.search(data)))
                        if end is client and wrote and _COMMIT in data:
                            if not self._commit(data, client, server, cuts):
                                return
                        else:
                            self._pass_on(data, server if end is client else client)

    def _pass_on(self, data: bytes, end: socket.socket) -> None:
        for old, new in self._edit.items():
            data = data.replace(old, new)
        end.sendall(data)

    def _commit(self, data: bytes, client: socket.socket, server: socket.socket, cuts: int) -> bool:
        """Handle the COMMIT as requested; return True if the connection continues."""
        how, self._at_commit = self._at_commit, "pass"
        answer = b""
        if how in {"lose the answer", "hold the answer"}:
            self._pass_on(data, server)
            answer = server.recv(1 << 16)
        if how in {"hold the question", "hold the answer"}:
            self.held.set()
            while not self._free.wait(_GLANCE_S) and self._cuts == cuts:
                pass
        if how in {"lose the question", "lose the answer"} or self._cuts != cuts:
            return False
        if answer:
            client.sendall(answer)
        else:
            self._pass_on(data, server)
        return True
