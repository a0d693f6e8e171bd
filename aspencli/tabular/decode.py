"""Decoding of bytes into lines of text; every line that cannot be decoded is reported."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, cast

from aspencli.errors import BadInputError
from aspencli.tabular.source import Opened, sniff

_HEAP = 1 << 16  # bytes of lines read at a time
_LONGEST_LINE = 1 << 22  # bytes; a longer one is not CSV, and would have to be held in memory
# A byte that is not valid UTF-8 is kept as one of these (PEP 383), so that it can be reported.
_KEPT_BYTE = re.compile("[\udc80-\udcff]")
# Other encodings have no such codes, and U+FFFD may be a legitimate character of the file.
_LOST = "\udfff"
_MARK_LOST = "aspencli.lost"
codecs.register_error(_MARK_LOST, lambda error: (_LOST, cast("UnicodeDecodeError", error).end))


@dataclass(frozen=True)
class Fault:
    """The reason a line cannot be used.

    Attributes:
        line: Line number, starting at 1.
        column: The column at fault; empty if it is the whole line.
        reason: What is wrong with it.
    """

    line: int
    column: str
    reason: str


@dataclass
class Text:
    """A text file that is being read.

    Attributes:
        name: The name for messages.
        codec: The encoding.
        head: The beginning of the text.
        notes: Notes for the operator on how the file is read.
        bad: Lines with undecodable bytes, found by `lines` and not yet reported.
        remedy: How to fix such lines; None until one is found.
    """

    name: str
    codec: str
    head: str
    notes: list[str]
    _file: io.TextIOWrapper
    _offset: int  # bytes before the next line
    bad: list[Fault] = field(default_factory=list)
    remedy: str | None = None

    def lines(self) -> Iterator[str]:
        """Return the lines, each with its line ending: line feed, carriage return, or both."""
        return chain.from_iterable(self._weighed())

    def _weighed(self) -> Iterator[Iterable[str]]:
        """Yield the lines in batches; a batch that is all ASCII has no undecodable bytes."""
        number, offset = 0, self._offset
        while heap := self._file.readlines(_HEAP):
            text = "".join(heap)
            if text.isascii():
                number += len(heap)
                offset += len(text)
                yield heap
                continue
            for line in heap:  # one by one, so that a fault is reported with its line
                number += 1
                offset += len(line) if line.isascii() else self._weigh(number, offset, line)
                yield (line,)

    def is_damaged(self, value: str) -> bool:
        """Return True if the value has undecodable bytes, which `lines` has noted."""
        if self.codec != "utf-8":
            return _LOST in value
        return not value.isascii() and _KEPT_BYTE.search(value) is not None

    def _weigh(self, number: int, offset: int, line: str) -> int:
        """Return the line's length in bytes, and note undecodable bytes."""
        if self.codec != "utf-8":
            if _LOST in line:
                self._note(number, f"contains bytes that are not valid {self.codec.upper()}")
            return 0  # offsets are reported for UTF-8 only
        raw = line.encode(errors="surrogateescape")
        kept = _KEPT_BYTE.search(line)
        if kept:
            place = offset + len(line[: kept.start()].encode(errors="surrogateescape"))
            byte = ord(kept[0]) - 0xDC00
            more = len(_KEPT_BYTE.findall(line)) - 1
            others = f" (and {more} more)" if more else ""
            self._note(
                number, f"byte 0x{byte:02X} at offset {place:,} is not valid UTF-8{others}", raw
            )
        return len(raw)

    def _note(self, number: int, reason: str, raw: bytes = b"") -> None:
        self.bad.append(Fault(number, "", reason))
        if self.remedy is None:
            self.remedy = _remedy(self.codec, raw)


def as_text(opened: Opened, encoding: str | None = None) -> Text:
    """Return an opened file as text.

    UTF-8 (with or without a byte order mark) and UTF-16 or UTF-32 with one are recognized.

    Args:
        opened: The file.
        encoding: The encoding to use instead of the detected one.

    Raises:
        BadInputError: The file is not text.
    """
    head = opened.stream.peek()
    codec, mark, notes = sniff(opened.name, head, encoding)
    once, first = head[:mark], mark
    while mark and head.startswith(once, mark):
        mark += len(once)
    if mark > first:
        notes.append("a second byte order mark is ignored")
    opened.stream.read1(mark)
    file = io.TextIOWrapper(
        cast("IO[bytes]", _Lines(opened)),
        encoding=codec,
        errors="surrogateescape" if codec == "utf-8" else _MARK_LOST,
        newline="",
    )
    beginning = head[mark:].decode(codec, "replace")
    return Text(opened.name, codec, beginning, [*opened.notes, *notes], file, mark)


def _remedy(codec: str, raw: bytes) -> str:
    if codec != "utf-8":
        return "Check --encoding, or save the file as CSV UTF-8."
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        other = "latin-1"
    else:
        other = "cp1252"
    return (
        "If it comes from Excel on Windows, save it as CSV UTF-8, "
        f"or specify its encoding: --encoding {other}"
    )


class _Lines(io.BufferedIOBase):
    """A binary file that raises an error if a line is too long."""

    def __init__(self, opened: Opened):
        self._name = opened.name
        self._stream = opened.stream
        self._line = 0  # bytes since the last line ending

    def readable(self) -> bool:
        return True

    def read1(self, _size: int | None = -1, /) -> bytes:
        data = self._stream.read1()
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._line = len(data) - end if end >= 0 else self._line + len(data)
        if self._line > _LONGEST_LINE:
            raise BadInputError(
                f"{self._name} is not a CSV file: a line has more than {_LONGEST_LINE:,} bytes.",
                hint="Give a CSV file with a header and rows.",
            )
        return data

    read = read1
