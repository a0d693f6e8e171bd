"""Lists of identifiers: typed, one per line in a file, or in a column of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.stored_text import clean_text
from aspencli.tabular.delimited import Fault, as_text, open_delimited
from aspencli.tabular.source import STDIN, Opened, is_zip, open_archive, open_bytes, sniff
from aspencli.tabular.table import Table
from aspencli.tabular.xlsx import open_workbook
from aspencli.text import counted

NAMES = ("private_identifier", "public_identifier")
"""Columns that identify a sample; the private identifier, unique in its group, comes first."""
KEYS = ("id", *NAMES)
"""The same, for commands that also accept a sample's ID."""
_SHOWN = 20  # faults in a message


@dataclass(frozen=True)
class IdList:
    """The identifiers that were given, in order.

    Attributes:
        ids: The identifiers, without duplicates.
        repeated: Number of duplicates.
    """

    ids: list[str]
    repeated: int = 0


def read_ids(given: Sequence[str], file: str | None, columns: Sequence[str]) -> IdList:
    """Return the identifiers that were typed and those in a file.

    Args:
        given: The typed identifiers; ``-`` means standard input.
        file: A file with one identifier per line, or a table with one of the columns.
        columns: The columns to look for in a table; each row's first that is not blank is used.

    Raises:
        BadInputError: No identifier was given, or some are invalid.
    """
    named: list[str] = []
    for each in given:
        named += _read(STDIN, columns) if each == STDIN else [clean_text(each, "the identifier")]
    if file is not None:
        named += _read(file, columns)
    ids = list(dict.fromkeys(named))
    if not ids:
        raise BadInputError(
            "No identifiers given.",
            hint="List some, or give a file with one per line: --from FILE (- for stdin).",
        )
    return IdList(ids, len(named) - len(ids))


def _read(path: str, columns: Sequence[str]) -> list[str]:
    with open_bytes(path) as opened:
        if is_zip(opened.stream.peek()):
            with open_archive(opened) as found:
                if isinstance(found, Opened):
                    return _of_text(found, columns)
                with open_workbook(opened, found) as sheet:
                    return _checked(sheet.name, _of_table(sheet, columns))
        return _of_text(opened, columns)


def _of_text(opened: Opened, columns: Sequence[str]) -> list[str]:
    if any(name in _first_cells(opened) for name in columns):
        table = open_delimited(opened, None, None, None)
        return _checked(table.name, _of_table(table, columns))
    return _checked(opened.name, _of_lines(opened))


def _first_cells(opened: Opened) -> set[str]:
    """Return the cells of the first line that is not blank, for any delimiter."""
    head = opened.stream.peek()
    codec, mark, _notes = sniff(opened.name, head, None)
    lines = head[mark:].decode(codec, "replace").splitlines()
    first = next((line for line in lines if line.strip()), "")
    for delimiter in ("\t", ";", "|"):
        first = first.replace(delimiter, ",")
    return {cell.strip().strip('"').lower() for cell in first.split(",")}


_Found = tuple[int, str | None, str]  # the line, the reason it is bad, the identifier


def _of_lines(opened: Opened) -> Iterator[_Found]:
    text = as_text(opened)
    for number, line in enumerate(text.lines(), 1):
        if text.bad:
            yield number, text.bad.pop(0).reason, ""
        elif line.strip():
            yield number, None, line.strip()


def _of_table(table: Table, columns: Sequence[str]) -> Iterator[_Found]:
    header = [name.lower() for name in table.header]
    places = [header.index(name) for name in columns if name in header]
    if not places:
        raise BadInputError(
            f"{table.name} has none of the columns {', '.join(columns)}",
            hint="Rename the column, or give a file with one identifier per line.",
        )
    table.columns = places
    faults: list[Fault] = []
    for line, record in table.records(faults.append):
        cells = [record[place].strip() for place in places if place < len(record)]
        found = next(filter(None, cells), "")
        yield line, None if found else "has no identifier", found
        while faults:
            fault = faults.pop(0)
            yield fault.line, fault.reason, ""
    for fault in faults:
        yield fault.line, fault.reason, ""


def _checked(name: str, found: Iterable[_Found]) -> list[str]:
    ids, wrong = list[str](), list[str]()
    for line, reason, text in found:
        try:
            ids.append(clean_text(text, "the identifier") if reason is None else "")
        except BadInputError as error:
            wrong.append(f"line {line:,}: {error.message.removesuffix('.')}")
        if reason is not None:
            wrong.append(f"line {line:,}: {reason}")
    if wrong:
        more = [f"and {len(wrong) - _SHOWN:,} more"] if len(wrong) > _SHOWN else []
        raise BadInputError(
            f"{name} has {counted(len(wrong), 'invalid line')}; nothing was done.",
            details=[*wrong[:_SHOWN], *more],
            hint="Fix them, then run the command again.",
        )
    return ids
