"""Parse the cells of a file by type of column, and read mappings of identifiers, row by row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aspen.database.bulk.spec import Column, Request, make_request
from aspencli.stored_text import LONGEST_TEXT, as_id, identifier_flaw, line_flaw, name_flaw
from aspencli.tabular.damage import (
    damage_to_identifier,
    error_in,
    missing_in,
    plainly_whole,
    power_like,
)
from aspencli.tabular.dates import day_flaw, read_day
from aspencli.tabular.delimited import Fault
from aspencli.tabular.headers import locate
from aspencli.tabular.table import Table
from aspencli.tabular.xlsx_cells import Unusable
from aspencli.text import quote

Understood = tuple[str | None, str | None]
"""The value in the form the database accepts, or None and the reason the cell is invalid."""

PassOn = Callable[[Iterator[tuple[int, list[str]]]], Iterator[tuple[int, list[str]]]]
"""A wrapper for a stream of rows, which may act on them."""
SoughtKey = Callable[[int, str], object]
"""A function called with the line and text of each key that is not ASCII."""

PRIVATE = "private_identifier"
PUBLIC = "public_identifier"
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
# Identifiers to look up; this excludes control characters (category Cc) and undecodable ones.
_FINDS = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]{1,128}").fullmatch


@dataclass(frozen=True)
class Field:
    """A column of a file.

    Attributes:
        column: The database column it maps to.
        understand: Parser for a cell that is not blank, with white space stripped.
        uncleared: Why the value cannot be cleared; None if it can.
        names: True if it holds a name, for which a word such as ``NA`` is likely a mistake.
    """

    column: Column
    understand: Callable[[str], Understood]
    uncleared: str | None = None
    names: bool = False


def identifier(cell: str, *, missing_words: bool = True) -> Understood:
    """Parse an identifier to store, rejecting one that a spreadsheet damaged."""
    if plainly_whole(cell):
        return cell, None
    reason = (
        error_in(cell)
        or identifier_flaw(cell)
        or (None if missing_words else missing_in(cell))
        or damage_to_identifier(cell)
    )
    return (None, reason) if reason else (cell, None)


def sought(cell: str) -> Understood:
    """Parse an identifier to look up, which may contain characters not allowed in new ones."""
    reason = line_flaw(cell)
    return (None, reason) if reason else (cell, None)


def text(cell: str) -> Understood:
    """Parse human-readable text to store."""
    reason = name_flaw(cell)
    return (None, reason) if reason else (cell, None)


def day(cell: str) -> Understood:
    """Parse a date written as YYYY-MM-DD."""
    found = read_day(cell)
    return (found, None) if found else (None, day_flaw(cell))


def truth(cell: str) -> Understood:
    """Parse a Boolean value."""
    word = cell.lower()
    if word in _TRUE or word in _FALSE:
        return json.dumps(word in _TRUE), None
    return None, f"{quote(cell)} is not true or false; use true or false, yes or no, 1 or 0"


def number(cell: str) -> Understood:
    """Parse the numeric ID of a row."""
    found = as_id(cell)
    return (None, f"{quote(cell)} is not a valid ID") if found is None else (str(found), None)


def named(cell: str) -> Understood:
    """Parse a reference to a row of another table, by ID or name; the database resolves it."""
    reason = line_flaw(cell, LONGEST_TEXT)
    return (None, reason) if reason else (cell, None)


def read_mapping(
    source: Table,
    fault: Callable[[Fault], None],
    names: Sequence[str] = (),
    pass_on: PassOn = iter,
    *,
    sought: SoughtKey = lambda _line, _key: None,
    missing_words: bool = False,
) -> Iterator[Request]:
    """Yield the valid rows of a mapping, and report the bad ones to ``fault``.

    Args:
        source: The file.
        fault: Called with each fault.
        names: The file's names for the columns: ``Lab ID=private_identifier``.
        pass_on: Wraps the stream of rows.
        sought: Called with the line and text of each private identifier that is not ASCII.
        missing_words: Whether to accept words such as ``NA`` as identifiers.

    Raises:
        BadInputError: The header is not that of a mapping.
    """
    private, public = locate(source, (PRIVATE, PUBLIC), names=names)
    width = len(source.header)
    powers, first = 0, ""
    for line, cells in pass_on(source.records(fault)):
        record = cells if len(cells) == width else fitted(source, line, cells, fault)
        if record is None:
            continue
        lab, new = record[private].strip(), record[public].strip()
        is_plain = plainly_whole(new)
        if (plainly_whole(lab) or _finds(line, lab, sought)) and (
            is_plain or identifier(new, missing_words=missing_words)[1] is None
        ):
            if not is_plain and power_like(new):
                powers, first = powers + 1, first or f"{new} on line {line:,}"
            yield make_request((line, lab, (new,), None, None, None))
            continue
        for column, cell in ((PRIVATE, record[private]), (PUBLIC, record[public])):
            reason = _reason(source, cell)
            if reason is None and column == PUBLIC:
                reason = identifier(new, missing_words=missing_words)[1]
            if reason:
                fault(Fault(line, column, reason))
    if powers:
        source.notes.append(
            "identifiers that a spreadsheet would read as numbers in scientific notation: "
            f"{powers:,} (the first is {first})"
        )


def _finds(line: int, lab: str, sought: SoughtKey) -> bool:
    """Return True if samples can be looked up by this identifier."""
    if not lab.isascii():
        sought(line, lab)
    return _FINDS(lab) is not None and error_in(lab) is None


def _reason(source: Table, cell: str) -> str | None:
    if isinstance(cell, Unusable):
        return cell.reason
    if source.is_reported(cell):
        return ""
    text = cell.strip()
    return line_flaw(text) or error_in(text)


def fitted(
    source: Table, line: int, record: list[str], fault: Callable[[Fault], None]
) -> list[str] | None:
    """Return the row fitted to the header's width, or report a fault and return None."""
    width = len(source.header)
    found = record if len(record) == width else source.fit(line, record)
    if found is None:
        kind = "too few" if len(record) < width else "too many"
        reason = f"has {kind} cells: {len(record)} (the header has {width})"
        fault(Fault(line, "", reason))
    return found
