"""The rows to load: from a dump, or straight from another database without a file in between."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2

from aspencli.copies.crew import Crew
from aspencli.copies.load import IncomingTable, IncomingTree
from aspencli.copies.manifest import LeftOut, Manifest, Part
from aspencli.copies.places import Place
from aspencli.copies.reading import open_rows
from aspencli.copies.snapshot import WORKERS, Snapshot
from aspencli.copies.tree_files import TreeFiles

if TYPE_CHECKING:
    from aspencli.copies.sealing import Vault

_PIPE = 1 << 20
_SET_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux only
_GLANCE_S = 0.1

Opener = Callable[[int, Crew], AbstractContextManager[Any]]


class DumpFeed:
    """The rows of a dump."""

    def __init__(self, place: Place, manifest: Manifest, vault: Vault | None):
        self._place = place
        self._manifest = manifest
        self._vault = vault
        self.workers = WORKERS

    @property
    def revision(self) -> str | None:
        """Return the revision of the schema that they are for."""
        return self._manifest.revision

    @property
    def tables(self) -> Sequence[IncomingTable]:
        """Return the tables."""
        return [
            IncomingTable(
                table.name,
                table.columns,
                table.rows,
                sum(part.size for part in table.parts),
                [self._opener(part) for part in table.parts],
            )
            for table in self._manifest.tables
        ]

    @property
    def trees(self) -> Sequence[IncomingTree]:
        """Return the files of trees."""
        return [IncomingTree(one.tree, self._opener(one.part)) for one in self._manifest.tree_files]

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """Return the trees whose files the dump does not have."""
        return self._manifest.trees_left_out

    def _opener(self, part: Part) -> Opener:
        return lambda _worker, _crew: open_rows(self._place, part, self._vault)

    def finish(self) -> Mapping[str, int]:
        """Return the last values of sequences."""
        return self._manifest.sequences


class LiveFeed:
    """The rows of a snapshot, through a pipe that holds a megabyte of them."""

    def __init__(self, snapshot: Snapshot, files: TreeFiles):
        self._snapshot = snapshot
        self._files = files
        self.workers = snapshot.workers
        self.left_out: Sequence[LeftOut] = ()

    @property
    def revision(self) -> str | None:
        """Return the revision of the schema that they are for."""
        return self._snapshot.revision

    @property
    def tables(self) -> Sequence[IncomingTable]:
        """Return the tables."""
        return [
            IncomingTable(
                table.name,
                table.names,
                None,
                table.pages,
                [partial(_piped, self._snapshot, query) for query in table.pieces],
            )
            for table in self._snapshot.tables
        ]

    @property
    def trees(self) -> Sequence[IncomingTree]:
        """Return the files of trees."""
        return [
            IncomingTree(tree.id, partial(self._files.open, tree)) for tree in self._files.trees
        ]

    def finish(self) -> Mapping[str, int]:
        """Return the last values of sequences, and close the snapshot."""
        found = self._snapshot.sequences()
        self._snapshot.close()
        return found


@contextmanager
def _piped(snapshot: Snapshot, query: str, worker: int, crew: Crew) -> Iterator[_PipeReader]:
    """Read rows in a thread of their own, and yield the end of a pipe with them."""
    driver = snapshot.driver(worker)
    crew.using(driver)
    reading, writing = os.pipe()
    if _SET_SIZE is not None:
        with suppress(OSError):  # the user's limit; the usual size works, too
            fcntl.fcntl(writing, _SET_SIZE, _PIPE)
    reader = _PipeReader(reading)

    def write() -> None:
        try:
            with os.fdopen(writing, "wb", buffering=_PIPE // 4) as file:
                snapshot.copy(worker, query, file)
        except BaseException as error:  # noqa: BLE001 - raised where the rows are read
            reader.failure = error

    reader.thread = threading.Thread(target=write, name="rows", daemon=True)
    reader.thread.start()
    try:
        yield reader
    finally:
        os.close(reading)
        _end(reader.thread, driver)


def _end(thread: threading.Thread, driver: Any) -> None:
    """Wait for a thread to end; if its statement is still running, cancel that."""
    while thread.is_alive():
        thread.join(_GLANCE_S)
        if thread.is_alive():
            with suppress(psycopg2.Error):  # a broken connection ends the work anyway
                driver.cancel()


class _PipeReader:
    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self.thread: threading.Thread | None = None
        self.failure: BaseException | None = None

    def read(self, size: int, /) -> bytes:
        """Return the next rows; an early end is the error of the other side."""
        data = os.read(self._descriptor, size)
        if not data and self.thread is not None:
            self.thread.join()
            if self.failure is not None:
                raise self.failure
        return data
