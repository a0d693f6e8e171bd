"""How much a compressed input may grow: a small file must not keep the program busy for hours.

gzip can make 1,000 bytes of one. What grows beyond a floor and beyond 100 times its packed size is
refused; tables of samples grow about 5 to 30 times.
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
"""Genomes of one pathogen are nearly equal, and the XML of a workbook repeats itself."""
_RATIO = 100
_SAMPLE = 1 << 20  # packed bytes that are tried before the first row is read
_PIECE = 1 << 18
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d{1,12})\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)

_given: list[int] = []


class Source(Protocol):
    """What gives bytes as they come."""

    def read1(self, size: int, /) -> bytes:
        """Some bytes, without waiting for more; none at the end."""


def allow(text: str) -> None:
    """Take the operator's own limit for this run.

    Raises:
        BadInputError: It is not a size.
    """
    _given[:] = [_bytes(text, OPTION)]


def check(name: str, expanded: int, packed: int, floor: int) -> None:
    """Refuse what has grown too much.

    Args:
        name: What messages call the file.
        expanded: Its bytes by now, unpacked.
        packed: How many packed bytes they were.
        floor: What is always allowed.

    Raises:
        BadInputError: It has grown beyond the limit.
    """
    limit = _limit(packed, floor)
    if expanded > limit:
        raise BadInputError(
            f"{name} expands to more than {limit:,} bytes from {packed:,}, which is unusual",
            hint="Check the file. If it is right, allow what it needs, "
            f"for example {OPTION} {_suggested(limit)}",
        )


def try_out(name: str, head: bytes, unpack: Callable[[IO[bytes]], Source], floor: int) -> None:
    """Unpack the beginning of a file, so that one that grows too much is refused before its rows.

    Args:
        name: What messages call the file.
        head: Its first bytes, packed.
        unpack: Opens them.
        floor: What is always allowed.

    Raises:
        BadInputError: It has grown beyond the limit.
    """
    packed, size = io.BytesIO(head), 0
    try:
        source = unpack(packed)
        while piece := source.read1(_PIECE):
            size += len(piece)
            if size > floor:
                check(name, size, packed.tell(), floor)
    except (EOFError, OSError, ValueError, zlib.error):
        return  # the beginning of a whole file, or a damaged one: who reads it says so


def sample(peek: Callable[[int], bytes]) -> bytes:
    """Return as many packed bytes as are tried out."""
    return peek(_SAMPLE)


class Bounded(io.RawIOBase):
    """Unpacked bytes, held to the limit while they are read.

    Args:
        name: What messages call the file.
        source: What unpacks it.
        packed: Returns how many packed bytes were read by now.
        floor: What is always allowed.
    """

    def __init__(self, name: str, source: Source, packed: Callable[[], int], floor: int):
        self._name, self._source, self._packed, self._floor = name, source, packed, floor
        self._size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def read1(self, size: int, /) -> bytes:
        """Return some bytes; none at the end."""
        piece = self._source.read1(size)
        self._size += len(piece)
        if self._size > self._floor:
            check(self._name, self._size, self._packed(), self._floor)
        return piece

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # typed as any buffer
        """Read into a buffer; return how many bytes."""
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
        raise BadInputError(f"Invalid value for {what}: {text!r}", hint="Write a size such as 2G.")
    return int(found[1]) * _UNITS[found[2].upper()]


def _suggested(limit: int) -> str:
    return f"{max(1, -(-limit * 4 // _UNITS['G']))}G"
