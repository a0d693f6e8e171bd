"""A report of what became of each thing, printed even where the run ends in the middle."""

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
    """Print the rows that were put into the list, when all is done or something went wrong.

    Args:
        out: Where to.
        columns: What to show.
        total: How many there are to be.
        done: What has become of those in the list, such as ``samples deleted``.
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
