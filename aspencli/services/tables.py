"""Reading tables as operators have them: streamed, and with every bad line named."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from aspencli.errors import BadInputError
from aspencli.services.decoding import Fault
from aspencli.services.delimited import Delimited, open_delimited
from aspencli.services.opening import Observer, Opened, open_archive, open_bytes
from aspencli.services.sniffing import is_zip
from aspencli.services.templates import NONE, Template

if TYPE_CHECKING:
    from aspencli.services.workbook import Sheet


class Table(Protocol):
    """A table that is being read, whatever it is stored as.

    Attributes:
        header: The names of its columns, stripped.
        header_line: The line that the header stands on.
        columns: The positions of the columns that are used, once somebody knows them.
        ignored: The positions of the others, except those that are ignored on purpose.
        template: The template that it was made from, if any.
        days: The positions of those in which days are meant.
        blank_lines: How many blank lines were skipped so far.
    """

    header: list[str]
    header_line: int
    columns: Sequence[int]
    ignored: Sequence[int]
    template: Template | None
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

    def fit(self, line: int, record: list[str]) -> list[str] | None:
        """Return a row as wide as the header; None where that cannot be."""

    def column_of(self, place: int) -> str | None:
        """Return the column that its template has at a position; empty for a part of one."""

    def line_of(self, names: Collection[str]) -> int | None:
        """Return the line after the header that has all of these as cells, if any of the first."""

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
    skip_lines: int = 0,
    template: str = NONE,
) -> Iterator[Table]:
    """Open a table, or standard input for ``-``: delimited text or a workbook, by its content.

    Commas, tabs, semicolons or vertical bars may stand between the cells of a text. It may be
    compressed with gzip, bzip2, xz, or zstd, or be the one file in a zip archive. Whatever is not
    plain CSV is noted. Spaces before a cell are passed over.

    Args:
        path: The file's path.
        observe: Is handed the file's bytes as they are stored, while they are read.
        encoding: How the bytes of a text are read, instead of what is found out.
        delimiter: What stands between its cells, instead of what is found out.
        sheet: The name or number of a workbook's sheet, instead of the one that is shown first.
        preamble: How the line starts that stands before the header of a text, and is passed over.
            Cells of such a file are taken as they are.
        skip_lines: How many lines, or rows of a workbook, stand before the header.
        template: The template that it was made from; ``auto`` to find it out, ``none`` for none.

    Raises:
        BadInputError: It cannot be opened, or is no table.
    """
    with ExitStack() as stack:
        opened = stack.enter_context(open_bytes(path, observe))
        table: Delimited | Sheet | None = None
        if is_zip(opened.stream.peek()):
            found = stack.enter_context(open_archive(opened))
            if isinstance(found, Opened):
                opened = found
                if is_zip(opened.stream.peek()):  # a workbook in an archive
                    found = stack.enter_context(open_archive(opened))
            if not isinstance(found, Opened):
                from aspencli.services.workbook import open_workbook

                _refuse(
                    opened.name, "is a workbook", {"encoding": encoding, "delimiter": delimiter}
                )
                table = stack.enter_context(open_workbook(opened, found, sheet, skip_lines))
            elif found is not opened:
                raise BadInputError(
                    f"{opened.name} is a zip archive in a zip archive",
                    hint="Unpack it, and give the file that is in it.",
                )
        if table is None:
            _refuse(opened.name, "is a text", {"sheet": sheet})
            table = open_delimited(opened, encoding, delimiter, preamble, skip_lines)
        table.use_template(template)
        yield table


def _refuse(name: str, what: str, options: Mapping[str, str | None]) -> None:
    """Refuse options that say how another kind of file is read."""
    for option, value in options.items():
        if value is not None:
            raise BadInputError(
                f"{name} {what}, and has no {option}", hint=f"Leave --{option} out."
            )
