"""Tables with one line per row: flexible columns are truncated, identifiers are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.table import Table

from aspencli.cli.output.formats import Column, Row, table_cell

_GAP = 2  # between two columns
_LEAST = 8  # a column is never cut shorter than this
_READABLE = 14  # secondary columns are dropped before another is cut shorter than this


class Layout:
    """A table that fits the width where possible without truncating an identifier.

    Secondary columns are dropped before the others are cut beyond recognition. Rows may be added
    in parts; the first part determines which columns are shown.

    Args:
        columns: Columns of the table.
        width: Maximum width, in characters.
    """

    def __init__(self, columns: Sequence[Column], width: int):
        self._columns = list(columns)
        self._width = width
        self._natural = {column.key: cell_len(column.title) for column in columns}
        self._is_begun = False

    def part(self, rows: Sequence[Row]) -> Table:
        """Return the next rows, no narrower than earlier ones; only the first have a heading."""
        cells = {c.key: [table_cell(row[c.key]) for row in rows] for c in self._columns}
        for key, texts in cells.items():
            self._natural[key] = max(self._natural[key], *map(cell_len, texts))
        if not self._is_begun:
            self._leave_out()
        limit = _cut(self._columns, self._natural, self._width)
        table = Table(box=None, header_style="bold", pad_edge=False, show_header=not self._is_begun)
        for column in self._columns:
            # Where even the identifiers do not fit, they wrap, so that no character is lost.
            fits = limit is not None
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=fits,
                overflow="ellipsis" if fits else "fold",
                max_width=None if column.whole else limit,
                min_width=self._least(column, limit),
            )
        for number in range(len(rows)):
            table.add_row(*(cells[column.key][number] for column in self._columns))
        self._is_begun = True
        return table

    def _leave_out(self) -> None:
        if (_cut(self._columns, self._natural, self._width) or 0) < _READABLE:
            self._columns = [column for column in self._columns if not column.secondary]

    def _least(self, column: Column, limit: int | None) -> int | None:
        """Return the minimum width of a column in later parts."""
        if not self._is_begun or limit is None:
            return None
        natural = self._natural[column.key]
        return natural if column.whole else min(natural, limit)


def _cut(columns: Sequence[Column], natural: Mapping[str, int], width: int) -> int | None:
    """Return the largest width for flexible columns that fits, or None if there is none."""
    room = width - _GAP * (len(columns) - 1) - sum(natural[c.key] for c in columns if c.whole)
    flexible = [natural[column.key] for column in columns if not column.whole]
    limit = max([_READABLE, *flexible])
    while sum(min(natural, limit) for natural in flexible) > room:
        limit -= 1
        if limit < _LEAST:
            return None
    return limit
