"""Writing a dump: the rows of a snapshot as compressed parts with checksums."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from aspencli import __version__
from aspencli.copies.choices import Choice
from aspencli.copies.crew import Crew
from aspencli.copies.manifest import LeftOut, Manifest, Part, Table, TreeFile
from aspencli.copies.places import PART_SUFFIX, Place, Sink, Writer
from aspencli.copies.rules import Rules, load_rules
from aspencli.copies.snapshot import WORKERS, Snapshot, SourceTable, open_snapshot
from aspencli.copies.tree_files import TreeFiles
from aspencli.copies.tree_json import UnusableTreeError

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.copies.names import SourceTree
    from aspencli.copies.sealing import Vault
    from aspencli.deployments.aws import Aws

_LEVEL = 3
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Origin:
    """Facts about the target that a dump is made from."""

    target: str
    database: str


class PartStream(io.RawIOBase):
    """A stream that compresses what is written to it, encrypts it, and computes its checksum.

    Attributes:
        size: The number of bytes written to the sink.
        is_abandoned: True after a failure, so that a buffer can be closed without another one.
    """

    def __init__(self, sink: Sink, crew: Crew, vault: Vault | None, name: str):
        super().__init__()
        self._sink = sink
        self._crew = crew
        self._compressor = zstd().ZstdCompressor(level=_LEVEL)
        self._sealer = vault.sealer(name) if vault else None
        self._hash = hashlib.sha256()
        self.size = 0
        self.is_abandoned = False

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write rows."""
        if self.is_abandoned:
            return len(data)
        self._crew.check()
        self._pass_on(self._compressor.compress(data))
        return len(data)

    def _pass_on(self, data: bytes) -> None:
        self._put(self._sealer.update(data) if self._sealer else data)

    def _put(self, data: bytes) -> None:
        if data:
            self._hash.update(data)
            self._sink.write(data)
            self.size += len(data)

    def finish(self) -> str:
        """Write the end, and return the checksum in hexadecimal."""
        self._pass_on(self._compressor.flush())
        if self._sealer:
            self._put(self._sealer.finish())
        return self._hash.hexdigest()


def zstd() -> Any:
    """Return the module for zstd."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


@contextmanager
def prepared(database: Database, choice: Choice) -> Iterator[Snapshot]:
    """Open the snapshot that a dump is made of; nothing is written.

    Raises:
        RefusedError: A column has no masking rule.
    """
    with open_snapshot(database, load_rules(), choice) as snapshot:
        yield snapshot


def write_dump(
    database: Database,
    place: Place,
    choice: Choice,
    origin: Origin,
    *,
    aws: Callable[[], Aws],
    vault: Vault | None = None,
    workers: int = WORKERS,
    tick: Callable[[int], None] = lambda _done: None,
) -> Manifest:
    """Write a dump of a database to a place, and return its manifest.

    Raises:
        AspenError: It could not be written; nothing is left of it.
    """
    rules = load_rules()
    with (
        place.writing() as writer,
        open_snapshot(database, rules, choice, workers=workers) as snapshot,
    ):
        written = _write_parts(snapshot, TreeFiles(snapshot, aws), writer, vault, tick)
        manifest = _manifest(snapshot, rules, origin, vault, written)
        writer.finish(manifest.encode())
    return manifest


@dataclass(frozen=True)
class _Written:
    """The parts that were written, and the trees whose files were not."""

    tables: dict[str, tuple[Part, ...]]
    trees: tuple[TreeFile, ...]
    left_out: tuple[LeftOut, ...]


def _write_parts(
    snapshot: Snapshot,
    files: TreeFiles,
    writer: Writer,
    vault: Vault | None,
    tick: Callable[[int], None],
) -> _Written:
    found: dict[tuple[str, int], Part] = {}
    trees: dict[int, TreeFile] = {}
    left_out: dict[int, LeftOut] = {}
    crew, lock = Crew(), threading.Lock()

    def write(table: SourceTable, number: int, query: str, worker: int) -> None:
        crew.using(snapshot.driver(worker))
        name = f"{table.name}.{number:04}{PART_SUFFIX}"
        with writer.file(name) as sink:
            stream = PartStream(sink, crew, vault, name)
            buffer = io.BufferedWriter(stream, _BUFFER)
            try:
                rows = snapshot.copy(worker, query, buffer)
                buffer.flush()
            except BaseException:
                stream.is_abandoned = True
                raise
            part = Part(name, rows, 0, stream.finish())
        crew.add(rows)
        with lock:
            found[table.name, number] = Part(part.file, rows, stream.size, part.sha256)

    def write_tree(tree: SourceTree, worker: int) -> None:
        crew.using(snapshot.driver(worker))
        name = f"tree.{tree.id:08}{PART_SUFFIX}"
        try:
            with files.open(tree, worker, crew) as source, writer.file(name) as sink:
                stream = PartStream(sink, crew, vault, name)
                while data := source.read(_BUFFER):
                    stream.write(data)
                digest = stream.finish()
        except UnusableTreeError as error:
            left_out[tree.id] = LeftOut(tree.id, str(error))
        else:
            trees[tree.id] = TreeFile(tree.id, Part(name, 0, stream.size, digest))

    tasks = [
        partial(write, table, number, query)
        for table in snapshot.tables
        for number, query in enumerate(table.pieces)
    ]
    tasks += [partial(write_tree, tree) for tree in files.trees]
    crew.run(tasks, snapshot.workers, tick)
    return _Written(
        {
            table.name: tuple(found[table.name, number] for number in range(len(table.pieces)))
            for table in snapshot.tables
        },
        tuple(trees[tree.id] for tree in files.trees if tree.id in trees),
        tuple(left_out[tree.id] for tree in files.trees if tree.id in left_out),
    )


def _manifest(
    snapshot: Snapshot, rules: Rules, origin: Origin, vault: Vault | None, written: _Written
) -> Manifest:
    choice = snapshot.choice
    return Manifest(
        tool=f"aspencli {__version__}",
        created_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        target=origin.target,
        database=origin.database,
        server_version=snapshot.server_version,
        revision=snapshot.revision,
        scrubbed=choice.scrub,
        rules=rules.digest,
        genomes=choice.genomes.value,
        groups=len(choice.groups),
        keeps_user=choice.keeps is not None,
        encryption=vault.encryption if vault else None,
        tables=tuple(
            Table(table.name, table.names, written.tables[table.name])
            for table in sorted(snapshot.tables, key=lambda one: one.name)
        ),
        sequences=snapshot.sequences(),
        trees=choice.trees.value,
        tree_files=written.trees,
        trees_left_out=written.left_out,
    )
