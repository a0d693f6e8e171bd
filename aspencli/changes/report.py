"""The files of a bulk run: the report, the rejects file, and the checksum of the input.

No file of a run may overwrite another. A report and a rejects file appear under their final names
only once they are complete. A rejects file has the format of the input, so that it can be fixed and
used again.
"""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Self

from aspen.database.bulk.spec import AssessedRow, Problem, ValueChange
from aspencli import files
from aspencli.changes.runs import InputFile
from aspencli.errors import AspenError, BadInputError
from aspencli.files import write_failure
from aspencli.tabular.damage import shown
from aspencli.tabular.source import STDIN
from aspencli.tabular.table import REJECTED, Table
from aspencli.tabular.writers import LONGEST_CELL, WRITERS, as_text, write_workbook
from aspencli.text import guard

_PLANNED, _DONE, _SKIPPED = "update", "updated", "skipped"
_BECOMES = {
    "create": {_PLANNED: "create", _DONE: "created"},
    "delete": {_PLANNED: "delete", _DONE: "deleted"},
}
_REJECTS_SUFFIXES = (".csv", ".tsv", ".xlsx")
_LOST = re.compile("[\ud800-\udfff]")  # bytes that could not be decoded

_Cells = tuple[tuple[str | None, ...], ValueChange | None]
_Line = tuple[Any, ...]  # the line number, then texts or None
_Record = tuple[int, list[str]]
_Row = list[int | str]


class Draft:
    """A file opened before any work is done, so that an unusable path is found in time.

    An existing file is replaced. The kind is the word for the file in messages, such as ``report``;
    the path must have one of the suffixes. Until it is published, ``file`` is a temporary file.

    Raises:
        BadInputError: The path exists and is not a file, or its suffix is not allowed.
        AspenError: The file cannot be created.
    """

    def __init__(self, path: Path, kind: str, suffixes: Collection[str]):
        self._kind = kind
        self._path = files.expand(path)
        if self._path.exists() and not self._path.is_file():
            raise BadInputError(
                f"The {kind} {path} is not a regular file.",
                hint="Give a file; it will be created or replaced.",
            )
        files.check_own(self._path)
        self._target = self._path.absolute()
        suffix = self._path.suffix.lower()
        self.suffix = suffix if suffix in suffixes else ""
        if not self.suffix:
            *others, last = suffixes
            raise BadInputError(
                f"Unsupported file type for the {kind}: {path} "
                f"(choose {', '.join(others)}, or {last})",
                hint=f"For example: {self._path.stem}{others[0]}",
            )
        try:
            files.make_folder(self._target.parent)
            self.file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                dir=self._target.parent, delete=False
            )
        except OSError as error:
            raise self.unwritable(error, "nothing was written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        try:
            self.file.close()
        except OSError:  # closing retries a write that failed because the disk was full
            if error is None:
                raise
        finally:
            Path(self.file.name).unlink(missing_ok=True)

    def publish(self) -> Path:
        """Move the file to its final path, and return that path."""
        try:
            Path(self.file.name).replace(self._target)
        except OSError as error:
            raise self.unwritable(error, "the change itself is complete") from error
        return self._path

    def unwritable(self, error: OSError, state: str) -> AspenError:
        """Return the error for a file that cannot be written; the state is the outcome in words."""
        option = self._kind.split(maxsplit=1)[0]
        reason = write_failure(self._target, error)
        return AspenError(
            f"Cannot write the {self._kind} {self._path}: {reason}; {state}.",
            hint=f"Free disk space or fix the permissions, or choose another path with --{option}.",
        )


class Fingerprint:
    """The path, size, and SHA-256 of the bytes that a run has read."""

    def __init__(self, given: str):
        self._given = given
        self._size = 0
        self._digest = hashlib.sha256()

    def take(self, piece: bytes) -> None:
        """Add bytes, in the order in which they are read."""
        self._size += len(piece)
        self._digest.update(piece)

    @property
    def file(self) -> InputFile:
        """Return the file's details, as far as it has been read."""
        path = None if self._given == STDIN else _absolute(self._given)
        return InputFile(self._given, path, self._size, self._digest.hexdigest())


def _absolute(given: str) -> str:
    # Symbolic links are not resolved, because the operator knows the file by this name.
    return os.path.abspath(files.expand(given))  # noqa: PTH100 - Path leaves .. in


@dataclass(frozen=True)
class ReportForm:
    """The columns of a report between the line and the outcome."""

    columns: tuple[str, ...]
    # The values of the columns, one tuple per report row, along with the change that it describes,
    # if any.
    cells: Callable[[AssessedRow], Iterable[_Cells]]

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of all columns."""
        return ("line", *self.columns, "outcome", "reason")


def _change(row: AssessedRow) -> Iterable[_Cells]:
    (change,) = row.changes
    return [((row.key, change.before, change.after), change)]


def _each_change(row: AssessedRow) -> Iterable[_Cells]:
    return [((row.key, each.column, each.before, each.after), each) for each in row.changes] or [
        ((row.key, None, None, None), None)
    ]


def _each_placed(row: AssessedRow) -> Iterable[_Cells]:
    return [((cells[0], row.within, *cells[1:]), each) for cells, each in _each_change(row)]


RENAMES = ReportForm(("private_identifier", "before", "after"), _change)
"""One row per line: a sample's name before and after."""
CHANGES = ReportForm(("key", "column", "before", "after"), _each_change)
"""One row per value that a line sets."""


PLACED = ReportForm(("key", "group", "column", "before", "after"), _each_placed)
"""The same, with a column for the group that a value belongs to."""


class ReportFile(Draft):
    """A report in CSV, JSON, or workbook format, by its suffix; always matches what was done.

    It is opened before anything is done, written before the change is committed, and published
    afterward.

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

        Rows and faults (the problems of unreadable rows) are ordered by line. Changed rows get the
        outcome ``update``, ``updated``, or, if the run failed, ``skipped``.
        """
        lines: Iterator[_Line] = (
            (row.line, *cells, *_outcome(row, change, changed))
            for row in rows
            if row.reason or not bad_only
            for cells, change in self._form.cells(row)
        )
        blank = (None,) * len(self._form.columns)
        bad: Iterator[_Line] = ((p.line, *blank, "failed", reason_of(p)) for p in faults)
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


def _outcome(row: AssessedRow, change: ValueChange | None, changed: str) -> tuple[str, str | None]:
    """Return the outcome and the reason for one row of the report."""
    if row.reason:
        skipped = "skip" if changed == _PLANNED else _SKIPPED
        return skipped if row.left_out else "failed", row.reason
    if row.becomes:
        return _BECOMES[row.becomes].get(changed, changed), None
    return "unchanged" if change is None or change.is_same else changed, None


@dataclass(frozen=True)
class Rejected:
    """The result of writing a rejects file."""

    path: Path
    rows: int  # the number in it
    others: int  # the number of bad lines left out because they cannot be split into cells


class RejectsFile(Draft):
    """A rejects file in the format of the mapping: delimited text or a workbook, by its suffix.

    The first two columns are the line and the reason; the mapping's own columns follow. When the
    file is used as a mapping, the first two are ignored as extra columns.

    Raises:
        BadInputError: The path is not a regular file, or its suffix is not supported.
        AspenError: It cannot be written.
    """

    def __init__(self, path: Path):
        super().__init__(path, "rejects file", _REJECTS_SUFFIXES)
        # The bad rows are known only after all rows are read, and a pipe can be read only once.
        self._kept = tempfile.TemporaryFile(  # noqa: SIM115 - closed by __exit__
            "w+", encoding="ascii", newline="\n"
        )
        self._header: list[str] = []
        self._delimiter = ","
        self._rows = self._others = 0

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._kept.close()
        super().__exit__(kind, error, trace)

    def keep(self, source: Table, records: Iterator[_Record]) -> Iterator[_Record]:
        """Yield the rows of a mapping unchanged, and store a copy of each."""
        self._header = source.header
        self._delimiter = "\t" if self.suffix == ".tsv" else source.delimiter.strip(" ")
        for line, record in records:
            json.dump([line, list(map(shown, record))], self._kept)
            self._kept.write("\n")
            yield line, record

    def write(self, problems: Iterable[Problem]) -> Rejected:
        """Write the rows that have problems (ordered by line), and publish the file.

        Raises:
            BadInputError: A cell is too long for a workbook.
            AspenError: The file cannot be written.
        """
        # A file that was itself a rejects file has these columns already.
        own = len(REJECTED) if tuple(self._header[: len(REJECTED)]) == REJECTED else 0
        columns = [*REJECTED, *self._header[own:]]
        bad = self._bad(problems)
        rows: Iterator[_Row] = ([line, reason, *record[own:]] for line, reason, record in bad)
        try:
            if self.suffix == ".xlsx":
                write_workbook(self.file, columns, map(_bounded, rows), _whole)
            else:
                with as_text(self.file, "utf-8-sig") as text:  # Excel needs the byte-order mark.
                    writer = csv.writer(text, delimiter=self._delimiter)
                    writer.writerow(columns)
                    writer.writerows(map(_guarded, rows))
            self.file.flush()
        except OSError as error:
            raise self.unwritable(error, "nothing was changed") from error
        return Rejected(self.publish(), self._rows, self._others)

    def _bad(self, problems: Iterable[Problem]) -> Iterator[tuple[int, str, list[str]]]:
        """Yield the line, the reasons, and the cells of each row that has problems."""
        self._kept.seek(0)
        kept = map(json.loads, self._kept)
        number, record = next(kept, (0, []))
        for line, found in groupby(problems, key=lambda problem: problem.line):
            reason = "; ".join(map(reason_of, found))
            while 0 < number < line:
                number, record = next(kept, (0, []))
            if number == line:
                self._rows += 1
                yield line, reason, record
            else:
                self._others += 1


def _guarded(row: _Row) -> _Row:
    return [guard(_whole(cell)) if isinstance(cell, str) else cell for cell in row]


def _whole(text: str) -> str:
    # When read again, a replacement character is reported as a problem until someone fixes it.
    return _LOST.sub("\ufffd", text)


def _bounded(row: _Row) -> _Row:
    longest = max(len(cell) for cell in row if isinstance(cell, str))
    if longest > LONGEST_CELL:
        raise BadInputError(
            f"A cell on line {row[0]:,} has {longest:,} characters (maximum in a workbook: "
            f"{LONGEST_CELL:,})",
            hint="Use a .csv file for --rejects.",
        )
    return row


class JobFiles:
    """The input and output files of one bulk run; the stack closes them.

    Raises:
        BadInputError: A file would overwrite another one, or the undo file already exists.
    """

    def __init__(
        self,
        stack: ExitStack,
        source: str,
        form: ReportForm,
        report: Path | None,
        undo: Path | None,
        rejects: Path | None = None,
    ):
        self._stack = stack
        self._form = form
        self.from_stdin = source == STDIN
        self.fingerprint = Fingerprint(source)
        self.undo = new_undo_file(undo)
        self._check(None if self.from_stdin else Path(source), report, rejects)
        self.report = stack.enter_context(ReportFile(report, form)) if report else None
        self.rejects = stack.enter_context(RejectsFile(rejects)) if rejects else None

    def _check(self, source: Path | None, report: Path | None, rejects: Path | None) -> None:
        taken = [files.expand(path).resolve() for path in (source, self.undo) if path]
        for kind, path in (("report", report), ("rejects file", rejects)):
            place = files.expand(path).resolve() if path else None
            if place in taken:
                raise BadInputError(
                    f"The {kind} {path} would overwrite another file of this run.",
                    hint=f"Choose another file with --{kind.split()[0]}.",
                )
            taken += [place] if place else []

    def overflow(self) -> ReportFile:
        """Open a report for a list that is too long for the screen."""
        return self._stack.enter_context(ReportFile(spare_path(), self._form))


def new_undo_file(given: Path | None) -> Path | None:
    """Return the path given for an undo file, or None for the default one.

    Raises:
        BadInputError: The file already exists.
    """
    path = files.expand(given) if given else None
    if path and (path.exists() or path.is_symlink()):
        raise BadInputError(
            f"The undo file {path} already exists.", hint="Give a file that does not exist."
        )
    return path


def spare_path() -> Path:
    """Return the default path for a list that is too long for the screen."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%fZ")
    return files.state_dir() / "reports" / f"{stamp}.csv"
