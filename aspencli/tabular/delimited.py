"""Reader for delimited text that recovers after a bad record."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from aspencli.errors import BadInputError
from aspencli.tabular.decode import Fault, Text, as_text
from aspencli.tabular.reading import Reading, Record
from aspencli.tabular.source import Opened
from aspencli.text import unguard

_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}
# Characters; a poxvirus genome fits, and an unclosed quote does not swallow the whole file.
_LARGEST_CELL = 1 << 20
# Bytes of a record, whose quoted cells may span any number of lines. All of it is in memory, with
# the overhead of a Python string for each line.
_LARGEST_RECORD = 1 << 22
_STRING = 50
_LOOKED_AT = 50  # lines to search for the header if it is not the first one
_MOST_COLUMNS = 16_384  # as in a spreadsheet; each is compared with every known column name
# The first line in which Excel declares the delimiter of the others.
_SAYS_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[ \t,;|]*(?:\r|\n)', re.IGNORECASE)
REJECTED = ("line", "reason")
"""The first columns of a rejects file, which are not part of the original file."""
_TOO_LARGE = "field larger"  # from the messages of csv.Error
_UNCLOSED = "unexpected end of data"


class Delimited(Reading):
    """A delimited text file that is being read.

    Args:
        text: The file.
        delimiter: The character between its cells.
        lines: The file's lines; tests may pass others.
        skip_spaces: Whether to ignore spaces before a cell.
    """

    def __init__(self, text: Text, delimiter: str, lines: Iterator[str], *, skip_spaces: bool):
        super().__init__()
        self.text = text
        self.delimiter = delimiter
        self._is_guarded = False
        self._skip_spaces = skip_spaces
        self._lines = lines
        self._read = 0  # lines read before the current reader started
        self._recent: list[str] = []  # the lines of the current record
        self._again: deque[str] = deque()  # lines to read a second time
        self._restart()

    @property
    def name(self) -> str:
        """Return the name for messages."""
        return self.text.name

    @property
    def notes(self) -> list[str]:
        """Return notes for the operator on how the file is read."""
        return self.text.notes

    @property
    def remedy(self) -> str | None:
        """Return how to fix the undecodable cells, or None until there is one."""
        return self.text.remedy

    def is_told(self, value: str) -> bool:
        """Return True if the value has undecodable bytes, which were already reported."""
        return self.text.is_damaged(value)

    def skip_line(self) -> None:
        """Skip the next line."""
        next(self._lines, None)
        self._read += 1

    def unguard(self) -> None:
        """Start stripping the apostrophes that keep spreadsheets from evaluating cells."""
        self._is_guarded = True

    def records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the records, each with its first line number; report faults to ``fault``."""
        records = self._records(fault)
        return self.watched(map(_unguarded, records) if self._is_guarded else records)

    def first_records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the records unchanged, including the header."""
        return self._records(fault)

    def line_of(self, names: Collection[str]) -> int | None:
        """Return the number of an early line after the header that has all these cells, if any."""
        for number, line in enumerate(self.text.head.splitlines()[:_LOOKED_AT], start=1):
            cells = {cell.strip().strip('"').lower() for cell in re.split("[,;|\t]", line)}
            if number > self.header_line and all(name in cells for name in names):
                return number
        return None

    def _records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        recent, bad = self._recent, self.text.bad
        while True:  # after an error, a new reader continues
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
                fault(self._recover(error, start))
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
            f"Line {number:,} of {self.name} begins a row that does not end within "
            f"{len(self._recent):,} lines.",
            hint="Look for an unclosed quote on that line.",
        )

    def _recover(self, error: csv.Error, start: int) -> Fault:
        """Return the fault, and queue any lines swallowed by a stray quote to be read again."""
        message, last = str(error), start + len(self._recent) - 1
        offset, is_open = _last_quote(self._recent, self.delimiter)
        opened = start + offset
        if _UNCLOSED in message or (_TOO_LARGE in message and is_open):
            fault = Fault(opened, "", "a quote opened on this line is never closed")
        elif _TOO_LARGE in message:
            fault = Fault(opened, "", f"a cell has more than {_LARGEST_CELL:,} characters")
        elif "expected after" in message:
            where = f" that begins on this line and ends on line {last}" if last > opened else ""
            fault = Fault(opened, "", f"text after the closing quote of a cell{where}")
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
    """Open delimited text; for the parameters, see `aspencli.tabular.table.open_table`.

    Raises:
        BadInputError: The file is not delimited text.
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
        text.notes.append("a rejects file: apostrophes before =, +, -, @, and ' are removed")
    return source


def _unguarded(row: tuple[int, list[str]]) -> tuple[int, list[str]]:
    return row[0], list(map(unguard, row[1]))


def _take_header(source: Delimited) -> None:
    faults: list[Fault] = []
    line, record = next(source.first_records(faults.append), (0, []))
    if faults:
        first = faults[0]
        raise BadInputError(
            f"Cannot read {source.name}: line {first.line}: {first.reason}",
            hint=source.text.remedy or "Fix that line, then run the command again.",
        )
    if not record:
        raise BadInputError(f"{source.name} is empty.", hint="Give a file with a header and rows.")
    if len(record) > _MOST_COLUMNS:
        raise BadInputError(
            f"{source.name} has {len(record):,} columns (maximum {_MOST_COLUMNS:,})",
            hint="Give a file with a header and rows.",
        )
    source.name_columns(record)
    source.header_line = line


def _guess_delimiter(head: str) -> str:
    line = next((line for line in head.splitlines() if line.strip()), "")
    # Only characters outside quotes separate cells; a header hardly ever has two kinds of them.
    bare = "".join(line.split('"')[::2])
    counts = {delimiter: bare.count(delimiter) for delimiter in _DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return best if counts[best] else ","


def _last_quote(lines: Sequence[str], delimiter: str) -> tuple[int, bool]:
    """Return the index of the line that opens the last quoted cell, and True if it stays open."""
    opened, quoted, closed = 0, False, False
    begins = True  # True at the start of a cell
    for number, line in enumerate(lines):
        for char in line:
            if quoted:
                closed = char == '"'
                quoted = not closed
            elif char == '"' and closed:  # a doubled quote, which means a literal one
                quoted, closed = True, False
            elif char == '"' and begins:
                opened, quoted = number, True
            else:
                closed = False
            begins = not quoted and (char == delimiter or (begins and char == " "))
    return opened, quoted
