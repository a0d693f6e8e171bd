"""The bytes of an input file, from disk or standard input, decompressed if necessary.

A file's type and encoding are detected from its first bytes.
"""

from __future__ import annotations

import codecs
import io
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, cast

from aspencli import files
from aspencli.errors import BadInputError
from aspencli.tabular import compression
from aspencli.tabular.compression import ERRORS, ZIP, Source, only_member, packing_of, unreadable

STDIN = "-"
HEAD = 1 << 16  # bytes to peek at before reading
_LARGEST_ARCHIVE = 1 << 28  # bytes, compressed
_FLOOR = compression.TABLE_FLOOR
_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", "Extract it, then give the file in it."),
    b"Rar!": ("is a RAR archive", "Extract it, then give the file in it."),
    b"PAR1": ("is a Parquet file", "Save the table as CSV UTF-8."),
    b"{\\rtf": ("is an RTF document", "Save the table as CSV UTF-8."),
    b"PK\x05\x06": ("is an empty zip archive", "Give a CSV file."),
    b"%PDF": ("is a PDF", "Give a CSV file."),
    b"SQLite format 3": ("is a SQLite database", "Give a CSV file."),
}
# Old workbooks and password-protected new ones are such a container, with named streams inside.
_CONTAINER = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_MARKUP_SEEN = 4_096  # bytes to search for markup
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JUNK = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_JUNK_SHARE = 0.05
_SOME_JUNK = 8  # bytes; fewer are reported with their lines
_WIDE_SHARE = 0.4  # the share of zero bytes in ASCII text encoded with two bytes per character

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
            compression.try_out(name, compression.sample(stream.peek), packing.unpack, _FLOOR)
            stored = stream
            unpacked = _CheckedSource(name, packing.unpack(cast("IO[bytes]", stored)), packing.tool)
            stream = Stream(compression.Bounded(name, unpacked, lambda: stored.taken, _FLOOR))
            again = packing_of(stream.peek())
            if again:
                raise BadInputError(
                    f"{name} is compressed twice.", hint=f"Decompress it first: {packing.tool} FILE"
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
                    f"{_LARGEST_ARCHIVE:,} bytes.",
                    hint="Save the sheet as CSV UTF-8, which has no size limit.",
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
        compression.check(opened.name, member.file_size, size, _FLOOR)
        try:
            packed = stack.enter_context(archive.open(member))
        except (*ERRORS, EOFError) as error:
            raise unreadable(opened.name, error) from error
        unpacked = _CheckedSource(opened.name, cast("Source", packed), "")
        stream = Stream(compression.Bounded(opened.name, unpacked, lambda: size, _FLOOR))
        note = f"read from a zip archive: {member.filename}"
        yield Opened(opened.name, stream, [*opened.notes, note])


class _CheckedSource:
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
            state = "a terminal" if stdin and not stdin.closed else "closed"
            raise BadInputError(
                f"Standard input is {state}.", hint="Pipe a file into the command, or give a file."
            )
        yield cast("io.BufferedReader", stdin.buffer)
        return
    with _open_file(path) as file:
        yield cast("io.BufferedReader", file)


def _open_file(path: str) -> IO[bytes]:
    try:
        return files.expand(path).open("rb")
    except (OSError, RuntimeError, ValueError) as error:  # e.g., an unknown home folder
        if isinstance(error, IsADirectoryError):
            raise BadInputError(f"{path} is a directory.", hint="Give a file in it.") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(
            f"Cannot read {path}: {reason}", hint="Check its name and permissions."
        ) from error


def is_zip(head: bytes) -> bool:
    """Return True if it is a zip archive, as workbooks are."""
    return head.startswith(ZIP)


def sniff(name: str, head: bytes, encoding: str | None) -> tuple[str, int, list[str]]:
    """Return a file's codec, the length of its byte order mark, and notes.

    Args:
        name: The file's name in messages.
        head: Its first bytes.
        encoding: The encoding that the operator specified, if any.

    Raises:
        BadInputError: It is not text, or its encoding cannot be determined.
    """
    for magic, (what, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise BadInputError(f"{name} {what}.", hint=remedy)
    if head.startswith(_CONTAINER):
        raise _container(name, head)
    _refuse_markup(name, head)
    length, marked = next(
        ((len(bom), codec) for bom, codec in _BOMS if head.startswith(bom)), (0, "")
    )
    if encoding is not None:
        return _as_specified(name, encoding, length, marked)
    if marked:
        return marked, length, [] if marked == "utf-8" else [f"read as {marked[:6].upper()}"]
    _refuse_binary(name, head[:4096])
    return "utf-8", 0, []


def _refuse_markup(name: str, head: bytes) -> None:
    """Reject web pages and documents that programs save under spreadsheet file names.

    Raises:
        BadInputError: It is one of these.
    """
    start = head[:_MARKUP_SEEN].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    suffix = PurePath(name).suffix.lower()
    called = f" named {suffix}" if suffix not in {"", ".html", ".htm", ".xml", ".json"} else ""
    if start.startswith((b"<html", b"<!doctype html", b"<table", b"<meta", b"<style")):
        what = f"is an HTML page{called}, not a table"
        hint = "Open it in a spreadsheet program, then save it as a workbook (.xlsx) or CSV UTF-8."
    elif start.startswith((b"<?xml", b"<workbook")):
        is_sheet = b"office:spreadsheet" in start or b"<workbook" in start
        kind = "spreadsheet" if is_sheet else "document"
        what = f"is an XML {kind}{called}, not a table"
        hint = "Open it in a spreadsheet program, then save it as a workbook (.xlsx) or CSV UTF-8."
    elif start.startswith((b"{", b"[")) and re.match(rb'[{[]\s*(["{[}\]]|\d)', start):
        what, hint = (
            f"is JSON{called}, not a table",
            "Give a CSV file with a header and rows.",
        )
    else:
        return
    raise BadInputError(f"{name} {what}.", hint=hint)


def _container(name: str, head: bytes) -> BadInputError:
    if _ENCRYPTED in head:
        return BadInputError(
            f"{name} is password-protected.",
            hint="Open it and save it without a password, or save the sheet as CSV UTF-8.",
        )
    return BadInputError(
        f"{name} is an old Excel workbook (.xls), or is password-protected.",
        hint="Open it, then save it as an Excel workbook (.xlsx) without a password.",
    )


def _as_specified(name: str, encoding: str, length: int, marked: str) -> tuple[str, int, list[str]]:
    codec = _known(encoding)
    if marked == codec or marked.startswith(f"{codec}-"):  # utf-16 takes the mark's byte order
        codec = marked
    elif marked:
        raise BadInputError(
            f"{name} starts with a {marked.upper()} byte order mark, but --encoding is {encoding}.",
            hint="Remove --encoding.",
        )
    return codec, length, [f"read as {encoding}"]


def _refuse_binary(name: str, sample: bytes) -> None:
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > len(sample) * _WIDE_SHARE and min(even, odd) * 4 < max(even, odd):
        codec = "utf-16-le" if odd > even else "utf-16-be"
        raise BadInputError(
            f"{name} looks like UTF-16 without a byte order mark.",
            hint=f"Save it as UTF-8, or specify its encoding: --encoding {codec}",
        )
    junk = sum(byte in _JUNK for byte in sample)
    if junk > max(_SOME_JUNK, len(sample) * _JUNK_SHARE):
        raise BadInputError(
            f"{name} is binary, not text.", hint="Give a CSV file with a header and rows."
        )


def _known(encoding: str) -> str:
    try:
        b" ".decode(encoding, "replace")  # Some registered codecs do not decode to text.
    except (LookupError, UnicodeError):
        raise BadInputError(
            f"Invalid value for --encoding: {encoding!r}",
            hint="Try utf-8, utf-16-le, cp1252, or latin-1.",
        ) from None
    return codecs.lookup(encoding).name.removesuffix("-sig")
