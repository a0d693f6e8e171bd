"""Read operators' tables as a stream, whatever their format, reporting every bad line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

from aspencli.errors import BadInputError
from aspencli.tabular.delimited import Delimited, Fault, open_delimited
from aspencli.tabular.reading import NONE, Template
from aspencli.tabular.source import Observer, Opened, is_zip, open_archive, open_bytes

if TYPE_CHECKING:
    from aspencli.tabular.xlsx import Sheet


class Table(Protocol):
    """A table that is being read, in any file format.

    Attributes:
        header: The column names, stripped.
        header_line: The line number of the header.
        columns: The positions of the columns in use, once known.
        ignored: The positions of the others, except those ignored on purpose.
        template: The template that the file was made from, if any.
        days: The positions of the date columns.
        blank_lines: The number of blank lines skipped so far.
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
        """Return its name in messages."""

    @property
    def notes(self) -> list[str]:
        """Return notes for the operator on how it is read; complete once all of it is read."""

    @property
    def delimiter(self) -> str:
        """Return the delimiter between its cells, or between column names in messages."""

    @property
    def remedy(self) -> str | None:
        """Return what to do about the unreadable cells so far, or None if there are none."""

    def records(self, fault: Callable[[Fault], None]) -> Iterator[tuple[int, list[str]]]:
        """Yield each record with the number of its first line; report problems to ``fault``."""

    def fit(self, line: int, record: list[str]) -> list[str] | None:
        """Return a row as wide as the header, or None if that is impossible."""

    def column_of(self, place: int) -> str | None:
        """Return the template's column for a position, or "" for one part of a joined column."""

    def line_of(self, names: Collection[str]) -> int | None:
        """Return an early line after the header that has all these names as cells, if any."""

    def is_reported(self, value: str) -> bool:
        """Return True if the value is unreadable and already reported as a fault."""


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

    Text may be delimited by commas, tabs, semicolons, or vertical bars. The file may be
    compressed with gzip, bzip2, xz, or zstd, or be the only file in a zip archive. Anything but
    plain CSV is noted. Spaces before a cell are ignored.

    Args:
        path: The file's path.
        observe: Called with each chunk of the file as stored, while it is read.
        encoding: The encoding of a text, instead of the detected one.
        delimiter: The delimiter of a text, instead of the detected one.
        sheet: The name or number of a workbook's sheet, instead of the one shown first.
        preamble: The start of the line before the header of a text, which is skipped.
            Cells of such a file are taken literally.
        skip_lines: The number of lines, or workbook rows, before the header.
        template: The template that it was made from; ``auto`` to detect it, ``none`` for none.

    Raises:
        BadInputError: It cannot be opened, or is not a table.
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
                from aspencli.tabular.xlsx import open_workbook

                _refuse(
                    opened.name, "is a workbook", {"encoding": encoding, "delimiter": delimiter}
                )
                table = stack.enter_context(open_workbook(opened, found, sheet, skip_lines))
            elif found is not opened:
                raise BadInputError(
                    f"{opened.name} is a zip archive in another zip archive.",
                    hint="Extract it, then give the file in it.",
                )
        if table is None:
            _refuse(opened.name, "is a text file", {"sheet": sheet})
            table = open_delimited(opened, encoding, delimiter, preamble, skip_lines)
        table.use_template(template)
        yield table


def _refuse(name: str, what: str, options: Mapping[str, str | None]) -> None:
    """Reject options that apply to another kind of file."""
    for option, value in options.items():
        if value is not None:
            raise BadInputError(
                f"{name} {what}, so --{option} does not apply.", hint=f"Remove --{option}."
            )
