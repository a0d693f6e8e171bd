"""Answers that are made while they are sent, so that their size costs no memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

_ROWS = 500
_PLAIN_NAME = re.compile(r"[A-Za-z0-9 _.,()'&+-]+")


async def json_list(db: AsyncSession, key: str, query: sa.Select[tuple[str]]) -> StreamingResponse:
    """An answer ``{"key": [...]}``; the query selects the JSON of each element.

    The first rows are fetched before the answer begins: a query that fails is still an error.
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

    return StreamingResponse(body(), media_type="application/json")


def json_pieces(
    pieces: Sequence[bytes], background: BackgroundTask | None = None
) -> StreamingResponse:
    """An answer that is there, in pieces: to join ten megabytes takes longer than to send them."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return StreamingResponse(
        body(),
        headers={"Content-Length": str(sum(map(len, pieces)))},
        media_type="application/json",
        background=background,
    )


async def fetch_parts(
    db: AsyncSession, query: sa.Select[Any], *, rows: int = _ROWS
) -> AsyncIterator[Sequence[Any]]:
    """Some rows at a time of a query's first column, by a cursor on the server."""
    result = await db.stream_scalars(query, execution_options={"yield_per": rows})
    return result.partitions()


def joined(elements: Sequence[str]) -> bytes:
    """The elements of a JSON list, without its brackets."""
    return ",".join(elements).encode()


def attachment(filename: str, media_type: str) -> dict[str, str]:
    """Return the headers of an answer that a browser saves.

    A name stands there as it is, as in the live service; one that a header cannot hold, such as
    one with ``é`` or a quotation mark, is encoded (RFC 6266).
    """
    name = f"filename={filename}"
    if not _PLAIN_NAME.fullmatch(filename):
        name = f"filename*=UTF-8''{quote(filename, safe='')}"
    # Given as a header, the type gets no character set from the framework, as in the live service.
    return {"Content-Disposition": f"attachment; {name}", "Content-Type": media_type}
