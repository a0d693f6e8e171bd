"""A report of the outcome of each item, printed even if the run fails partway."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aspencli.errors import UncertainError
from aspencli.output.console import Output
from aspencli.output.rendering import Column, Row


@contextmanager
def item_report(
    out: Output, columns: Sequence[Column], total: int, done: str
) -> Iterator[list[Row]]:
    """Print the rows collected in the list, at the end or when an error occurs.

    Args:
        out: Destination.
        columns: Columns to show.
        total: Expected number of rows.
        done: Outcome of the rows in the list, such as ``samples deleted``.
    """
    rows: list[Row] = []
    try:
        yield rows
    except BaseException as error:
        if rows:
            out.rows(columns, rows)
            out.warn(f"{len(rows):,} of {total:,} {done} before that; they are listed")
        if isinstance(error, (KeyboardInterrupt, UncertainError)):
            out.warn("what was being sent may have been done, too: look before you do it again")
        raise
    out.rows(columns, rows)
