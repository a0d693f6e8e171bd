"""The report of a bulk change: one row a line, with its outcome."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path

from aspencli.services.drafts import Draft
from aspencli.services.table_files import WRITERS
from db.bulk.rename_types import AssessedRow, Problem

COLUMNS = ("line", "private_identifier", "before", "after", "outcome", "reason")

_Line = tuple[int, str | None, str | None, str | None, str, str | None]


class ReportFile(Draft):
    """A report in CSV, JSON or a workbook, by its suffix; what it tells is true.

    It is opened before anything is done, written before the change is committed, and published
    after.

    Args:
        path: Where it shall be; what is there is replaced.

    Raises:
        BadInputError: There is something that is no file, or the suffix is another.
        AspenError: Nothing can be written there.
    """

    def __init__(self, path: Path):
        super().__init__(path, "report", tuple(WRITERS))

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
            rows: The rows of the mapping that could be read, by line.
            faults: What was wrong with the others, by line.
            changed: The outcome of the rows that are, or were to be, changed.
            bad_only: Leave out the rows that have no fault.
        """
        lines: Iterator[_Line] = (
            (row.line, row.private_identifier, row.before, row.after, *_told(row, changed))
            for row in rows
            if row.reason or not bad_only
        )
        bad: Iterator[_Line] = ((p.line, None, None, None, "refused", reason_of(p)) for p in faults)
        try:
            self.file.seek(0)
            self.file.truncate()
            merged = merge(lines, bad, key=lambda line: line[0])
            WRITERS[self.suffix](self.file, COLUMNS, merged)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise self.unwritable(error, "nothing was written") from error


def reason_of(problem: Problem) -> str:
    """Column and reason as one text."""
    return f"{problem.column}: {problem.reason}" if problem.column else problem.reason


def _told(row: AssessedRow, changed: str) -> tuple[str, str | None]:
    """Outcome and reason."""
    if row.reason:
        return "left alone" if row.left_out else "refused", row.reason
    return "already so" if row.before == row.after else changed, None
