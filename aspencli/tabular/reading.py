"""Opens operators' tables, whatever their format, and reads delimited text.

The encoding of a text is detected from its first bytes. Every line that cannot be decoded or parsed
is reported, and reading continues after it.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, cast

from aspencli.errors import BadInputError
from aspencli.tabular.source import Observer, Opened, open_archive, open_bytes
from aspencli.tabular.table import NO_TEMPLATE, REJECTED, Fault, Record, Table
from aspencli.text import unguard

if TYPE_CHECKING:
    from aspencli.tabular.xlsx import Sheet

_HEAP = 1 << 16  # bytes of lines read at a time
_LONGEST_LINE = 1 << 22  # bytes; a longer one is not CSV, and would have to be held in memory
# A byte that is not valid UTF-8 is kept as one of these (PEP 383), so that it can be reported.
_KEPT_BYTE = re.compile("[\udc80-\udcff]")
# Other encodings have no such codes, and U+FFFD may be a legitimate character of the file.
_LOST = "\udfff"
_MARK_LOST = "aspencli.lost"
codecs.register_error(_MARK_LOST, lambda error: (_LOST, cast("UnicodeDecodeError", error).end))
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
_MAGIC = {
    b"7z\xbc\xaf\x27\x1c": ("is a 7z archive", "Extract it, then give the file in it."),
    b"Rar!": ("is a RAR archive", "Extract it, then give the file in it."),
    b"PAR1": ("is a Parquet file", "Save the table as CSV UTF-8."),
    b"{\\rtf": ("is an RTF document", "Save the table as CSV UTF-8."),
    b"PK\x05\x06": ("is an empty zip archive", "Give a CSV file."),
    b"%PDF": ("is a PDF", "Give a CSV file."),
    b"SQLite format 3": ("is a SQLite database", "Give a CSV file."),
}
# Old workbooks and password-protected new ones are such a container, with named streams inside.
_CONTAINER = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_MARKUP_SEEN = 4_096  # bytes to search for markup
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JUNK = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")
_JUNK_SHARE = 0.05
_SOME_JUNK = 8  # bytes; fewer are reported with their lines
_WIDE_SHARE = 0.4  # the share of zero bytes in ASCII text encoded with two bytes per character
_TOO_LARGE = "field larger"  # from the messages of csv.Error
_UNCLOSED = "unexpected end of data"


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
    template: str = NO_TEMPLATE,
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
        if opened.is_zip:
            found = stack.enter_context(open_archive(opened))
            if isinstance(found, Opened):
                opened = found
                if opened.is_zip:  # a workbook in an archive
                    found = stack.enter_context(open_archive(opened))
            if not isinstance(found, Opened):
                from aspencli.tabular.xlsx import open_workbook

                _refuse_options(
                    opened.name, "is a workbook", {"encoding": encoding, "delimiter": delimiter}
                )
                table = stack.enter_context(open_workbook(opened, found, sheet, skip_lines))
            elif found is not opened:
                raise BadInputError(
                    f"{opened.name} is a zip archive in another zip archive.",
                    hint="Extract it, then give the file in it.",
                )
        if table is None:
            _refuse_options(opened.name, "is a text file", {"sheet": sheet})
            table = open_delimited(Text(opened, encoding), delimiter, preamble, skip_lines)
        table.use_template(template)
        yield table


def _refuse_options(name: str, what: str, options: Mapping[str, str | None]) -> None:
    """Reject options that apply to another kind of file."""
    for option, value in options.items():
        if value is not None:
            raise BadInputError(
                f"{name} {what}, so --{option} does not apply.", hint=f"Remove --{option}."
            )


# Delimited text


class Text:
    """A text file that is being read.

    UTF-8 (with or without a byte order mark) and UTF-16 or UTF-32 with one are recognized.

    Attributes:
        head: The beginning of the text.
        notes: Notes for the operator on how the file is read.
        bad: Lines with undecodable bytes, found by `lines` and not yet reported.
        remedy: How to fix such lines; None until one is found.

    Raises:
        BadInputError: The file is not text.
    """

    def __init__(self, opened: Opened, encoding: str | None = None):
        head = opened.stream.peek()
        codec, mark, notes = _sniff(opened.name, head, encoding)
        once, first = head[:mark], mark
        while mark and head.startswith(once, mark):
            mark += len(once)
        if mark > first:
            notes.append("a second byte order mark is ignored")
        opened.stream.read1(mark)
        self._file = io.TextIOWrapper(
            cast("IO[bytes]", _Lines(opened)),
            encoding=codec,
            errors="surrogateescape" if codec == "utf-8" else _MARK_LOST,
            newline="",
        )
        self._offset = mark  # bytes before the next line
        self._codec = codec
        self.name = opened.name
        self.head = head[mark:].decode(codec, "replace")
        self.notes = [*opened.notes, *notes]
        self.bad: list[Fault] = []
        self.remedy: str | None = None

    def lines(self) -> Iterator[str]:
        """Return the lines, each with its line ending: line feed, carriage return, or both."""
        return chain.from_iterable(self._weighed())

    def _weighed(self) -> Iterator[Iterable[str]]:
        """Yield the lines in batches; a batch that is all ASCII has no undecodable bytes."""
        number, offset = 0, self._offset
        while heap := self._file.readlines(_HEAP):
            text = "".join(heap)
            if text.isascii():
                number += len(heap)
                offset += len(text)
                yield heap
                continue
            for line in heap:  # one by one, so that a fault is reported with its line
                number += 1
                offset += len(line) if line.isascii() else self._weigh(number, offset, line)
                yield (line,)

    def is_damaged(self, value: str) -> bool:
        """Return True if the value has undecodable bytes, which `lines` has noted."""
        if self._codec != "utf-8":
            return _LOST in value
        return not value.isascii() and _KEPT_BYTE.search(value) is not None

    def _weigh(self, number: int, offset: int, line: str) -> int:
        """Return the line's length in bytes, and note undecodable bytes."""
        if self._codec != "utf-8":
            if _LOST in line:
                self._note(number, f"contains bytes that are not valid {self._codec.upper()}")
            return 0  # offsets are reported for UTF-8 only
        raw = line.encode(errors="surrogateescape")
        kept = _KEPT_BYTE.search(line)
        if kept:
            place = offset + len(line[: kept.start()].encode(errors="surrogateescape"))
            byte = ord(kept[0]) - 0xDC00
            more = len(_KEPT_BYTE.findall(line)) - 1
            others = f" (and {more} more)" if more else ""
            self._note(
                number, f"byte 0x{byte:02X} at offset {place:,} is not valid UTF-8{others}", raw
            )
        return len(raw)

    def _note(self, number: int, reason: str, raw: bytes = b"") -> None:
        self.bad.append(Fault(number, "", reason))
        if self.remedy is None:
            self.remedy = _remedy(self._codec, raw)


def _remedy(codec: str, raw: bytes) -> str:
    if codec != "utf-8":
        return "Check --encoding, or save the file as CSV UTF-8."
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        other = "latin-1"
    else:
        other = "cp1252"
    return (
        "If it comes from Excel on Windows, save it as CSV UTF-8, "
        f"or specify its encoding: --encoding {other}"
    )


class _Lines(io.BufferedIOBase):
    """A binary file that raises an error if a line is too long."""

    def __init__(self, opened: Opened):
        self._name = opened.name
        self._stream = opened.stream
        self._line = 0  # bytes since the last line ending

    def readable(self) -> bool:
        return True

    def read1(self, _size: int | None = -1, /) -> bytes:
        data = self._stream.read1()
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        self._line = len(data) - end if end >= 0 else self._line + len(data)
        if self._line > _LONGEST_LINE:
            raise BadInputError(
                f"{self._name} is not a CSV file: a line has more than {_LONGEST_LINE:,} bytes.",
                hint="Give a CSV file with a header and rows.",
            )
        return data

    read = read1


class Delimited(Table):
    """A delimited text file that is being read."""

    def __init__(self, text: Text, delimiter: str, skipped: int, *, skip_spaces: bool):
        super().__init__(text.name, text.notes, delimiter)
        self._text = text
        self._skip_spaces = skip_spaces
        self._lines = islice(text.lines(), skipped, None)
        self._read = skipped  # lines read before the current reader started
        self._recent: list[str] = []  # the lines of the current record
        self._again: deque[str] = deque()  # lines to read a second time
        self._restart()

    @property
    def remedy(self) -> str | None:
        """Return how to fix the undecodable cells, or None until there is one."""
        return self._text.remedy

    def is_reported(self, value: str) -> bool:
        """Return True if the value has undecodable bytes, which were already reported."""
        return self._text.is_damaged(value)

    def records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        """Return the records, each with its first line number; report faults to ``fault``."""
        records = self._records(fault)
        return self.watched(map(_unguarded, records) if self.is_guarded else records)

    def read_header(self) -> None:
        """Read the header, which the records follow.

        Raises:
            BadInputError: The file is empty, or its header cannot be read.
        """
        faults: list[Fault] = []
        line, record = next(self._records(faults.append), (0, []))
        if faults:
            first = faults[0]
            raise BadInputError(
                f"Cannot read {self.name}: line {first.line}: {first.reason}",
                hint=self.remedy or "Fix that line, then run the command again.",
            )
        if not record:
            raise BadInputError(
                f"{self.name} is empty.", hint="Give a file with a header and rows."
            )
        if len(record) > _MOST_COLUMNS:
            raise BadInputError(
                f"{self.name} has {len(record):,} columns (maximum {_MOST_COLUMNS:,})",
                hint="Give a file with a header and rows.",
            )
        self.name_columns(record)
        self.header_line = line

    def line_of(self, names: Collection[str]) -> int | None:
        """Return the number of an early line after the header that has all these cells, if any."""
        for number, line in enumerate(self._text.head.splitlines()[:_LOOKED_AT], start=1):
            cells = {cell.strip().strip('"').lower() for cell in re.split("[,;|\t]", line)}
            if number > self.header_line and all(name in cells for name in names):
                return number
        return None

    def _records(self, fault: Callable[[Fault], None]) -> Iterator[Record]:
        recent, bad = self._recent, self._text.bad
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
    text: Text, delimiter: str | None = None, preamble: str | None = None, skip_lines: int = 0
) -> Delimited:
    """Open delimited text; for the parameters, see `open_table`.

    Raises:
        BadInputError: The file is not delimited text.
    """
    csv.field_size_limit(_LARGEST_CELL)
    head = "".join(text.head.splitlines(keepends=True)[skip_lines:])
    says = None if preamble else _SAYS_SEPARATOR.match(head)
    chosen = delimiter or (says[1] if says else _guess_delimiter(head))
    if delimiter is None and chosen != ",":
        text.notes.append(f"cells are separated by a {_DELIMITERS[chosen]}")
    skipped = skip_lines + bool(preamble or says)
    source = Delimited(text, chosen, skipped, skip_spaces=not preamble)
    if skip_lines:
        text.notes.append(f"lines skipped before the header: {skip_lines:,}")
    if not text.notes:
        text.notes.append(f"read as {'CSV' if chosen == ',' else 'text'} in UTF-8")
    source.read_header()
    if tuple(source.header[: len(REJECTED)]) == REJECTED:
        source.is_guarded = True
        text.notes.append("a rejects file: apostrophes before =, +, -, @, and ' are removed")
    return source


def _unguarded(row: tuple[int, list[str]]) -> tuple[int, list[str]]:
    return row[0], list(map(unguard, row[1]))


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


def _sniff(name: str, head: bytes, encoding: str | None) -> tuple[str, int, list[str]]:
    """Return a file's codec, the length of its byte order mark, and notes, from its first bytes.

    Raises:
        BadInputError: It is not text, or its encoding cannot be determined.
    """
    for magic, (what, remedy) in _MAGIC.items():
        if head.startswith(magic):
            raise BadInputError(f"{name} {what}.", hint=remedy)
    if head.startswith(_CONTAINER):
        raise _container(name, head)
    _refuse_markup(name, head)
    length, marked = next(
        ((len(bom), codec) for bom, codec in _BOMS if head.startswith(bom)), (0, "")
    )
    if encoding is not None:
        return _as_specified(name, encoding, length, marked)
    if marked:
        return marked, length, [] if marked == "utf-8" else [f"read as {marked[:6].upper()}"]
    _refuse_binary(name, head[:4096])
    return "utf-8", 0, []


def _refuse_markup(name: str, head: bytes) -> None:
    """Reject web pages and documents that programs save under spreadsheet file names."""
    start = head[:_MARKUP_SEEN].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").lower()
    suffix = PurePath(name).suffix.lower()
    called = f" named {suffix}" if suffix not in {"", ".html", ".htm", ".xml", ".json"} else ""
    hint = "Open it in a spreadsheet program, then save it as a workbook (.xlsx) or CSV UTF-8."
    if start.startswith((b"<html", b"<!doctype html", b"<table", b"<meta", b"<style")):
        what = f"is an HTML page{called}, not a table"
    elif start.startswith((b"<?xml", b"<workbook")):
        is_sheet = b"office:spreadsheet" in start or b"<workbook" in start
        kind = "spreadsheet" if is_sheet else "document"
        what = f"is an XML {kind}{called}, not a table"
    elif start.startswith((b"{", b"[")) and re.match(rb'[{[]\s*(["{[}\]]|\d)', start):
        what = f"is JSON{called}, not a table"
        hint = "Give a CSV file with a header and rows."
    else:
        return
    raise BadInputError(f"{name} {what}.", hint=hint)


def _container(name: str, head: bytes) -> BadInputError:
    if _ENCRYPTED in head:
        return BadInputError(
            f"{name} is password-protected.",
            hint="Open it and save it without a password, or save the sheet as CSV UTF-8.",
        )
    return BadInputError(
        f"{name} is an old Excel workbook (.xls), or is password-protected.",
        hint="Open it, then save it as an Excel workbook (.xlsx) without a password.",
    )


def _as_specified(name: str, encoding: str, length: int, marked: str) -> tuple[str, int, list[str]]:
    codec = _known(encoding)
    if marked == codec or marked.startswith(f"{codec}-"):  # utf-16 takes the mark's byte order
        codec = marked
    elif marked:
        raise BadInputError(
            f"{name} starts with a {marked.upper()} byte order mark, but --encoding is {encoding}.",
            hint="Remove --encoding.",
        )
    return codec, length, [f"read as {encoding}"]


def _refuse_binary(name: str, sample: bytes) -> None:
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd > len(sample) * _WIDE_SHARE and min(even, odd) * 4 < max(even, odd):
        codec = "utf-16-le" if odd > even else "utf-16-be"
        raise BadInputError(
            f"{name} looks like UTF-16 without a byte order mark.",
            hint=f"Save it as UTF-8, or specify its encoding: --encoding {codec}",
        )
    junk = sum(byte in _JUNK for byte in sample)
    if junk > max(_SOME_JUNK, len(sample) * _JUNK_SHARE):
        raise BadInputError(
            f"{name} is binary, not text.", hint="Give a CSV file with a header and rows."
        )


def _known(encoding: str) -> str:
    try:
        b" ".decode(encoding, "replace")  # Some registered codecs do not decode to text.
    except (LookupError, UnicodeError):
        raise BadInputError(
            f"Invalid value for --encoding: {encoding!r}",
            hint="Try utf-8, utf-16-le, cp1252, or latin-1.",
        ) from None
    return codecs.lookup(encoding).name.removesuffix("-sig")
