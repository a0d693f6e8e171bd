"""Compressed inputs: detection by their first bytes, unpacking, and limits on their expansion.

gzip can expand one byte to 1,000, so a small file could stall the program. Input that exceeds both
a floor and 100 times its packed size is refused; tables of samples expand about 5 to 30 times.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Protocol, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from aspencli.errors import BadInputError

OPTION, VARIABLE = "--max-expanded-size", "ASPEN_MAX_EXPANDED_SIZE"
TABLE_FLOOR = 32 << 20
SEQUENCE_FLOOR = WORKBOOK_FLOOR = 256 << 20
"""Higher, because genomes of one pathogen are nearly equal and workbook XML is repetitive."""
_RATIO = 100
_SAMPLE = 1 << 20  # packed bytes that are tested before the first row is read
_PIECE_COUNTED = 1 << 18
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,12})\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
ZIP = b"PK\x03\x04"
_PIECE = 1 << 16  # packed bytes per read
_MOST_MEMORY = 1 << 28  # bytes for unpacking xz; its highest preset needs 65 MB
_LARGEST_WINDOW = 27  # log2 of the zstd window; the zstd tool accepts this much by default
_LARGEST_INDEX = 1 << 22  # bytes of a zip archive's central directory
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 1 << 16
_ENCRYPTED = 0x1  # a flag bit of a zip member
_SHOWN = 5  # zip members named in a message
_ASIDE = ("__macosx/", ".ds_store", "thumbs.db", "desktop.ini")

_given: list[int] = []


class Source(Protocol):
    """A source of bytes that returns them as they become available."""

    def read1(self, size: int, /) -> bytes:
        """Return available bytes without waiting for more; empty at the end."""


class Decompressor(Protocol):
    """A decompressor for one stream of data."""

    @property
    def eof(self) -> bool:
        """Return True if the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Return True if it needs more input to produce output."""

    @property
    def unused_data(self) -> bytes:
        """Return the data that follows the stream."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Decompress data, returning at most ``max_length`` bytes."""


class DamagedError(OSError):
    """Compressed data that cannot be unpacked."""


@dataclass(frozen=True)
class Packing:
    """A compression format.

    Attributes:
        name: The name of the format.
        magic: The first bytes of its files.
        unpack: Opens an unpacking reader.
        tool: The command that unpacks it.
    """

    name: str
    magic: bytes
    unpack: Callable[[IO[bytes]], Source]
    tool: str


ERRORS = (DamagedError, gzip.BadGzipFile, zlib.error, BadZipFile, NotImplementedError)
"""The exceptions raised for damaged files, besides EOFError for truncated ones."""


def allow(text: str) -> None:
    """Set the operator's own limit for this run.

    Raises:
        BadInputError: The text is not a size.
    """
    _given[:] = [_bytes(text, OPTION)]


def check(name: str, expanded: int, packed: int, floor: int) -> None:
    """Refuse input that has expanded too much.

    Args:
        name: The file's name in messages.
        expanded: The number of bytes unpacked so far.
        packed: The number of packed bytes they came from.
        floor: The size that is always allowed.

    Raises:
        BadInputError: The input exceeds the limit.
    """
    limit = _limit(packed, floor)
    if expanded > limit:
        raise BadInputError(
            f"{name} expands from {packed:,} to more than {limit:,} bytes, which is suspicious.",
            hint="Check the file. If it is valid, raise the limit, "
            f"for example: {OPTION} {_suggested(limit)}",
        )


def try_out(name: str, head: bytes, unpack: Callable[[IO[bytes]], Source], floor: int) -> None:
    """Unpack the start of a file, to refuse one that expands too much before reading its rows.

    Args:
        name: The file's name in messages.
        head: The first bytes of the file, packed.
        unpack: Opens an unpacking reader on them.
        floor: The size that is always allowed.

    Raises:
        BadInputError: The input exceeds the limit.
    """
    packed, size = io.BytesIO(head), 0
    try:
        source = unpack(packed)
        while piece := source.read1(_PIECE_COUNTED):
            size += len(piece)
            if size > floor:
                check(name, size, packed.tell(), floor)
    except (EOFError, OSError, ValueError, zlib.error):
        return  # the head is cut off, or the file is damaged, which its reader will report


def sample(peek: Callable[[int], bytes]) -> bytes:
    """Return the packed bytes to test with `try_out`."""
    return peek(_SAMPLE)


class Bounded(io.RawIOBase):
    """A stream of unpacked bytes that enforces the limit while it is read.

    Args:
        name: The file's name in messages.
        source: The unpacking reader.
        packed: Returns the number of packed bytes read so far.
        floor: The size that is always allowed.
    """

    def __init__(self, name: str, source: Source, packed: Callable[[], int], floor: int):
        self._name, self._source, self._packed, self._floor = name, source, packed, floor
        self._size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read1(self, size: int, /) -> bytes:
        """Return some bytes; empty at the end."""
        piece = self._source.read1(size)
        self._size += len(piece)
        if self._size > self._floor:
            check(self._name, self._size, self._packed(), self._floor)
        return piece

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # typed as any buffer
        """Read into a buffer, and return the number of bytes."""
        piece = self.read1(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _limit(packed: int, floor: int) -> int:
    if _given:
        return _given[0]
    if text := os.environ.get(VARIABLE):
        return _bytes(text, VARIABLE)
    return max(floor, _RATIO * packed)


def _bytes(text: str, what: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadInputError(f"Invalid value for {what}: {text!r}", hint="Use a size such as 2G.")
    return int(found[1]) * _UNITS[found[2].upper()]


def _suggested(limit: int) -> str:
    return f"{max(1, -(-limit * 4 // _UNITS['G']))}G"


class Unpacked:
    """A reader that unpacks piece by piece, so that large files do not fill the memory.

    Args:
        file: The packed bytes.
        make: Creates a decompressor; a file may contain several streams.
        errors: The exceptions that it raises for damaged data.
    """

    def __init__(
        self,
        file: IO[bytes],
        make: Callable[[], Decompressor],
        errors: tuple[type[Exception], ...],
    ):
        self._errors = errors
        self._file = cast("Source", file)
        self._make = make
        self._current = make()

    def read1(self, size: int, /) -> bytes:
        """Return some bytes; empty at the end.

        Raises:
            EOFError: The file is truncated.
            DamagedError: The data cannot be unpacked.
        """
        while True:
            given = b""
            if self._current.eof:
                given = self._current.unused_data.lstrip(b"\0") or self._next()
                if not given:
                    return b""
                self._current = self._make()
            elif self._current.needs_input:
                given = self._file.read1(_PIECE)
                if not given:
                    raise EOFError
            piece = self._decompress(given, size)
            if piece:
                return piece

    def _next(self) -> bytes:
        """Return packed bytes after any padding; empty at the end."""
        while piece := self._file.read1(_PIECE):
            if piece := piece.lstrip(b"\0"):
                return piece
        return b""

    def _decompress(self, given: bytes, size: int) -> bytes:
        try:
            return self._current.decompress(given, size)
        except self._errors as error:
            raise DamagedError(str(error)) from error


def unpack_gzip(file: IO[bytes]) -> gzip.GzipFile:
    """Return an unpacking reader for a gzip file."""
    return gzip.GzipFile(fileobj=file, mode="rb")


def _unpack_bzip2(file: IO[bytes]) -> Source:
    import bz2

    return Unpacked(file, bz2.BZ2Decompressor, (OSError, ValueError))


def _unpack_xz(file: IO[bytes]) -> Source:
    import lzma

    def make() -> Decompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)

    return Unpacked(file, make, (lzma.LZMAError,))


def _unpack_zstd(file: IO[bytes]) -> Source:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
    return Unpacked(file, lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,))


PACKINGS = (
    Packing("gzip", b"\x1f\x8b", unpack_gzip, "gunzip"),
    Packing("bzip2", b"BZh", _unpack_bzip2, "bunzip2"),
    Packing("xz", b"\xfd7zXZ\0", _unpack_xz, "unxz"),
    Packing("zstd", b"\x28\xb5\x2f\xfd", _unpack_zstd, "unzstd"),
)


def packing_of(head: bytes) -> Packing | None:
    """Return the compression format that the first bytes indicate, or None."""
    return next((packing for packing in PACKINGS if head.startswith(packing.magic)), None)


def unreadable(name: str, error: Exception, tool: str = "") -> BadInputError:
    """Return the error for a compressed file that cannot be read to its end.

    Args:
        name: The file's name in messages.
        error: The exception from reading it: one of `ERRORS`, or EOFError.
        tool: The command that unpacks it.
    """
    is_short = isinstance(error, EOFError)
    what = "is truncated" if is_short else "is damaged"
    why = "ends too early" if is_short else "cannot be decompressed"
    test = {"gunzip": "gzip", "bunzip2": "bzip2", "unxz": "xz", "unzstd": "zstd"}.get(tool, "unzip")
    flag = "-t" if test == "unzip" else "--test"
    return BadInputError(
        f"{name} {what}: the compressed data {why}.",
        hint=f"Copy or download it again. To test it: {test} {flag} FILE",
    )


def check_index(file: IO[bytes]) -> None:
    """Refuse a zip archive whose central directory alone would fill the memory.

    Raises:
        BadZipFile: The directory is too large, or the archive is incomplete.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT))
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_SIZE:
        raise BadZipFile
    (index,) = struct.unpack_from("<L", tail, end + 12)
    if index > _LARGEST_INDEX:
        raise BadZipFile


def only_member(name: str, file: IO[bytes]) -> tuple[ZipFile, ZipInfo] | None:
    """Return the only file in a zip archive, or None for a damaged archive or an office document.

    Args:
        name: The archive's name in messages.
        file: The archive, which must be seekable.

    Raises:
        BadInputError: It contains no file or more than one, or is encrypted.
    """
    try:
        check_index(file)
        archive = ZipFile(file)
        members = archive.infolist()
    except (BadZipFile, NotImplementedError, UnicodeDecodeError):
        return None  # reading it as a workbook reports what is wrong
    names = {member.filename.replace("\\", "/").lower() for member in members}
    if names & {"[content_types].xml", "_rels/.rels", "content.xml", "mimetype"} or any(
        each.startswith(("xl/", "index/", "word/", "ppt/")) for each in names
    ):
        return None
    files = [
        member
        for member in members
        if not member.is_dir()
        and not member.filename.lower().startswith(_ASIDE)
        and not member.filename.lower().endswith(_ASIDE)
    ]
    if len(files) != 1:
        shown = ", ".join(member.filename for member in files[:_SHOWN])
        more = f", and {len(files) - _SHOWN:,} more" if len(files) > _SHOWN else ""
        raise BadInputError(
            f"{name} is a zip archive with {len(files):,} files, but must contain exactly one.",
            hint="Extract it, then give the file that you need.",
            details=[f"found: {shown}{more}"] if files else (),
        )
    if files[0].header_offset < 0:
        raise unreadable(name, BadZipFile())
    if files[0].flag_bits & _ENCRYPTED:
        raise BadInputError(
            f"{name} is a password-protected zip archive.",
            hint="Extract it, then give the file in it.",
        )
    return archive, files[0]
