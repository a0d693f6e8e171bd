"""Answers that never wait for their reader: what it does not take at once goes into a file.

A list of 100,000 samples is 95 MB. Held back by the reader, it would hold a connection to the
database; kept in memory, a few readers who stall would take all of it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from typing import IO, ClassVar

PIECE = 1 << 17
"""Bytes that are handed to the server at once. It holds them until the reader takes them."""
_OWN, _ALL = 1 << 20, 32 << 20
"""Bytes in memory: of one answer, and of all answers of the process."""


class Spool:
    """Bytes on their way from one task to another, in the order in which they were written.

    The writer never waits for the reader. What the reader leaves goes into a temporary file.
    """

    _held: ClassVar[int] = 0

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._file: IO[bytes] | None = None
        self._taken = self._stored = 0  # bytes of the file
        self._changed = asyncio.Event()
        self._is_complete = False

    async def write(self, part: bytes | memoryview) -> None:
        """Add bytes."""
        is_full = (self._parts and self._size + len(part) > _OWN) or Spool._held > _ALL
        if self._taken < self._stored or is_full:
            await self._store(part)
        else:
            self._parts.append(bytes(part))
            self._hold(len(part))
        self._changed.set()

    def complete(self) -> None:
        """Note that nothing more will be written."""
        self._is_complete = True
        self._changed.set()

    async def read(self) -> bytes:
        """Wait for bytes and return them; empty at the end."""
        while True:
            if self._parts:
                part = self._parts.popleft()
                self._hold(-len(part))
                return part
            if self._file and self._taken < self._stored:
                part = await asyncio.to_thread(os.pread, self._file.fileno(), PIECE, self._taken)
                self._taken += len(part)
                return part
            if self._is_complete:
                return b""
            self._changed.clear()
            await self._changed.wait()

    async def read_all(self) -> bytes:
        """Return all that was written, once it is complete."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Forget what was not read."""
        self._parts.clear()
        self._hold(-self._size)
        if self._file:
            self._file.close()

    async def _store(self, part: bytes | memoryview) -> None:
        if self._file is None:
            self._file = await asyncio.to_thread(tempfile.TemporaryFile)
        await asyncio.to_thread(_write_all, self._file.fileno(), part, self._stored)
        self._stored += len(part)

    def _hold(self, size: int) -> None:
        self._size += size
        Spool._held += size


def _write_all(descriptor: int, part: bytes | memoryview, at: int) -> None:
    left = memoryview(part)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written
