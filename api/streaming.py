"""Answers that are made while they are sent, so that their size costs no memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

_ROWS = 500


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


def attachment(filename: str) -> dict[str, str]:
    """The header that has a browser save the answer; the name needs no quoting (our own names)."""
    return {"Content-Disposition": f"attachment; filename={filename}"}
