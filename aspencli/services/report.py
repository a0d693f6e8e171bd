"""The report of a bulk change: one row a line, with its outcome."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path
from types import TracebackType
from typing import Self

from aspencli.errors import AspenError, BadInputError
from aspencli.services.writing import why_not
from db.bulk.rename_types import AssessedRow, Problem

COLUMNS = ("line", "private_identifier", "before", "after", "outcome", "reason")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_Line = tuple[int, str, str, str, str, str]


class ReportFile:
    """A report that appears under its name only when it is complete, and what it tells is true.

    It is opened before anything is done, so that a place which cannot be written to is found out
    in time; it is written before the change is committed, and published after.

    Args:
        path: Where it shall be; what is there is replaced.

    Raises:
        BadInputError: There is something that is no file.
        AspenError: Nothing can be written there.
    """

    def __init__(self, path: Path):
        self._path = path.expanduser()
        if self._path.exists() and not self._path.is_file():
            raise BadInputError(
                f"the report {path} is no file", hint="Name a file; it is made or replaced."
            )
        self._target = self._path.resolve()  # a link stays a link
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                "w+", encoding="utf-8", newline="", dir=self._target.parent, delete=False
            )
        except OSError as error:
            raise self._unwritable(error, "nothing was written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

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
            (row.line, row.private_identifier, row.before or "", row.after, *_told(row, changed))
            for row in rows
            if row.reason or not bad_only
        )
        bad: Iterator[_Line] = ((p.line, "", "", "", "refused", reason_of(p)) for p in faults)
        try:
            self._file.seek(0)
            self._file.truncate()
            writer = csv.writer(self._file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(map(_harmless, merge(lines, bad, key=lambda line: line[0])))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error, "nothing was written") from error

    def publish(self) -> Path:
        """Give it its name."""
        try:
            Path(self._file.name).replace(self._target)
        except OSError as error:
            raise self._unwritable(error, "the change itself is complete") from error
        return self._path

    def _unwritable(self, error: OSError, state: str) -> AspenError:
        return AspenError(
            f"the report {self._path} cannot be written: {why_not(self._target, error)}; {state}",
            hint="Make room or mend permissions, or name another place with --report.",
        )


def reason_of(problem: Problem) -> str:
    """Column and reason as one text."""
    return f"{problem.column}: {problem.reason}" if problem.column else problem.reason


def _told(row: AssessedRow, changed: str) -> tuple[str, str]:
    """Outcome and reason."""
    if row.reason:
        return "left alone" if row.left_out else "refused", row.reason
    return "already so" if row.before == row.after else changed, ""


def _harmless(cells: Iterable[object]) -> list[object]:
    """What neither a terminal obeys nor a spreadsheet computes."""
    return [_text(cell) if isinstance(cell, str) else cell for cell in cells]


def _text(cell: str) -> str:
    safe = cell if cell.isprintable() else _CONTROL.sub(_escape, cell)
    return f"'{safe}" if safe.startswith(_FORMULA) else safe


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
