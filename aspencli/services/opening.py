"""The bytes of an input file: from disk or standard input, unpacked where they are compressed."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from aspencli import expansion, homes
from aspencli.errors import BadInputError
from aspencli.expansion import Source

STDIN = "-"
HEAD = 1 << 16  # bytes looked at before anything is read
_GZIP = b"\x1f\x8b"
_FLOOR = expansion.TABLE_FLOOR

Observer = Callable[[bytes], object]
"""Is handed each piece of a file, as it is stored, in the order of reading."""


class Stream(io.BufferedIOBase):
    """Bytes that are read once, and whose beginning may be looked at before.

    Args:
        source: Where they come from.
        observe: Is told of each piece.
    """

    def __init__(self, source: Source, observe: Observer | None = None):
        self._source = source
        self._observe = observe
        self._head = b""
        self._stored = 0

    @property
    def taken(self) -> int:
        """Return how many bytes were read, without those that were only looked at."""
        return self._stored - len(self._head)

    def readable(self) -> bool:
        """That it can be read."""
        return True

    def peek(self, size: int = HEAD) -> bytes:
        """The beginning, which will be read again; shorter only where the file is."""
        while len(self._head) < size and (piece := self._next(size - len(self._head))):
            self._head += piece
        return self._head

    def read1(self, size: int | None = -1, /) -> bytes:
        """Some bytes; none at the end."""
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
        name: What messages call it.
        stream: Its bytes, unpacked.
        notes: What the operator should know of how it is read.
    """

    name: str
    stream: Stream
    notes: list[str]


@contextmanager
def open_bytes(path: str, observe: Observer | None = None) -> Iterator[Opened]:
    """Open a file, or standard input for ``-``; what gzip has compressed is unpacked as it is read.

    Args:
        path: The file's path.
        observe: Is handed the bytes as they are stored, and so before they are unpacked.

    Raises:
        BadInputError: It cannot be opened, or (while it is read) unpacked.
    """
    name = "standard input" if path == STDIN else path
    with _open(path) as file:
        stream, notes = Stream(file, observe), []
        if stream.peek().startswith(_GZIP):
            expansion.try_out(name, expansion.sample(stream.peek), unpack_gzip, _FLOOR)
            stored = stream
            with gzip.GzipFile(fileobj=stored, mode="rb") as packed:
                unpacked = _Unpacked(name, packed)
                stream = Stream(expansion.Bounded(name, unpacked, lambda: stored.taken, _FLOOR))
                if stream.peek().startswith(_GZIP):
                    raise BadInputError(
                        f"{name} is compressed twice", hint="Unpack it first: gunzip FILE."
                    )
                notes.append("compressed with gzip")
                yield Opened(name, stream, notes)
        else:
            yield Opened(name, stream, notes)


def unpack_gzip(file: IO[bytes]) -> gzip.GzipFile:
    """Return what unpacks a file of gzip."""
    return gzip.GzipFile(fileobj=file, mode="rb")


class _Unpacked:
    """What gzip has compressed, piece by piece, so that no file grows beyond the memory.

    Args:
        name: What messages call the file.
        packed: The file.
    """

    def __init__(self, name: str, packed: gzip.GzipFile):
        self._name = name
        self._packed = packed

    def read1(self, size: int, /) -> bytes:
        try:
            return self._packed.read1(size)
        except EOFError as error:
            raise BadInputError(
                f"{self._name} is cut short: its compressed data end too early",
                hint="Copy or download it again; see: gzip --test FILE",
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise BadInputError(
                f"{self._name} is damaged: its compressed data cannot be unpacked",
                hint="Copy or download it again; see: gzip --test FILE",
            ) from error


@contextmanager
def _open(path: str) -> Iterator[Source]:
    if path == STDIN:
        # Python has no such object where the shell has closed it.
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
    except (OSError, RuntimeError, ValueError) as error:  # as for a home that nobody has
        if isinstance(error, IsADirectoryError):
            raise BadInputError(f"{path} is a folder", hint="Name a file in it.") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(
            f"{path} cannot be read: {reason}", hint="Check its name and permissions."
        ) from error
