"""Paged lists and partial documents, in Auth0's format."""

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
    """The requested part of a list.

    Attributes:
        page: The page number, from 0.
        per_page: The number of items per page.
        totals: True to include the totals.
        take: The number of items after a checkpoint; None for numbered pages.
        after: The checkpoint; None to start at the beginning.
    """

    page: int
    per_page: int
    totals: bool
    take: int | None = None
    after: str | None = None


@dataclass(frozen=True)
class Listing:
    """A list to read from the database.

    Attributes:
        name: The key of the documents in the response.
        source: The tables and conditions after ``SELECT ... FROM``.
        document: Converts a row to a document.
        order: The ORDER BY expression.
        key: The unique column that checkpoints use.
        columns: The selected columns.
        values: The parameters of the conditions.
        counted: True if the response includes the total.
        length: True if the response includes the number of items on the page.
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
    """Return the requested part of a list.

    Raises:
        ManagementError: The part is beyond the reach of numbered pages.
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
    """Return a document with only the given fields, or without them."""
    if not fields:
        return document
    named = set(fields.split(","))
    return {name: value for name, value in document.items() if (name in named) == include}


def iso(moment: float) -> str:
    """Return a time in Auth0's format."""
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
"""An endpoint parameter: a numbered page."""
AnyPageOf = Annotated[Page, Depends(_page_or_checkpoint)]
"""An endpoint parameter: a numbered page, or the items after a checkpoint."""
