"""The report of a bulk change: one row a line, with its outcome."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from aspencli.errors import AspenError
from db.bulk.renames import PlannedRow, Problem

COLUMNS = ("line", "private_identifier", "before", "after", "outcome", "reason")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ReportFile:
    """A report that appears under its name only when it is complete.

    It is opened before anything is done, so that a place which cannot be written to is found out
    in time.

    Args:
        path: Where it shall be; what is there is replaced.
    """

    def __init__(self, path: Path):
        self._path = path.expanduser()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                "w", encoding="utf-8", newline="", dir=self._path.parent, delete=False
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

    def write(self, rows: Iterable[PlannedRow], left_out: Iterable[Problem], changed: str) -> Path:
        """Write the outcome of every row.

        Args:
            rows: The plan.
            left_out: What was left alone, and why.
            changed: The outcome of the rows that change.
        """
        outcomes = {"change": changed, "same": "already so"}
        table: list[Iterable[Iterable[object]]] = [
            (
                (row.line, row.private_identifier, row.before, row.after, outcomes[row.action], "")
                for row in rows
            ),
            ((p.line, "", "", "", "left alone", p.reason) for p in left_out),
        ]
        return self._save(cells for part in table for cells in part)

    def refuse(self, problems: Iterable[Problem]) -> Path:
        """Write every problem of a mapping that was refused."""
        return self._save(
            (p.line, "", "", "", "refused", f"{p.column}: {p.reason}" if p.column else p.reason)
            for p in problems
        )

    def _save(self, table: Iterable[Iterable[object]]) -> Path:
        try:
            with self._file as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COLUMNS)
                writer.writerows(map(_guarded, table))
                file.flush()
                os.fsync(file.fileno())
            Path(self._file.name).replace(self._path)
        except OSError as error:
            raise self._unwritable(error, "the change itself is complete") from error
        return self._path

    def _unwritable(self, error: OSError, state: str) -> AspenError:
        return AspenError(
            f"the report {self._path} cannot be written: {error.strerror}; {state}",
            hint="Make room or mend permissions; the same command with --dry-run and --report "
            "can be run at any time.",
        )


def _guarded(cells: Iterable[object]) -> list[object]:
    # A spreadsheet would compute such text.
    return [f"'{c}" if isinstance(c, str) and c.startswith(_FORMULA) else c for c in cells]
