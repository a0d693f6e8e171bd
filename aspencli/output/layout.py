"""Tables that keep one line a row: what has room to give is cut, identifiers are not."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.table import Table

from aspencli.output.rendering import Column, Row, table_cell

_GAP = 2  # between two columns
_LEAST = 8  # a column is not cut shorter than this


def make_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """A table that fits the width where that can be done without cutting an identifier."""
    cells = [[table_cell(row[column.key]) for column in columns] for row in rows]
    widths = _fit(columns, [_natural(c, i, cells) for i, c in enumerate(columns)], width)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, limit in zip(columns, widths, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=limit is not None,
            overflow="ellipsis" if limit is not None else "fold",
            max_width=limit,
        )
    for row in cells:
        table.add_row(*row)
    return table


def _natural(column: Column, index: int, cells: list[list[str]]) -> int:
    return max([cell_len(column.title), *(cell_len(row[index]) for row in cells)])


def _fit(columns: Sequence[Column], natural: list[int], width: int) -> list[int | None]:
    """The width of each column; None where even the identifiers have to be folded."""
    room = width - _GAP * (len(columns) - 1)
    kept = sum(n for c, n in zip(columns, natural, strict=True) if c.whole)
    flexible = [n for c, n in zip(columns, natural, strict=True) if not c.whole]
    limit = _level(flexible, room - kept)
    if limit is None:
        return [None] * len(columns)
    return [n if c.whole else min(n, limit) for c, n in zip(columns, natural, strict=True)]


def _level(widths: list[int], room: int) -> int | None:
    """The greatest limit with which all widths together fit the room; None when none does."""
    limit = max(widths, default=_LEAST)
    while sum(min(w, limit) for w in widths) > room:
        limit -= 1
        if limit < _LEAST:
            return None
    return limit
