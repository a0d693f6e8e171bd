"""Lists of identifiers: typed, or in a file with one per line, or in a column of a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from aspencli.errors import BadInputError
from aspencli.tabular.reading import Text, open_delimited
from aspencli.tabular.source import STDIN, Opened, open_archive, open_bytes
from aspencli.tabular.table import Fault, Table
from aspencli.text import clean_text, counted

_SHOWN = 20  # faults in a message


@dataclass(frozen=True)
class IdList:
    """The identifiers that were given, in order, and the number of duplicates left out."""

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
        if opened.is_zip:
            with open_archive(opened) as found:
                if isinstance(found, Opened):
                    return _of_text(found, columns)
                from aspencli.tabular.xlsx import open_workbook

                with open_workbook(opened, found) as sheet:
                    return _checked(sheet.name, partial(_of_table, sheet, columns))
        return _of_text(opened, columns)


def _of_text(opened: Opened, columns: Sequence[str]) -> list[str]:
    text = Text(opened)
    if _first_cells(text.head).isdisjoint(columns):
        return _checked(text.name, partial(_of_lines, text))
    return _checked(text.name, partial(_of_table, open_delimited(text), columns))


def _first_cells(head: str) -> set[str]:
    """Return the cells of the first line that is not blank, for any delimiter."""
    first = next((line for line in head.splitlines() if line.strip()), "")
    return {cell.strip().strip('"').lower() for cell in re.split(r"[\t;|,]", first)}


def _of_lines(text: Text, faults: list[Fault]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.lines(), 1):
        if text.bad:
            faults.append(text.bad.pop(0))
        elif line.strip():
            yield number, line.strip()


def _of_table(
    table: Table, columns: Sequence[str], faults: list[Fault]
) -> Iterator[tuple[int, str]]:
    header = [name.lower() for name in table.header]
    places = [header.index(name) for name in columns if name in header]
    if not places:
        raise BadInputError(
            f"{table.name} has none of the columns {', '.join(columns)}",
            hint="Rename the column, or give a file with one identifier per line.",
        )
    table.columns = places
    for line, record in table.records(faults.append):
        cells = [record[place].strip() for place in places if place < len(record)]
        yield line, next(filter(None, cells), "")


def _checked(name: str, read: Callable[[list[Fault]], Iterator[tuple[int, str]]]) -> list[str]:
    """Return the identifiers that the function yields with their lines, unless some are bad."""
    ids, faults = list[str](), list[Fault]()
    for line, text in read(faults):
        try:
            ids.append(text and clean_text(text, "the identifier"))
        except BadInputError as error:
            faults.append(Fault(line, "", error.message.removesuffix(".")))
        if not text:
            faults.append(Fault(line, "", "has no identifier"))
    if faults:
        more = [f"and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
        raise BadInputError(
            f"{name} has {counted(len(faults), 'invalid line')}; nothing was done.",
            details=[*(f"line {one.line:,}: {one.reason}" for one in faults[:_SHOWN]), *more],
            hint="Fix them, then run the command again.",
        )
    return ids
