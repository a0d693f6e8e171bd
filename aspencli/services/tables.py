"""Reading delimited text as operators have it: streamed, and with every bad line named."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from aspencli.errors import BadInputError

STDIN = "-"
_HEAD = 1 << 16  # bytes looked at before anything is read
_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
_MAGIC = {
    b"\x1f\x8b": ("is compressed with gzip", "Unpack it first: gunzip FILE."),
    b"PK\x03\x04": ("is a workbook or a zip archive", "Save the sheet as CSV UTF-8 first."),
    b"\xd0\xcf\x11\xe0": ("is an old Excel workbook", "Save the sheet as CSV UTF-8 first."),
    b"%PDF": ("is a PDF", "A CSV file is needed."),
    b"SQLite format 3": ("is a SQLite database", "A CSV file is needed."),
}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JUNK = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_JUNK_SHARE = 0.1


@dataclass(frozen=True)
class Fault:
    """Why a line cannot be used.

    Attributes:
        line: Its number, from 1.
        column: The column at fault; empty when it is the line as a whole.
        reason: What is wrong with it.
    """

    line: int
    column: str
    reason: str


@dataclass
class Source:
    """A delimited text file that is being read.

    Attributes:
        name: What messages call it.
        header: The names of its columns, stripped.
        notes: What the operator should know of how it was read.
        blank_lines: How many blank lines were skipped so far.
    """

    name: str
    header: list[str]
    notes: list[str]
    delimiter: str
    _reader: Any  # csv's reader; its type has no public name
    blank_lines: int = 0
    _start: int = field(default=1)

    def records(self, fault: Callable[[Fault], None]) -> Iterator[tuple[int, list[str]]]:
        """Each record with the number of its first line; faults go to the function given."""
        while True:
            start = self._reader.line_num + 1
            try:
                record = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault(_csv_fault(error, start, self._reader.line_num))
                if "field larger" in str(error):
                    return  # the rest of the file has been taken for one field
                continue
            if any(cell and not cell.isspace() for cell in record):
                yield start, record
            else:
                self.blank_lines += 1


@contextmanager
def open_table(
    path: str,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    preamble: str | None = None,
) -> Iterator[Source]:
    """Open a delimited text file, or standard input for ``-``.

    UTF-8 (with or without a byte order mark) and UTF-16 with one are read, with commas, tabs,
    semicolons or vertical bars between the cells; whatever is not plain CSV is noted.

    Args:
        path: The file's path.
        encoding: How its bytes are read, instead of what is found out.
        delimiter: What stands between its cells, instead of what is found out.
        preamble: How a line starts that may stand before the header, and is passed over.

    Raises:
        BadInputError: It cannot be opened, or is no such text.
    """
    name = "standard input" if path == STDIN else path
    with _open(path) as binary:
        head = _peek(binary)
        codec, bom, notes = _sniff(name, head, encoding)
        counting = _Counting(binary, head[bom:], bom)
        text = io.TextIOWrapper(cast("IO[bytes]", counting), encoding=codec, newline="\n")
        with _decoding(name, codec, counting):
            yield _start(name, text, notes, delimiter, preamble)


def _start(
    name: str,
    text: io.TextIOWrapper,
    notes: list[str],
    delimiter: str | None,
    preamble: str | None,
) -> Source:
    lines = iter(text)
    skipped, first = 0, ""
    for first in lines:
        if first.strip() and not (preamble and first.startswith(preamble)):
            break
        skipped += 1
    if not first.strip() or (preamble and first.startswith(preamble)):
        raise BadInputError(f"{name} is empty", hint="Give a file with a header and rows.")
    if first.count("\r") > 1:
        first, lines = _carriage_returns(first, lines)
        notes.append("lines end with a carriage return alone, as on old Macs")
    chosen = delimiter or _guess_delimiter(first)
    if delimiter is None and chosen != ",":
        notes.append(f"cells are separated by a {_DELIMITERS[chosen]}")
    reader = csv.reader(_chain(skipped, first, lines), strict=True, delimiter=chosen)
    source = Source(name, [], notes, chosen, reader)
    source.header = [cell.strip() for cell in _header(source)]
    return source


def _header(source: Source) -> list[str]:
    faults: list[Fault] = []
    for _line, record in source.records(faults.append):
        if not faults:
            source.blank_lines = 0
            return record
        break
    reason = faults[0].reason if faults else "it holds no header"
    line = faults[0].line if faults else 1
    raise BadInputError(
        f"{source.name} cannot be read: line {line}: {reason}", hint="Mend that line."
    )


def _chain(skipped: int, first: str, lines: Iterator[str]) -> Iterator[str]:
    for _ in range(skipped):
        yield "\n"  # so that line numbers stay those of the file
    yield first
    yield from lines


def _carriage_returns(first: str, rest: Iterator[str]) -> tuple[str, Iterator[str]]:
    pieces = (piece + "\n" for line in (first, *rest) for piece in line.rstrip("\r\n").split("\r"))
    return next(pieces), pieces


def _guess_delimiter(line: str) -> str:
    # Only what stands outside quotes separates; a header hardly ever has both.
    bare = "".join(line.split('"')[::2])
    counts = {delimiter: bare.count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _csv_fault(error: csv.Error, start: int, last: int) -> Fault:
    text = str(error)
    if "unexpected end of data" in text or "field larger" in text:
        return Fault(start, "", "a quote opened on this line is never closed")
    if "expected after" in text:
        where = f", which ends on line {last}," if last > start else ""
        return Fault(start, "", f"text stands after the closing quote of a cell{where}")
    if "new-line character" in text:
        return Fault(start, "", "a carriage return stands in an unquoted cell")
    return Fault(start, "", text)


# Bytes


@contextmanager
def _open(path: str) -> Iterator[IO[bytes]]:
    if path == STDIN:
        if sys.stdin.isatty():
            raise BadInputError(
                "standard input is the terminal", hint="Pipe a file into it, or name a file."
            )
        yield sys.stdin.buffer
        return
    try:
        file = Path(path).expanduser().open("rb")
    except OSError as error:
        raise BadInputError(
            f"{path} cannot be read: {error.strerror}", hint="Check its name and permissions."
        ) from error
    with file:
        yield file


def _peek(binary: IO[bytes]) -> bytes:
    head = b""
    try:
        while len(head) < _HEAD and (piece := binary.read(_HEAD - len(head))):
            head += piece
    except IsADirectoryError as error:
        raise BadInputError(f"{error.filename} is a folder", hint="Name a file.") from error
    return head


def _sniff(name: str, head: bytes, encoding: str | None) -> tuple[str, int, list[str]]:
    """The codec, the length of the byte order mark, and notes."""
    for magic, (what, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise BadInputError(f"{name} {what}", hint=remedy)
    if encoding is not None:
        return _known(encoding), 0, [f"read as {encoding}"]
    for bom, codec in _BOMS:
        if head.startswith(bom):
            return codec, len(bom), [] if codec == "utf-8" else [f"read as {codec[:6].upper()}"]
    sample = head[:4096]
    if sample.count(0) * 5 > len(sample) * 2 and len(sample) > 1:
        codec = "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"
        raise BadInputError(
            f"{name} looks like UTF-16 without a byte order mark",
            hint=f"Save it as UTF-8, or say so: --encoding {codec}.",
        )
    if sum(byte in _JUNK for byte in sample) > len(sample) * _JUNK_SHARE:
        raise BadInputError(
            f"{name} is binary, not text", hint="Give a CSV file with a header and rows."
        )
    return "utf-8", 0, []


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise BadInputError(
            f"there is no encoding {encoding!r}", hint="Try utf-8, utf-16, cp1252 or latin-1."
        ) from None


class _Counting(io.BufferedIOBase):
    """A binary file that knows how much of it has been read, for naming the offset of a fault."""

    def __init__(self, binary: IO[bytes], head: bytes, skipped: int):
        self._binary = binary
        self._head = head
        self.offset = skipped
        self.lines = 0

    def readable(self) -> bool:
        return True

    def read1(self, _size: int | None = -1, /) -> bytes:
        data, self._head = self._head or self._binary.read(_HEAD), b""
        self.offset += len(data)
        self.lines += data.count(b"\n")
        return data

    read = read1


@contextmanager
def _decoding(name: str, codec: str, counting: _Counting) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        # The decoder may hold back a few bytes; what it was given last ends where we stand.
        offset = counting.offset - len(error.object) + error.start
        line = counting.lines - error.object[error.start :].count(b"\n") + 1
        byte = error.object[error.start]
        raise BadInputError(
            f"{name} is not {codec.upper()}: byte 0x{byte:02X} at offset {offset:,} (line {line})",
            hint="If it comes from Excel on Windows, save it as CSV UTF-8, "
            "or say so: --encoding cp1252.",
        ) from error


def nearly(name: str, known: Sequence[str]) -> str | None:
    """The column that was probably meant, if any."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.7)
    return near[0] if near else None
