"""Helpers for tests of bulk renames: runs, undo files, and a connection that breaks."""

from __future__ import annotations

import csv
import io
import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from aspen.database.bulk.columns import RENAME
from aspen.database.bulk.run import BulkRun
from aspen.database.bulk.spec import Plan, Problem, RowRequest, Spec
from aspen.database.engine import Database

Row = tuple[str, str]


def requests(rows: Sequence[Row]) -> list[RowRequest]:
    """Return the rows of a mapping as requests, numbered as if they followed a header."""
    return [RowRequest(line, lab, (public,)) for line, (lab, public) in enumerate(rows, start=2)]


@contextmanager
def planned(
    database: Database,
    group: int,
    asked: Sequence[RowRequest],
    *,
    skip_moved: bool = False,
    spec: Spec | None = None,
) -> Iterator[tuple[BulkRun, Plan]]:
    """Yield a run and its plan, ready to apply; it is an undo if the rows have expected values."""
    spec = spec or (RENAME.restoring(by_key=True) if asked and asked[0].expected else RENAME)
    with BulkRun(database, spec, group) as run:
        assert run.load(asked) == len(asked)
        yield run, run.plan(skip_moved=skip_moved)


def problems(run: BulkRun) -> list[Problem]:
    return list(run.problems())


def undo_into(path: Path) -> Callable[[Callable[[IO[bytes]], None]], Path]:
    """Return a function that writes undo rows to a file."""

    def write(write_rows: Callable[[IO[bytes]], None]) -> Path:
        with path.open("wb") as file:
            write_rows(file)
        return path

    return write


def undo_rows(path: Path) -> list[tuple[str, str, str]]:
    """Return the private, new public, and old public identifier of each row."""
    text = path.read_text()
    assert text.startswith("private_identifier,new_public_identifier,old_public_identifier,id\n")
    return [(lab, new, old) for lab, new, old, _id in list(csv.reader(io.StringIO(text)))[1:]]


class Line:
    """A proxy to the server that breaks the connection at the commit, once.

    Args:
        host: The server.
        port: Its port.
        forward: True if the COMMIT still reaches the server and only its answer is lost.

    Attributes:
        port: The port it listens on, on 127.0.0.1.
        armed: Set this to break at the next COMMIT.
        has_broken: True once it has broken.
        then: A function to call at that moment.
    """

    def __init__(self, host: str, port: int, *, forward: bool):
        self.armed = threading.Event()
        self.has_broken = False
        self.then: Callable[[], None] = lambda: None
        self._server = (host, port)
        self._forward = forward
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop accepting connections, and wait for the open ones to end."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def join(self) -> None:
        self.close()
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._carry, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            while True:
                for end in select.select([client, server], [], [])[0]:
                    data = end.recv(1 << 16)
                    if not data:
                        return
                    if end is client and b"COMMIT\0" in data and self._breaks(data, server):
                        return
                    (server if end is client else client).sendall(data)

    def _breaks(self, data: bytes, server: socket.socket) -> bool:
        """Return True if this is the rename's transaction, whose COMMIT breaks the connection."""
        if self.has_broken or not self.armed.is_set():
            return False
        self.has_broken = True
        if self._forward:
            server.sendall(data)
            assert server.recv(1 << 16), "the server did not answer"
        self.then()
        return True
