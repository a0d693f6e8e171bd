"""The first rows of a result, and how many more there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

from aspencli.output.console import Output
from aspencli.output.rendering import Column, Row


class Found(Protocol):
    """What a query found, in an order that can be gone on with behind an id."""

    def rows(self, limit: int | None) -> Iterator[Any]:
        """The rows one by one; all of them when there is no limit."""

    def count(self) -> int:
        """How many there are in all."""


def show_page(
    out: Output,
    columns: Sequence[Column],
    found: Found,
    limit: int | None,
    *,
    noun: str,
    as_row: Callable[[Row], Row] = dict,
) -> None:
    """Show the first rows as they come; when there are more, say on stderr how to see them.

    Args:
        out: Where to.
        columns: What to show; the first is the id.
        found: What was found.
        limit: At most so many rows; None means all.
        noun: What the rows are, in the plural.
        as_row: What is done to the fields of each row before it is shown.
    """
    rows = found.rows(None if limit is None else limit + 1)  # one more tells whether there are more
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
