"""Limits on how far a compressed input may expand, so that a small file cannot stall the program.

gzip can expand one byte to 1,000. Input that exceeds both a floor and 100 times its packed size is
refused; tables of samples expand about 5 to 30 times.
"""

from __future__ import annotations

import io
import os
import re
import zlib
from collections.abc import Callable
from typing import IO, Protocol

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

_given: list[int] = []


class Source(Protocol):
    """A source of bytes that returns them as they become available."""

    def read1(self, size: int, /) -> bytes:
        """Return available bytes without waiting for more; empty at the end."""


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
