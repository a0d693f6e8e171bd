"""Lists by pages, and parts of documents, as Auth0 gives them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query

from local.identity.management.errors import ManagementError

_REACH = 1000

Document = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted.

    Attributes:
        page: The page, from 0.
        per_page: How many a page.
        totals: Whether to say how many there are.
        take: How many behind a checkpoint; None for pages by number.
        after: The checkpoint.
    """

    page: int
    per_page: int
    totals: bool
    take: int | None = None
    after: str | None = None


@dataclass(frozen=True)
class Listing:
    """A list in the database.

    Attributes:
        name: What the documents are called in the answer.
        source: The tables and conditions, behind ``SELECT ... FROM``.
        document: How a row becomes a document.
        order: How it is sorted.
        key: The unique column that checkpoints go by.
        columns: What is selected.
        values: The values of the conditions.
        counted: Whether the answer tells the total.
        length: Whether the answer tells how many it holds.
    """

    name: str
    source: str
    document: Callable[[sqlite3.Row], Document]
    order: str
    key: str = "id"
    columns: str = "*"
    values: Mapping[str, object] = field(default_factory=dict)
    counted: bool = True
    length: bool = False


def _page(
    page: Annotated[int, Query(ge=0)] = 0,
    per_page: Annotated[int, Query(ge=0, le=100)] = 50,
    include_totals: bool = False,
) -> Page:
    return Page(page, per_page, include_totals)


def _page_or_checkpoint(
    by_number: Annotated[Page, Depends(_page)],
    take: Annotated[int | None, Query(ge=1, le=100)] = None,
    after: Annotated[str | None, Query(alias="from")] = None,
) -> Page:
    if take is None and after is None:
        return by_number
    return Page(0, 0, totals=False, take=take or 50, after=after)


def listed(db: sqlite3.Connection, listing: Listing, page: Page) -> list[Document] | Document:
    """The wanted part of a list.

    Raises:
        ManagementError: It lies beyond what pages by number reach.
    """
    if page.take is not None:
        return _behind_checkpoint(db, listing, page.take, page.after)
    start = page.page * page.per_page
    if start + page.per_page > _REACH:
        raise ManagementError(
            400, f"You can only page through the first {_REACH} records.", "invalid_paging"
        )
    rows = _rows(db, listing, f"ORDER BY {listing.order} LIMIT {page.per_page} OFFSET {start}")
    if not page.totals:
        return rows
    answer: Document = {"start": start, "limit": page.per_page, listing.name: rows}
    if listing.length:
        answer["length"] = len(rows)
    if listing.counted:
        count = f"SELECT count(*) FROM {listing.source}"  # noqa: S608 - the source is ours
        answer["total"] = db.execute(count, listing.values).fetchone()[0]
    return answer


def parts(
    document: Document,
    fields: str | None,
    include: bool,
) -> Document:
    """A document with some fields only, or without them."""
    if not fields:
        return document
    named = set(fields.split(","))
    return {name: value for name, value in document.items() if (name in named) == include}


def iso(moment: float) -> str:
    """A time as Auth0 writes it."""
    text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _behind_checkpoint(
    db: sqlite3.Connection, listing: Listing, take: int, after: str | None
) -> Document:
    condition = f"AND {listing.key} > :checkpoint" if after else ""
    tail = f"{condition} ORDER BY {listing.key} LIMIT {take + 1}"
    rows = _rows(db, listing, tail, after)
    answer: Document = {listing.name: rows[:take]}
    if len(rows) > take:
        answer["next"] = rows[take - 1][listing.key.rpartition(".")[2]]
    return answer


def _rows(
    db: sqlite3.Connection, listing: Listing, tail: str, after: str | None = None
) -> list[Document]:
    statement = f"SELECT {listing.columns} FROM {listing.source} {tail}"  # noqa: S608 - all ours
    values = {**listing.values, "checkpoint": after}
    return [listing.document(row) for row in db.execute(statement, values)]


PageOf = Annotated[Page, Depends(_page)]
"""A page by number, as an endpoint's parameter."""
AnyPageOf = Annotated[Page, Depends(_page_or_checkpoint)]
"""A page by number or behind a checkpoint, as an endpoint's parameter."""
