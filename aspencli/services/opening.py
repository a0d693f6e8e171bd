"""The bytes of an input file, from disk or standard input, decompressed if necessary."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, cast

from aspencli import expansion, homes
from aspencli.errors import BadInputError
from aspencli.expansion import Source
from aspencli.packing import ERRORS, only_member, packing_of, unreadable

STDIN = "-"
HEAD = 1 << 16  # bytes to peek at before reading
_LARGEST_ARCHIVE = 1 << 28  # bytes, compressed
_FLOOR = expansion.TABLE_FLOOR

Observer = Callable[[bytes], object]
"""A callback that receives each chunk of a file, as stored, in reading order."""


class Stream(io.BufferedIOBase):
    """A byte stream that is read once, with a look ahead at its beginning.

    Args:
        source: The underlying source.
        observe: Called with each chunk.
    """

    def __init__(self, source: Source, observe: Observer | None = None):
        self._source = source
        self._observe = observe
        self._head = b""
        self._stored = 0

    @property
    def taken(self) -> int:
        """Return how many bytes were read, excluding those only peeked at."""
        return self._stored - len(self._head)

    def readable(self) -> bool:
        """Return True; the stream is always readable."""
        return True

    def peek(self, size: int = HEAD) -> bytes:
        """Return the first bytes without consuming them; fewer only if the file is shorter."""
        while len(self._head) < size and (piece := self._next(size - len(self._head))):
            self._head += piece
        return self._head

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return some bytes, or none at the end of the stream."""
        wanted = HEAD if size is None or size < 0 else size
        if not self._head:
            return self._next(wanted)
        piece, self._head = self._head[:wanted], self._head[wanted:]
        return piece

    read = read1

    def _next(self, size: int) -> bytes:
        piece = self._source.read1(size)
        self._stored += len(piece)
        if piece and self._observe:
            self._observe(piece)
        return piece


@dataclass(frozen=True)
class Opened:
    """A file that is being read.

    Attributes:
        name: Its name in messages.
        stream: Its bytes, decompressed.
        notes: Notes for the operator on how it is read.
    """

    name: str
    stream: Stream
    notes: list[str]


@contextmanager
def open_bytes(path: str, observe: Observer | None = None) -> Iterator[Opened]:
    """Open a file, or standard input for ``-``, and decompress it while it is read.

    Args:
        path: The file's path.
        observe: Called with each chunk as stored, before decompression.

    Raises:
        BadInputError: It cannot be opened, or (while being read) decompressed.
    """
    name = "standard input" if path == STDIN else path
    with _open(path) as file:
        stream, notes = Stream(file, observe), []
        packing = packing_of(stream.peek())
        if packing:
            expansion.try_out(name, expansion.sample(stream.peek), packing.unpack, _FLOOR)
            stored = stream
            unpacked = _Unpacked(name, packing.unpack(cast("IO[bytes]", stored)), packing.tool)
            stream = Stream(expansion.Bounded(name, unpacked, lambda: stored.taken, _FLOOR))
            again = packing_of(stream.peek())
            if again:
                raise BadInputError(
                    f"{name} is compressed twice", hint=f"Unpack it first: {packing.tool} FILE."
                )
            notes.append(f"compressed with {packing.name}")
        yield Opened(name, stream, notes)


@contextmanager
def open_archive(opened: Opened) -> Iterator[Opened | IO[bytes]]:
    """Open the only file in a zip archive; yield the archive itself if it is a document.

    Args:
        opened: The archive.

    Raises:
        BadInputError: The archive holds no file or several, or cannot be read.
    """
    with ExitStack() as stack:
        # A zip archive is read from its end, so a pipe must be copied to a file first. So must a
        # regular file, which may be overwritten while it is being read.
        file = stack.enter_context(tempfile.TemporaryFile())
        left = _LARGEST_ARCHIVE
        while piece := opened.stream.read1():
            left -= len(piece)
            if left < 0:
                raise BadInputError(
                    f"{opened.name} is too large for a workbook: more than "
                    f"{_LARGEST_ARCHIVE:,} bytes",
                    hint="Save the sheet as CSV UTF-8, which may have any size.",
                )
            file.write(piece)
        file.flush()
        found = only_member(opened.name, file)
        if found is None:
            yield file
            return
        archive, member = found
        stack.enter_context(archive)
        size = member.compress_size
        expansion.check(opened.name, member.file_size, size, _FLOOR)
        try:
            packed = stack.enter_context(archive.open(member))
        except (*ERRORS, EOFError) as error:
            raise unreadable(opened.name, error) from error
        unpacked = _Unpacked(opened.name, cast("Source", packed), "")
        stream = Stream(expansion.Bounded(opened.name, unpacked, lambda: size, _FLOOR))
        note = f"read from a zip archive: {member.filename}"
        yield Opened(opened.name, stream, [*opened.notes, note])


class _Unpacked:
    """A compressed source that raises readable errors if decompression fails.

    Args:
        name: The file's name in messages.
        packed: The compressed source.
        tool: The command that decompresses it.
    """

    def __init__(self, name: str, packed: Source, tool: str):
        self._name = name
        self._packed = packed
        self._tool = tool

    def read1(self, size: int, /) -> bytes:
        try:
            return self._packed.read1(size)
        except (*ERRORS, EOFError) as error:
            raise unreadable(self._name, error, self._tool) from error


@contextmanager
def _open(path: str) -> Iterator[Source]:
    if path == STDIN:
        # sys.stdin is None if the shell closed it.
        stdin = cast("io.TextIOWrapper | None", sys.stdin)
        if stdin is None or stdin.closed or stdin.isatty():
            state = "the terminal" if stdin and not stdin.closed else "closed"
            raise BadInputError(
                f"standard input is {state}", hint="Pipe a file into it, or name a file."
            )
        yield cast("io.BufferedReader", stdin.buffer)
        return
    with _open_file(path) as file:
        yield cast("io.BufferedReader", file)


def _open_file(path: str) -> IO[bytes]:
    try:
        return homes.expand(path).open("rb")
    except (OSError, RuntimeError, ValueError) as error:  # e.g., an unknown home folder
        if isinstance(error, IsADirectoryError):
            raise BadInputError(f"{path} is a folder", hint="Name a file in it.") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(
            f"{path} cannot be read: {reason}", hint="Check its name and permissions."
        ) from error
