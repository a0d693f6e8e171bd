"""The report of a bulk run: each line of its file with its outcome."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import chain, islice
from pathlib import Path
from typing import Any

from aspencli.services.drafts import Draft
from aspencli.services.table_files import WRITERS
from db.bulk.rows import AssessedRow, Change, Problem

_Told = tuple[tuple[str | None, ...], Change | None]
_Line = tuple[Any, ...]  # the line number, then texts or None


@dataclass(frozen=True)
class ReportForm:
    """The columns of a report between the line and the outcome.

    Attributes:
        columns: Their names.
        cells: Returns their values, one tuple per report row, along with the change that the row
            describes, if any.
    """

    columns: tuple[str, ...]
    cells: Callable[[AssessedRow], Iterable[_Told]]

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of all columns."""
        return ("line", *self.columns, "outcome", "reason")


def _change(row: AssessedRow) -> Iterable[_Told]:
    (change,) = row.changes
    return [((row.key, change.before, change.after), change)]


def _each_change(row: AssessedRow) -> Iterable[_Told]:
    return [((row.key, each.column, each.before, each.after), each) for each in row.changes] or [
        ((row.key, None, None, None), None)
    ]


RENAMES = ReportForm(("private_identifier", "before", "after"), _change)
"""One row per line: a sample's name before and after."""
CHANGES = ReportForm(("key", "column", "before", "after"), _each_change)
"""One row per value that a line sets."""


def _each_placed(row: AssessedRow) -> Iterable[_Told]:
    return [((cells[0], row.within, *cells[1:]), each) for cells, each in _each_change(row)]


PLACED = ReportForm(("key", "group", "column", "before", "after"), _each_placed)
"""The same, with a column for the group that a value belongs to."""
_BECOMES = {
    "create": {"changed": "created", "would change": "would create"},
    "delete": {"changed": "deleted", "would change": "would delete"},
}


class ReportFile(Draft):
    """A report in CSV, JSON, or workbook format, by its suffix; always matches what was done.

    It is opened before anything is done, written before the change is committed, and published
    afterward.

    Args:
        path: The file to create or replace.
        form: Its columns.

    Raises:
        BadInputError: The path is not a regular file, or its suffix is not supported.
        AspenError: It cannot be written.
    """

    def __init__(self, path: Path, form: ReportForm):
        super().__init__(path, "report", tuple(WRITERS))
        self._form = form

    def write(
        self,
        rows: Iterable[AssessedRow],
        faults: Iterable[Problem],
        changed: str,
        *,
        bad_only: bool = False,
    ) -> None:
        """Write the outcome of every line, replacing what was written before.

        Args:
            rows: The readable rows of the file, ordered by line.
            faults: The problems of the other rows, ordered by line.
            changed: The outcome to report for changed rows.
            bad_only: True to leave out rows without problems.
        """
        lines: Iterator[_Line] = (
            (row.line, *cells, *_told(row, change, changed))
            for row in rows
            if row.reason or not bad_only
            for cells, change in self._form.cells(row)
        )
        blank = (None,) * len(self._form.columns)
        bad: Iterator[_Line] = ((p.line, *blank, "refused", reason_of(p)) for p in faults)
        try:
            self.file.seek(0)
            self.file.truncate()
            first = list(islice(bad, 1))  # Usually there is none, and nothing to merge.
            if first:
                lines = merge(lines, chain(first, bad), key=lambda line: line[0])
            WRITERS[self.suffix](self.file, self._form.header, lines)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self.unwritable(error, "nothing was written") from error


def reason_of(problem: Problem) -> str:
    """Format a problem's column and reason as one text."""
    return f"{problem.column}: {problem.reason}" if problem.column else problem.reason


def _told(row: AssessedRow, change: Change | None, changed: str) -> tuple[str, str | None]:
    """Return the outcome and the reason for one row of the report."""
    if row.reason:
        return "left alone" if row.left_out else "refused", row.reason
    if row.becomes:
        return _BECOMES[row.becomes].get(changed, changed), None
    return "already so" if change is None or change.is_same else changed, None
