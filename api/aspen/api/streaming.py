"""Responses that are generated while they are sent, so that large ones do not fill memory."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aspen.api.admission import end_session, keep_session
from aspen.api.spool import PIECE, Spool

_ROWS = 500
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 _.,()'&+-]+")
_SLOW_S = 1.0


class Streamed(Response):
    """A response read at the speed of the database and sent at the speed of the client.

    The connection returns to the pool once the last row is read, however long sending takes.

    Args:
        db: The session that is read from; it is closed at the end.
        parts: The parts of the body.
        media_type: The media type of the body.
        headers: Further headers.
    """

    def __init__(
        self,
        db: AsyncSession,
        parts: AsyncIterator[bytes],
        *,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        self.status_code, self.background, self.media_type = 200, None, media_type
        self.init_headers(headers)
        keep_session(db)
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
            await end_session(self._db)

    async def _send(self, spool: Spool, reading: asyncio.Task[None], send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while part := await spool.read():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await reading  # raises if reading failed: the response must not look complete
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Pieces(Response):
    """A response in pieces, since joining ten megabytes takes longer than sending them.

    For a slow client, they go to a file instead of staying in memory.
    """

    def __init__(
        self,
        pieces: Iterable[bytes],
        *,
        media_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ):
        given = [memoryview(one) for one in pieces]
        size = str(sum(map(len, given)))
        self._pieces = deque(
            one[start : start + PIECE] for one in given for start in range(0, len(one), PIECE)
        )
        self.status_code, self.background, self.media_type = 200, background, media_type
        self.init_headers({**(headers or {}), "Content-Length": size})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then run the background task."""
        del scope, receive
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
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


def _body(part: bytes | memoryview, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _left(receive: Receive) -> None:
    """Wait until the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def json_list(db: AsyncSession, key: str, query: sa.Select[tuple[str]]) -> Response:
    """Return a response ``{"key": [...]}`` from a query that selects the JSON of each element.

    The first rows are fetched before the response starts, so a failing query gives an error.
    """
    parts = await fetch_parts(db, query)
    first = await anext(parts, None)

    async def body() -> AsyncIterator[bytes]:
        yield f'{{"{key}":['.encode()
        if first is not None:
            yield joined(first)
            async for part in parts:
                yield b"," + joined(part)
        yield b"]}"

    return Streamed(db, body(), media_type="application/json")


def json_pieces(pieces: Sequence[bytes], background: BackgroundTask | None = None) -> Response:
    """Return a JSON response from pieces of its body."""
    return Pieces(pieces, media_type="application/json", background=background)


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


def joined(elements: Sequence[str]) -> bytes:
    """Return the elements of a JSON list, without its brackets."""
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
