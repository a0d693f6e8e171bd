"""The files of trees in S3: those of the source, masked as they are read, and those of a copy.

S3 cannot mask, so this process does. An original is only in its memory, a few megabytes at a time:
a small file is held, and a large one is read twice, first for its names and then for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from aspencli.copies.choices import Genomes
from aspencli.copies.places import (
    ObjectReader,
    ObjectsWriter,
    Sink,
    keys_under,
    remove_objects,
    use_s3,
)
from aspencli.copies.tree_json import Rewriting, UnusableTreeError, rewritten
from aspencli.copies.tree_masking import GenomeRemoval, NameCollector, TreeMasking
from aspencli.errors import AspenError, ConflictError

if TYPE_CHECKING:
    from aspencli.copies.crew import Crew
    from aspencli.copies.names import SourceTree
    from aspencli.copies.snapshot import Snapshot
    from aspencli.deployments.aws import Aws

MOST_BYTES = 256 << 20
"""The size of the largest file that is masked."""
FOLDER = "copies/"
"""The beginning of the keys of all files that belong to copies."""
_HELD = 1 << 20  # bytes of a file that is read only once
_PIECE = 1 << 16
_MISSING = frozenset({"NoSuchKey", "NoSuchBucket", "404"})
_DROP = "To leave trees out, pass --trees drop."


class Reader(Protocol):
    """The content of a file."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; none at the end."""


# The source


class TreeFiles:
    """The files of the trees of a snapshot.

    Args:
        snapshot: The snapshot; the place of the files and their known names come from it.
        aws: Returns the account with the buckets.
    """

    def __init__(self, snapshot: Snapshot, aws: Callable[[], Aws]):
        self._snapshot = snapshot
        self._aws = aws
        self.trees = snapshot.trees
        if self.trees and snapshot.choice.scrub:
            self._places = snapshot.places
            self._hashes = snapshot.hashes

    def require_access(self) -> None:
        """Check that files can be read, with the first one; there may be none.

        Raises:
            AspenError: There are no credentials, or they are not sufficient.
        """
        if not self.trees:
            return
        from aspencli.deployments.aws import code_of

        first = self.trees[0]
        try:
            use_s3(
                self._aws(),
                f"read the files of trees in the bucket {first.bucket}",
                lambda s3: s3.head_object(Bucket=first.bucket, Key=first.key),
                tries=2,
            )
        except AspenError as error:
            if code_of(error) not in _MISSING:
                raise with_way_on(error) from error

    @contextmanager
    def open(self, tree: SourceTree, worker: int, crew: Crew) -> Iterator[Reader]:
        """Open the file of a tree as it is copied.

        Raises:
            UnusableTreeError: It cannot be copied; nothing was read from the context manager.
        """
        content = _Content(self._aws(), tree)
        choice = self._snapshot.choice
        if not choice.scrub and choice.genomes is Genomes.KEEP:
            yield _PieceReader(content.pieces(crew))
            return
        names = NameCollector(self._snapshot.rules.tree)
        for _ in rewritten(content.pieces(crew, MOST_BYTES), names):
            pass
        changes: Rewriting = GenomeRemoval(self._snapshot.rules.tree)
        if choice.scrub:
            known = self._snapshot.namer(worker).known(tree, names.names)
            changes = TreeMasking(
                self._snapshot.rules, self._hashes, choice.genomes, known, self._places
            )
        yield _PieceReader(_encoded(rewritten(content.pieces(crew), changes)))


class _Content:
    """The content of a file, which can be read again."""

    def __init__(self, aws: Aws, tree: SourceTree):
        self._aws = aws
        self._tree = tree
        reader = self._reader()
        self._held = self._read(reader)
        self._is_whole = len(self._held) < _HELD
        self._tag = reader.tag

    def _reader(self, tag: str | None = None) -> ObjectReader:
        what = f"read the file of tree {self._tree.id}"
        return ObjectReader(
            self._aws, self._tree.bucket, self._tree.key, what=what, piece=_HELD, tag=tag
        )

    def _read(self, reader: ObjectReader) -> bytes:
        from aspencli.deployments.aws import code_of

        try:
            return reader.read(_HELD)
        except AspenError as error:
            if code_of(error) in _MISSING:
                raise UnusableTreeError("missing in S3") from error
            raise with_way_on(error) from error

    def pieces(self, crew: Crew, most: int | None = None) -> Iterator[bytes]:
        """Yield the content, all of it of one version."""
        for start in range(0, len(self._held) if self._is_whole else 0, _PIECE):
            crew.check()
            yield self._held[start : start + _PIECE]
        if self._is_whole:
            return
        self._held = b""
        size = 0
        reader = self._reader(self._tag)
        while data := reader.read(_PIECE):
            crew.check()
            size += len(data)
            if most is not None and size > most:
                raise UnusableTreeError(f"larger than {most >> 20} MB")
            yield data


class _PieceReader:
    def __init__(self, pieces: Iterable[bytes]):
        self._pieces = iter(pieces)
        self._pending = b""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes; none at the end."""
        if not self._pending:
            self._pending = next(self._pieces, b"")
        data, self._pending = self._pending[:size], self._pending[size:]
        return data


def _encoded(texts: Iterable[str]) -> Iterator[bytes]:
    pending: list[str] = []
    size = 0
    for text in texts:
        pending.append(text)
        size += len(text)
        if size >= _PIECE:
            yield "".join(pending).encode(errors="replace")
            pending, size = [], 0
    yield "".join(pending).encode(errors="replace")


# The copy


class TreeStore:
    """The files of a copy's trees, in the bucket of the destination.

    They have a prefix of their own, named like the database that is being built, so they replace
    nothing, and what a killed run left is recognized.

    Attributes:
        bucket: The name of the bucket.
        prefix: The beginning of their keys.
    """

    def __init__(self, aws: Aws, bucket: str):
        self._aws = aws
        self.bucket = bucket
        self.prefix = ""

    def require_access(self) -> None:
        """Check that the bucket can be used.

        Raises:
            AspenError: There are no credentials, or they are not sufficient.
        """
        try:
            use_s3(
                self._aws,
                f"use the bucket {self.bucket} for the files of trees",
                lambda s3: s3.list_objects_v2(Bucket=self.bucket, Prefix=FOLDER, MaxKeys=1),
                tries=2,
            )
        except AspenError as error:
            raise with_way_on(error) from error

    def begin(self, name: str) -> None:
        """Choose the prefix for a new database.

        Raises:
            ConflictError: There are objects with it.
        """
        prefix = prefix_of(name)
        if keys_under(self._aws, self.bucket, prefix):
            raise ConflictError(
                f"s3://{self.bucket}/{prefix} is not empty; nothing was written.",
                hint="Run the command again.",
            )
        self.prefix = prefix

    def file(self, tree: int) -> AbstractContextManager[Sink]:
        """Return a context manager that writes the file of a tree."""
        sink: AbstractContextManager[Sink] = ObjectsWriter(
            self._aws, self.bucket, self.prefix
        ).file(f"{tree}.json")
        return sink

    def discard(self) -> None:
        """Remove all that was written.

        Raises:
            AspenError: It could not be removed.
        """
        if self.prefix:
            self.remove(self.prefix)

    def remove(self, prefix: str) -> None:
        """Remove the files of another copy, by their prefix."""
        found = keys_under(self._aws, self.bucket, prefix)
        remove_objects(self._aws, self.bucket, prefix, found)


def prefix_of(name: str) -> str:
    """Return the beginning of the keys of files that belong to a database that is being built."""
    return f"{FOLDER}{name}/"


def with_way_on(error: AspenError) -> AspenError:
    """Return an error with the hint that trees can be left out."""
    if _DROP in (error.hint or ""):
        return error
    changed = type(error)(error.message, hint=" ".join(filter(None, (_DROP, error.hint))))
    changed.__cause__ = error.__cause__
    return changed
