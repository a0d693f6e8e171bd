"""Write the bad rows of a mapping file in its own format, to be fixed and used again."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import TracebackType

from aspencli.errors import BadInputError
from aspencli.services.delimited import REJECTED
from aspencli.services.drafts import Draft
from aspencli.services.guards import guard
from aspencli.services.report import reason_of
from aspencli.services.table_files import LONGEST_CELL, as_text, write_workbook
from aspencli.services.tables import Table
from aspencli.services.unusable import shown
from db.bulk.rows import Problem

_SUFFIXES = (".csv", ".tsv", ".xlsx")
_LOST = re.compile("[\ud800-\udfff]")  # bytes that could not be decoded

_Record = tuple[int, list[str]]
_Row = list[int | str]


@dataclass(frozen=True)
class Rejected:
    """The result of writing a rejects file.

    Attributes:
        path: The file.
        rows: The number of rows in it.
        others: The number of bad lines left out because they cannot be split into cells.
    """

    path: Path
    rows: int
    others: int


class RejectsFile(Draft):
    """A rejects file in the format of the mapping: delimited text or a workbook, by its suffix.

    The first two columns are the line and the reason; the mapping's own columns follow. When the
    file is used as a mapping, the first two are ignored as extra columns.

    Args:
        path: The file to create or replace.

    Raises:
        BadInputError: The path is not a regular file, or its suffix is not supported.
        AspenError: It cannot be written.
    """

    def __init__(self, path: Path):
        super().__init__(path, "rejects file", _SUFFIXES)
        # The bad rows are known only after all rows are read, and a pipe can be read only once.
        self._kept = tempfile.TemporaryFile(  # noqa: SIM115 - closed by __exit__
            "w+", encoding="ascii", newline="\n"
        )
        self._header: list[str] = []
        self._delimiter = ","
        self._rows = self._others = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
        """Write the rows that have problems, and publish the file.

        Args:
            problems: The problems, ordered by line.

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
            f"a cell of line {row[0]:,} has {longest:,} characters, and a workbook takes "
            f"{LONGEST_CELL:,}",
            hint="Name a .csv file with --rejects.",
        )
    return row
