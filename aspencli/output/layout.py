"""Tables that keep one line a row: what has room to give is cut, identifiers are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table

from aspencli.output.rendering import Column, Row, table_cell

_GAP = 2  # between two columns
_LEAST = 8  # a column is not cut shorter than this
_READABLE = 14  # secondary columns go before another is cut shorter than this


def make_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """A table that fits the width where that can be done without cutting an identifier.

    Secondary columns are left out before the others are cut beyond recognition.
    """
    cells = {c.key: [table_cell(row[c.key]) for row in rows] for c in columns}
    natural = {c.key: max(map(cell_len, [c.title, *cells[c.key]])) for c in columns}
    shown = list(columns)
    if (_cut(shown, natural, width) or 0) < _READABLE:
        shown = [column for column in columns if not column.secondary]
    limit = _cut(shown, natural, width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in shown:
        # Where even the identifiers do not fit, they are folded: no character is lost.
        fits = limit is not None
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=fits,
            overflow="ellipsis" if fits else "fold",
            max_width=None if column.whole else limit,
        )
    for number in range(len(rows)):
        table.add_row(*(cells[column.key][number] for column in shown))
    return table


def _cut(columns: Sequence[Column], natural: Mapping[str, int], width: int) -> int | None:
    """The greatest width to cut the flexible columns to; None when there is none that does."""
    room = width - _GAP * (len(columns) - 1) - sum(natural[c.key] for c in columns if c.whole)
    flexible = [natural[column.key] for column in columns if not column.whole]
    limit = max([_READABLE, *flexible])
    while sum(min(natural, limit) for natural in flexible) > room:
        limit -= 1
        if limit < _LEAST:
            return None
    return limit
