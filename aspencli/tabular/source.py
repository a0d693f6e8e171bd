"""The bytes of an input file, from disk or standard input, unpacked while they are read.

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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile, ZipInfo

from aspencli import files
from aspencli.errors import BadInputError
from aspencli.tabular import SIZE_OPTION, SIZE_VARIABLE

STDIN = "-"
TABLE_FLOOR = 32 << 20
SEQUENCE_FLOOR = WORKBOOK_FLOOR = 256 << 20
"""Higher, because genomes of one pathogen are nearly equal and workbook XML is repetitive."""
_RATIO = 100
_HEAD = 1 << 16  # bytes to peek at before reading
_SAMPLE = 1 << 20  # packed bytes that are tested before the first row is read
_PIECE_COUNTED = 1 << 18
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,12})\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_ZIP = b"PK\x03\x04"
_PIECE = 1 << 16  # packed bytes per read
_MOST_MEMORY = 1 << 28  # bytes for unpacking xz; its highest preset needs 65 MB
_LARGEST_WINDOW = 27  # log2 of the zstd window; the zstd tool accepts this much by default
_LARGEST_ARCHIVE = 1 << 28  # bytes, compressed
_LARGEST_INDEX = 1 << 22  # bytes of a zip archive's central directory
_END, _END_SIZE, _LONGEST_COMMENT = b"PK\x05\x06", 22, 1 << 16
_ENCRYPTED = 0x1  # a flag bit of a zip member
_SHOWN = 5  # zip members named in a message
_ASIDE = ("__macosx/", ".ds_store", "thumbs.db", "desktop.ini")

Observer = Callable[[bytes], object]
"""A callback that receives each chunk of a file, as stored, in reading order."""

_given: list[int] = []


class _DamagedError(OSError):
    """Compressed data that cannot be unpacked."""


_ERRORS = (
    *(_DamagedError, gzip.BadGzipFile, zlib.error, BadZipFile, NotImplementedError),
    EOFError,  # for truncated files
)


class Stream(io.BufferedIOBase):
    """A byte stream that is read once, with a look ahead at its beginning."""

    def __init__(self, source: io.BufferedIOBase, observe: Observer | None = None):
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

    def peek(self, size: int = _HEAD) -> bytes:
        """Return the first bytes without consuming them; fewer only if the file is shorter."""
        while len(self._head) < size and (piece := self._next(size - len(self._head))):
            self._head += piece
        return self._head

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return some bytes, or none at the end of the stream."""
        wanted = _HEAD if size is None or size < 0 else size
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


class _Unpacked(Stream):
    """A stream of unpacked bytes that enforces the limit and explains damage while it is read.

    ``packed`` returns the number of packed bytes read so far; see `check_expansion`.
    """

    def __init__(
        self,
        name: str,
        source: io.BufferedIOBase,
        packed: Callable[[], int],
        floor: int,
        packing: str = "",
    ):
        super().__init__(source)
        self._name, self._packed, self._floor, self._packing = name, packed, floor, packing

    def _next(self, size: int) -> bytes:
        try:
            piece = super()._next(size)
        except _ERRORS as error:
            raise _unreadable(self._name, error, self._packing) from error
        if self._stored > self._floor:
            check_expansion(self._name, self._stored, self._packed(), self._floor)
        return piece


@dataclass(frozen=True)
class Opened:
    """A file that is being read: its name in messages, its bytes, and notes for the operator."""

    name: str
    stream: Stream
    notes: list[str]

    @property
    def is_zip(self) -> bool:
        """Return True if it is a zip archive, as workbooks are."""
        return self.stream.peek().startswith(_ZIP)


@contextmanager
def open_bytes(path: str, observe: Observer | None = None) -> Iterator[Opened]:
    """Open a file, or standard input for ``-``, and decompress it while it is read.

    The observer is called with each chunk as stored, before decompression.

    Raises:
        BadInputError: It cannot be opened, or (while being read) decompressed.
    """
    name = "standard input" if path == STDIN else path
    with _open(path) as file:
        stream, notes = Stream(file, observe), []
        packing = _packing_of(stream)
        if packing:
            stream = _unpack(name, stream, packing, TABLE_FLOOR)
            if _packing_of(stream):
                raise BadInputError(
                    f"{name} is compressed twice.", hint=f"Decompress it first: {packing.tool} FILE"
                )
            notes.append(f"compressed with {packing.name}")
        yield Opened(name, stream, notes)


@contextmanager
def open_archive(opened: Opened) -> Iterator[Opened | IO[bytes]]:
    """Open the only file in a zip archive; yield the archive itself if it is a document.

    Raises:
        BadInputError: The archive holds no file or several, or cannot be read.
    """
    from tempfile import TemporaryFile

    with ExitStack() as stack:
        # A zip archive is read from its end, so a pipe must be copied to a file first. So must a
        # regular file, which may be overwritten while it is being read.
        file = stack.enter_context(TemporaryFile())
        left = _LARGEST_ARCHIVE
        while piece := opened.stream.read1():
            left -= len(piece)
            if left < 0:
                raise BadInputError(
                    f"{opened.name} is too large for a workbook: more than "
                    f"{_LARGEST_ARCHIVE:,} bytes.",
                    hint="Save the sheet as CSV UTF-8, which has no size limit.",
                )
            file.write(piece)
        file.flush()
        found = _only_member(opened.name, file, TABLE_FLOOR, stack)
        if found is None:
            yield file
            return
        stream, member = found
        yield Opened(opened.name, stream, [*opened.notes, f"read from a zip archive: {member}"])


def unpack_sequences(name: str, file: IO[bytes], stack: ExitStack) -> Stream | None:
    """Return the bytes of an open FASTA file, decompressed or from a zip archive.

    None is returned for a damaged archive or an office document.

    Raises:
        BadInputError: The archive holds no file or several, or (while being read) the data cannot
            be decompressed.
    """
    stream = Stream(cast("io.BufferedIOBase", file))
    if stream.peek().startswith(_ZIP):
        found = _only_member(name, file, SEQUENCE_FLOOR, stack)
        return found and found[0]
    packing = _packing_of(stream)
    return _unpack(name, stream, packing, SEQUENCE_FLOOR) if packing else stream


def _open(path: str) -> AbstractContextManager[io.BufferedIOBase]:
    if path == STDIN:
        # sys.stdin is None if the shell closed it.
        stdin = cast("io.TextIOWrapper | None", sys.stdin)
        if stdin is None or stdin.closed or stdin.isatty():
            state = "a terminal" if stdin and not stdin.closed else "closed"
            raise BadInputError(
                f"Standard input is {state}.", hint="Pipe a file into the command, or give a file."
            )
        return nullcontext(cast("io.BufferedReader", stdin.buffer))
    try:
        return files.expand(path).open("rb")
    except (OSError, RuntimeError, ValueError) as error:  # e.g., an unknown home folder
        if isinstance(error, IsADirectoryError):
            raise BadInputError(f"{path} is a directory.", hint="Give a file in it.") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(
            f"Cannot read {path}: {reason}", hint="Check its name and permissions."
        ) from error


def allow_expansion(text: str) -> None:
    """Set the operator's own limit for this run.

    Raises:
        BadInputError: The text is not a size.
    """
    _given[:] = [_bytes(text, SIZE_OPTION)]


def check_expansion(name: str, expanded: int, packed: int, floor: int) -> None:
    """Refuse input that has expanded too much; sizes up to the floor are always allowed.

    Raises:
        BadInputError: The input exceeds the limit.
    """
    limit = _limit(packed, floor)
    if expanded > limit:
        suggested = max(1, -(-limit * 4 // _UNITS["G"]))
        raise BadInputError(
            f"{name} expands from {packed:,} to more than {limit:,} bytes, which is suspicious.",
            hint="Check the file. If it is valid, raise the limit, "
            f"for example: {SIZE_OPTION} {suggested}G",
        )


def _limit(packed: int, floor: int) -> int:
    if _given:
        return _given[0]
    if text := os.environ.get(SIZE_VARIABLE):
        return _bytes(text, SIZE_VARIABLE)
    return max(floor, _RATIO * packed)


def _bytes(text: str, what: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise BadInputError(f"Invalid value for {what}: {text!r}", hint="Use a size such as 2G.")
    return int(found[1]) * _UNITS[found[2].upper()]


@dataclass(frozen=True)
class _Packing:
    """A compression format, whose files begin with ``magic`` and are unpacked by ``tool``.

    Its name is also that of the command that tests its files.
    """

    name: str
    magic: bytes
    unpack: Callable[[Any], io.BufferedIOBase]
    tool: str


class _Pieces(io.BufferedIOBase):
    """A reader that unpacks piece by piece, so that large files do not fill the memory.

    ``make`` creates a decompressor of the standard library, which raises the ``errors`` for damaged
    data. A file may contain several streams, which take one each.
    """

    def __init__(
        self,
        file: io.BufferedIOBase,
        make: Callable[[], Any],
        errors: tuple[type[Exception], ...],
    ):
        self._errors = errors
        self._file = file
        self._make = make
        self._current = make()

    def read1(self, size: int = -1, /) -> bytes:
        """Return some bytes; empty at the end.

        Raises:
            EOFError: The file is truncated.
            _DamagedError: The data cannot be unpacked.
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
            try:
                piece: bytes = self._current.decompress(given, size)
            except self._errors as error:
                raise _DamagedError(str(error)) from error
            if piece:
                return piece

    def _next(self) -> bytes:
        """Return packed bytes after any padding; empty at the end."""
        while piece := self._file.read1(_PIECE):
            if piece := piece.lstrip(b"\0"):
                return piece
        return b""


def _unpack_gzip(file: Any) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file, mode="rb")


def _unpack_bzip2(file: Any) -> io.BufferedIOBase:
    import bz2

    return _Pieces(file, bz2.BZ2Decompressor, (OSError, ValueError))


def _unpack_xz(file: Any) -> io.BufferedIOBase:
    import lzma

    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)

    return _Pieces(file, make, (lzma.LZMAError,))


def _unpack_zstd(file: Any) -> io.BufferedIOBase:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
    return _Pieces(file, lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,))


_PACKINGS = (
    _Packing("gzip", b"\x1f\x8b", _unpack_gzip, "gunzip"),
    _Packing("bzip2", b"BZh", _unpack_bzip2, "bunzip2"),
    _Packing("xz", b"\xfd7zXZ\0", _unpack_xz, "unxz"),
    _Packing("zstd", b"\x28\xb5\x2f\xfd", _unpack_zstd, "unzstd"),
)


def _packing_of(stream: Stream) -> _Packing | None:
    head = stream.peek()
    return next((packing for packing in _PACKINGS if head.startswith(packing.magic)), None)


def _unpack(name: str, stored: Stream, packing: _Packing, floor: int) -> Stream:
    """Return the unpacked bytes, after refusing a file whose start already expands too much."""
    packed, size = io.BytesIO(stored.peek(_SAMPLE)), 0
    try:
        source = packing.unpack(packed)
        while piece := source.read1(_PIECE_COUNTED):
            size += len(piece)
            if size > floor:
                check_expansion(name, size, packed.tell(), floor)
    except (EOFError, OSError, ValueError, zlib.error):
        pass  # the sample is cut off, or the file is damaged, which its reader will report
    return _Unpacked(name, packing.unpack(stored), lambda: stored.taken, floor, packing.name)


def _unreadable(name: str, error: Exception, packing: str = "") -> BadInputError:
    is_short = isinstance(error, EOFError)
    what = "is truncated" if is_short else "is damaged"
    why = "ends too early" if is_short else "cannot be decompressed"
    test = f"{packing} --test" if packing else "unzip -t"
    return BadInputError(
        f"{name} {what}: the compressed data {why}.",
        hint=f"Copy or download it again. To test it: {test} FILE",
    )


def open_zip(file: IO[bytes]) -> ZipFile:
    """Open a zip archive, unless its central directory alone would fill the memory.

    Raises:
        BadZipFile: The directory is too large, or the archive is incomplete.
        NotImplementedError: It needs a feature that the standard library lacks.
        UnicodeDecodeError: The name of a file is damaged.
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
    return ZipFile(file)


def _only_member(
    name: str, file: IO[bytes], floor: int, stack: ExitStack
) -> tuple[Stream, str] | None:
    """Return the only file in a zip archive and its name; None if damaged or an office document."""
    try:
        archive = open_zip(file)
        members = archive.infolist()
    except (BadZipFile, NotImplementedError, UnicodeDecodeError):
        return None  # reading it as a workbook reports what is wrong
    if _is_document(members):
        return None
    member = _single(name, members)
    stack.enter_context(archive)
    size = member.compress_size
    check_expansion(name, member.file_size, size, floor)
    try:
        packed = stack.enter_context(archive.open(member))
    except _ERRORS as error:
        raise _unreadable(name, error) from error
    return _Unpacked(name, cast("io.BufferedIOBase", packed), lambda: size, floor), member.filename


def _is_document(members: list[ZipInfo]) -> bool:
    names = {member.filename.replace("\\", "/").lower() for member in members}
    return not names.isdisjoint(
        {"[content_types].xml", "_rels/.rels", "content.xml", "mimetype"}
    ) or any(each.startswith(("xl/", "index/", "word/", "ppt/")) for each in names)


def _single(name: str, members: list[ZipInfo]) -> ZipInfo:
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
        raise _unreadable(name, BadZipFile())
    if files[0].flag_bits & _ENCRYPTED:
        raise BadInputError(
            f"{name} is a password-protected zip archive.",
            hint="Extract it, then give the file in it.",
        )
    return files[0]
