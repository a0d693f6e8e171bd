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
_Line = tuple[Any, ...]  # the number of the line, then texts or nothing


@dataclass(frozen=True)
class ReportForm:
    """Which columns a report has between the line and the outcome.

    Attributes:
        columns: Their names.
        cells: What stands there: one tuple for each row of the report, with the change that it
            is about, if it is about one.
    """

    columns: tuple[str, ...]
    cells: Callable[[AssessedRow], Iterable[_Told]]

    @property
    def header(self) -> tuple[str, ...]:
        """The names of all columns."""
        return ("line", *self.columns, "outcome", "reason")


def _change(row: AssessedRow) -> Iterable[_Told]:
    (change,) = row.changes
    return [((row.key, change.before, change.after), change)]


def _each_change(row: AssessedRow) -> Iterable[_Told]:
    return [((row.key, each.column, each.before, each.after), each) for each in row.changes] or [
        ((row.key, None, None, None), None)
    ]


RENAMES = ReportForm(("private_identifier", "before", "after"), _change)
"""One row for each line: what a sample was named, and what it is to be named."""
CHANGES = ReportForm(("key", "column", "before", "after"), _each_change)
"""One row for each value that a line names."""


def _each_placed(row: AssessedRow) -> Iterable[_Told]:
    return [((cells[0], row.within, *cells[1:]), each) for cells, each in _each_change(row)]


PLACED = ReportForm(("key", "group", "column", "before", "after"), _each_placed)
"""The same, where some values lie in groups."""
_BECOMES = {
    "create": {"changed": "created", "would change": "would create"},
    "delete": {"changed": "deleted", "would change": "would delete"},
}


class ReportFile(Draft):
    """A report in CSV, JSON or a workbook, by its suffix; what it tells is true.

    It is opened before anything is done, written before the change is committed, and published
    after.

    Args:
        path: Where it shall be; what is there is replaced.
        form: Its columns.

    Raises:
        BadInputError: There is something that is no file, or the suffix is another.
        AspenError: Nothing can be written there.
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
        """Write the outcome of every line, in place of what was written before.

        Args:
            rows: The rows of the file that could be read, by line.
            faults: What was wrong with the others, by line.
            changed: The outcome of the rows that are, or were to be, changed.
            bad_only: Leave out the rows that have no fault.
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
            first = list(islice(bad, 1))  # mostly there is none, and nothing to be merged
            if first:
                lines = merge(lines, chain(first, bad), key=lambda line: line[0])
            WRITERS[self.suffix](self.file, self._form.header, lines)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self.unwritable(error, "nothing was written") from error


def reason_of(problem: Problem) -> str:
    """Column and reason as one text."""
    return f"{problem.column}: {problem.reason}" if problem.column else problem.reason


def _told(row: AssessedRow, change: Change | None, changed: str) -> tuple[str, str | None]:
    """Return the outcome of a cell, and the reason."""
    if row.reason:
        return "left alone" if row.left_out else "refused", row.reason
    if row.becomes:
        return _BECOMES[row.becomes].get(changed, changed), None
    return "already so" if change is None or change.is_same else changed, None
