"""The first page of a result, and the number of rows it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from aspencli.output.console import Output
from aspencli.output.rendering import Column, Row


class Found(Protocol):
    """A query result, in an order that can be resumed after an ID."""

    def rows(self, limit: int | None) -> Iterator[Any]:
        """Yield the rows; all of them if there is no limit."""

    def count(self) -> int:
        """Return the total number of rows."""


def show_page(
    out: Output,
    columns: Sequence[Column],
    found: Found,
    limit: int | None,
    *,
    noun: str,
    as_row: Callable[[Row], Row] = dict,
) -> None:
    """Show the first rows as they arrive; if there are more, say on stderr how to see them.

    Args:
        out: Destination.
        columns: Columns to show; the first is the ID.
        found: Query result.
        limit: Maximum number of rows; None means all.
        noun: Plural noun for the rows.
        as_row: Converts the fields of each row before it is shown.
    """
    rows = found.rows(None if limit is None else limit + 1)  # one extra, to see if there are more
    last: Any = None

    def shown() -> Iterator[Row]:
        nonlocal last
        for each in islice(rows, limit):
            row = as_row(vars(each))
            last = row["id"]
            yield row

    out.rows(columns, shown(), empty=f"no {noun} found")
    if limit is not None and next(rows, None) is not None:
        out.info(f"{limit:,} of {found.count():,} {noun} shown")
        out.hint(f"See them all with --all, or the next with --after {last}.")
