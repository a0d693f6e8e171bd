"""Responses that are generated while they are sent, so that large ones do not fill memory.

The writer never waits for the reader: what a client does not take goes to a file. A list of 100,000
samples is 95 MB. Waiting for the client would hold a database connection; keeping the list in
memory would let a few stalled clients exhaust it.
"""

from __future__ import annotations

import asyncio
import csv
import io
import os
import re
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import IO, Any, ClassVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aspen.api.database import RequestSession

PIECE = 1 << 17
"""Bytes passed to the server at a time; it buffers them until the client reads them."""
_OWN, _ALL = 1 << 20, 32 << 20
"""Maximum bytes in memory: of one spool, and of all spools in the process."""
_ROWS = 500
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 _.,()'&+-]+")
_SLOW_S = 1.0


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


class Streamed(Response):
    """A response read at the speed of the database and sent at the speed of the client.

    It is JSON, unless its headers say otherwise. The session is closed, and its connection returns
    to the pool, once the last row is read, however long sending takes.
    """

    media_type = "application/json"

    def __init__(
        self,
        db: RequestSession,
        parts: AsyncIterator[bytes],
        headers: Mapping[str, str] | None = None,
    ):
        self.status_code, self.background = 200, None
        self.init_headers(headers)
        db.is_kept = True
        self._db, self._parts = db, parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; stop if the client disconnects."""
        del scope
        spool = Spool()
        reading = asyncio.create_task(self._read(spool))
        sending = asyncio.create_task(self._send(spool, reading, send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (leaving, sending, reading):
                task.cancel()
            await asyncio.gather(leaving, sending, reading, return_exceptions=True)
            spool.close()

    async def _read(self, spool: Spool) -> None:
        try:
            async for part in self._parts:
                await spool.write(part)
        finally:
            spool.complete()
            await self._db.close()

    async def _send(self, spool: Spool, reading: asyncio.Task[None], send: Send) -> None:
        await _start(self, send)
        while part := await spool.read():
            await send(_body(part, more=True))
        await reading  # raises if reading failed: the response must not look complete
        await send(_body(b"", more=False))


class Pieces(Response):
    """A response in pieces, since joining ten megabytes takes longer than sending them.

    It is JSON, unless its headers say otherwise. For a slow client, the pieces go to a file instead
    of staying in memory.
    """

    media_type = "application/json"

    def __init__(
        self,
        pieces: Iterable[bytes],
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ):
        given = [memoryview(one) for one in pieces]
        size = str(sum(map(len, given)))
        self._pieces = deque(
            one[start : start + PIECE] for one in given for start in range(0, len(one), PIECE)
        )
        self.status_code, self.background = 200, background
        self.init_headers({**(headers or {}), "Content-Length": size})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then run the background task."""
        del scope, receive
        await _start(self, send)
        spool = Spool()
        try:
            await self._send(spool, send)
        finally:
            spool.close()
        if self.background is not None:
            await self.background()

    async def _send(self, spool: Spool, send: Send) -> None:
        while self._pieces:
            sending = asyncio.ensure_future(send(_body(self._pieces.popleft(), more=True)))
            done, _ = await asyncio.wait({sending}, timeout=_SLOW_S)
            while self._pieces and not done:
                await spool.write(self._pieces.popleft())
            await sending
        spool.complete()
        while part := await spool.read():
            await send(_body(part, more=True))
        await send(_body(b"", more=False))


async def _start(response: Response, send: Send) -> None:
    headers = response.raw_headers
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def _body(part: bytes | memoryview, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _left(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def json_list(db: RequestSession, key: str, query: sa.Select[tuple[str]]) -> Response:
    """Return a response ``{"key": [...]}`` from a query that selects the JSON of each element.

    The first rows are fetched before the response starts, so a failing query gives an error.
    """
    parts = await fetch_parts(db, query)
    first = await anext(parts, None)

    async def body() -> AsyncIterator[bytes]:
        yield f'{{"{key}":['.encode()
        if first is not None:
            yield _joined(first)
            async for part in parts:
                yield b"," + _joined(part)
        yield b"]}"

    return Streamed(db, body())


async def fetch_parts(
    db: AsyncSession,
    query: sa.Select[Any],
    values: Mapping[str, Any] | None = None,
    *,
    rows: int = _ROWS,
) -> AsyncIterator[Sequence[Any]]:
    """Return batches of a query's first column, read through a server-side cursor."""
    result = await db.stream_scalars(query, values, execution_options={"yield_per": rows})
    return result.partitions()


def _joined(elements: Sequence[str]) -> bytes:
    return ",".join(elements).encode()


def attachment(filename: str, media_type: str) -> dict[str, str]:
    """Return the headers of a response that browsers save as a file.

    Names are unquoted, as in the live service; one that a header cannot contain, such as one with
    ``é`` or a quotation mark, is encoded (RFC 6266).
    """
    name = f"filename={filename}"
    if not _PLAIN_NAME.fullmatch(filename):
        name = f"filename*=UTF-8''{quote(filename, safe='')}"
    # As in the live service, the type has no charset: the framework adds none to a header.
    return {"Content-Disposition": f"attachment; {name}", "Content-Type": media_type}


def delimited(rows: Iterable[Sequence[str]], delimiter: str = "\t") -> str:
    """Return rows of a table as text, each line ended by CRLF."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue()
