"""Reading tables as operators have them: streamed, and with every bad line named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from aspencli.errors import BadInputError
from aspencli.services.decoding import Fault
from aspencli.services.delimited import open_delimited
from aspencli.services.opening import Observer, open_bytes
from aspencli.services.sniffing import is_zip


class Table(Protocol):
    """A table that is being read, whatever it is stored as.

    Attributes:
        header: The names of its columns, stripped.
        header_line: The line that the header stands on.
        columns: The positions of the columns that are used, once somebody knows them.
        days: The positions of those in which days are meant.
        blank_lines: How many blank lines were skipped so far.
    """

    header: list[str]
    header_line: int
    columns: Sequence[int]
    days: Sequence[int]
    blank_lines: int

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def notes(self) -> list[str]:
        """What the operator should know of how it is read; complete when all of it is."""

    @property
    def delimiter(self) -> str:
        """What stands between its cells, or between their names where those are listed."""

    @property
    def remedy(self) -> str | None:
        """What to do about the cells that could not be read; None as long as there is none."""

    def records(self, fault: Callable[[Fault], None]) -> Iterator[tuple[int, list[str]]]:
        """Each record with the number of its first line; faults go to the function given."""

    def is_told(self, value: str) -> bool:
        """Whether it holds what could not be read, and a fault has told that already."""


@contextmanager
def open_table(
    path: str,
    observe: Observer | None = None,
    /,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    preamble: str | None = None,
) -> Iterator[Table]:
    """Open a table, or standard input for ``-``: delimited text or a workbook, by its content.

    Commas, tabs, semicolons or vertical bars may stand between the cells of a text; it may be
    compressed with gzip. Whatever is not plain CSV is noted. Spaces before a cell are passed over.

    Args:
        path: The file's path.
        observe: Is handed the file's bytes as they are stored, while they are read.
        encoding: How the bytes of a text are read, instead of what is found out.
        delimiter: What stands between its cells, instead of what is found out.
        sheet: The name or number of a workbook's sheet, instead of the one that is shown first.
        preamble: How the line starts that stands before the header of a text, and is passed over.
            Cells of such a file are taken as they are.

    Raises:
        BadInputError: It cannot be opened, or is no table.
    """
    with open_bytes(path, observe) as opened:
        if is_zip(opened.stream.peek()):
            from aspencli.services.workbook import open_workbook

            _refuse(opened.name, "is a workbook", {"encoding": encoding, "delimiter": delimiter})
            with open_workbook(opened, sheet) as table:
                yield table
        else:
            _refuse(opened.name, "is a text", {"sheet": sheet})
            yield open_delimited(opened, encoding, delimiter, preamble)


def _refuse(name: str, what: str, options: Mapping[str, str | None]) -> None:
    """Refuse options that say how another kind of file is read."""
    for option, value in options.items():
        if value is not None:
            raise BadInputError(
                f"{name} {what}, and has no {option}", hint=f"Leave --{option} out."
            )
