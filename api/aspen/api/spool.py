"""Buffers that never make the writer wait: what the reader does not take goes to a file.

A list of 100,000 samples is 95 MB. Waiting for the client would hold a database connection;
keeping the list in memory would let a few stalled clients exhaust it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections import deque
from typing import IO, ClassVar

PIECE = 1 << 17
"""Bytes passed to the server at a time; it buffers them until the client reads them."""
_OWN, _ALL = 1 << 20, 32 << 20
"""Maximum bytes in memory: of one spool, and of all spools in the process."""


class Spool:
    """A first-in, first-out buffer of bytes between two tasks.

    The writer never waits for the reader. Above a limit, data goes to a temporary file.
    """

    _held: ClassVar[int] = 0

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._file: IO[bytes] | None = None
        self._taken = self._stored = 0  # bytes read from and written to the file
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
        """Mark the data as complete."""
        self._is_complete = True
        self._changed.set()

    async def read(self) -> bytes:
        """Wait for bytes and return them; return empty bytes at the end."""
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
        """Return all data once it is complete."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Discard unread data."""
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
