"""Reading delimited text, record by record; a bad one does not take others with it."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from aspencli.errors import BadInputError
from aspencli.services.decoding import Fault, Text, as_text
from aspencli.services.guards import unguard
from aspencli.services.opening import Opened
from aspencli.services.reading import Reading, Record

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
# Characters; the genome of a poxvirus fits, and an unclosed quote does not take the whole file.
_LARGEST_CELL = 1 << 20
# Bytes of a record, whose quoted cells may take any number of lines; all of it is in memory, and
# each of its lines with what Python needs for a string.
_LARGEST_RECORD = 1 << 22
_STRING = 50
_LOOKED_AT = 50  # lines in which the header is looked for where the first one is none
_MOST_COLUMNS = 16_384  # as in a spreadsheet; it is compared with every name that is looked for
# How Excel says in the first line what separates the cells of the others.
_SAYS_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[ \t,;|]*(?:\r|\n)', re.IGNORECASE)
REJECTED = ("line", "reason")
"""The first columns of a rejects file, which hold what is not of the mapping."""
_TOO_LARGE = "field larger"  # the words of csv's errors
_UNCLOSED = "unexpected end of data"


class Delimited(Reading):
    """A delimited text file that is being read.

    Args:
        text: The file.
        delimiter: What stands between its cells.
        lines: The file's lines, or what a test takes for them.
        skip_spaces: Whether spaces before a cell are no part of it.

    """

    def __init__(self, text: Text, delimiter: str, lines: Iterator[str], *, skip_spaces: bool):
        super().__init__()
        self.text = text
        self.delimiter = delimiter
        self._is_guarded = False
        self._skip_spaces = skip_spaces
        self._lines = lines
        self._read = 0  # lines before those of the present reader
        self._recent: list[str] = []  # the lines of the present record
        self._again: deque[str] = deque()  # lines that are read a second time
        self._restart()

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.text.name

    @property
    def notes(self) -> list[str]:
        """What the operator should know of how it is read."""
        return self.text.notes

    @property
    def remedy(self) -> str | None:
        """What to do about the cells that could not be read; None as long as there is none."""
        return self.text.remedy

    def is_told(self, value: str) -> bool:
        """Whether it holds bytes that could not be read, which a fault has told already."""
        return self.text.is_damaged(value)

    def skip_line(self) -> None:
        """Pass the next line over."""
        next(self._lines, None)
        self._read += 1

    def unguard(self) -> None:
        """Take the apostrophes away that keep a spreadsheet from computing the cells."""
        self._is_guarded = True

    def records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Each record with the number of its first line; faults go to the function given."""
        records = self._records(fault)
        return self.watched(map(_unguarded, records) if self._is_guarded else records)

    def first_records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the records as they are, the header among them."""
        return self._records(fault)

    def line_of(self, names: Collection[str]) -> int | None:
        """Return the line after the header, of the first ones, that has all of these as cells."""
        for number, line in enumerate(self.text.head.splitlines()[:_LOOKED_AT], start=1):
            cells = {cell.strip().strip('"').lower() for cell in re.split("[,;|\t]", line)}
            if number > self.header_line and all(name in cells for name in names):
                return number
        return None

    def _records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        recent, bad = self._recent, self.text.bad
        while True:  # a mended error goes on with another reader
            reader, read = self._reader, self._read + 1
            start = read + reader.line_num
            recent.clear()
            try:
                for record in reader:
                    while bad:
                        fault(bad.pop(0))
                    if record and (record[0].strip() or any(map(str.strip, record))):
                        yield start, record
                    else:
                        self.blank_lines += 1
                    start = read + reader.line_num
                    recent.clear()
            except csv.Error as error:
                while bad:
                    fault(bad.pop(0))
                fault(self._mend(error, start))
            else:
                return

    def _restart(self) -> None:
        self._reader: Any = csv.reader(
            self._numbered(),
            strict=True,
            delimiter=self.delimiter,
            skipinitialspace=self._skip_spaces,
        )

    def _numbered(self) -> Iterator[str]:
        recent, again = self._recent, self._again
        while again:
            recent.append(again[0])
            yield again.popleft()
        length = 0
        for line in self._lines:
            length = (length if recent else 0) + len(line) + _STRING
            if length > _LARGEST_RECORD:
                raise self._endless()
            recent.append(line)
            yield line

    def _endless(self) -> BadInputError:
        number = self._read + self._reader.line_num - len(self._recent) + 1
        return BadInputError(
            f"line {number:,} of {self.name} begins a row that does not end within "
            f"{len(self._recent):,} lines",
            hint="Look for a quote on that line that is opened and never closed.",
        )

    def _mend(self, error: csv.Error, start: int) -> Fault:
        """What was wrong; where a quote took lines that are not its own, they are read again."""
        message, last = str(error), start + len(self._recent) - 1
        offset, is_open = _last_quote(self._recent, self.delimiter)
        opened = start + offset
        if _UNCLOSED in message or (_TOO_LARGE in message and is_open):
            fault = Fault(opened, "", "a quote opened on this line is never closed")
        elif _TOO_LARGE in message:
            fault = Fault(opened, "", f"a cell has more than {_LARGEST_CELL:,} characters")
        elif "expected after" in message:
            where = (
                f", which opened on this line and closed on line {last}" if last > opened else ""
            )
            fault = Fault(opened, "", f"text stands after the closing quote of a cell{where}")
        else:
            fault = Fault(start, "", message)
        self._again.extendleft(reversed(self._recent[offset + 1 :]))
        self._read = opened
        self._restart()
        return fault


def open_delimited(
    opened: Opened,
    encoding: str | None,
    delimiter: str | None,
    preamble: str | None,
    skip_lines: int = 0,
) -> Delimited:
    """Read delimited text; its parameters are those of `aspencli.services.tables.open_table`.

    Raises:
        BadInputError: It is no such text.
    """
    csv.field_size_limit(_LARGEST_CELL)
    text = as_text(opened, encoding)
    head = "".join(text.head.splitlines(keepends=True)[skip_lines:])
    says = None if preamble else _SAYS_SEPARATOR.match(head)
    chosen = delimiter or (says[1] if says else _guess_delimiter(head))
    if delimiter is None and chosen != ",":
        text.notes.append(f"cells are separated by a {_DELIMITERS[chosen]}")
    source = Delimited(text, chosen, text.lines(), skip_spaces=not preamble)
    for _line in range(skip_lines + bool(preamble or says)):
        source.skip_line()
    if skip_lines:
        text.notes.append(f"lines skipped before the header: {skip_lines:,}")
    if not text.notes:
        text.notes.append(f"read as {'CSV' if chosen == ',' else 'text'} in UTF-8")
    _take_header(source)
    if tuple(source.header[: len(REJECTED)]) == REJECTED:
        source.unguard()
        text.notes.append("a rejects file: apostrophes before =, +, -, @ and ' are taken away")
    return source


def _unguarded(row: tuple[int, list[str]]) -> tuple[int, list[str]]:
    return row[0], list(map(unguard, row[1]))


def _take_header(source: Delimited) -> None:
    faults: list[Fault] = []
    line, record = next(source.first_records(faults.append), (0, []))
    if faults:
        first = faults[0]
        raise BadInputError(
            f"{source.name} cannot be read: line {first.line}: {first.reason}",
            hint=source.text.remedy or "Mend that line.",
        )
    if not record:
        raise BadInputError(f"{source.name} is empty", hint="Give a file with a header and rows.")
    if len(record) > _MOST_COLUMNS:
        raise BadInputError(
            f"{source.name} has {len(record):,} columns; {_MOST_COLUMNS:,} are allowed",
            hint="Give a file with a header and rows.",
        )
    source.name_columns(record)
    source.header_line = line


def _guess_delimiter(head: str) -> str:
    line = next((line for line in head.splitlines() if line.strip()), "")
    # Only what stands outside quotes separates; a header hardly ever has both.
    bare = "".join(line.split('"')[::2])
    counts = {delimiter: bare.count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _last_quote(lines: Sequence[str], delimiter: str) -> tuple[int, bool]:
    """Which of a record's lines opens its last quoted cell, from 0, and whether it stays open."""
    opened, quoted, closed = 0, False, False
    begins = True  # a cell begins here
    for number, line in enumerate(lines):
        for char in line:
            if quoted:
                closed = char == '"'
                quoted = not closed
            elif char == '"' and closed:  # a doubled quote, which stands for one
                quoted, closed = True, False
            elif char == '"' and begins:
                opened, quoted = number, True
            else:
                closed = False
            begins = not quoted and (char == delimiter or (begins and char == " "))
    return opened, quoted
