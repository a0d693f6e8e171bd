"""Parsers for the cells of a file, by type of column."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from aspencli.services.checks import as_id
from aspencli.services.dates import read_day, why_no_day
from aspencli.services.quoting import quote
from aspencli.services.sheet_damage import damage_to_identifier, error_in, missing_in, plainly_whole
from aspencli.services.stored_text import LONGEST_TEXT, identifier_flaw, line_flaw, name_flaw
from db.bulk.spec import Column

Understood = tuple[str | None, str | None]
"""The value in the form the database accepts, or None and the reason the cell is invalid."""

_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


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
    return (found, None) if found else (None, why_no_day(cell))


def truth(cell: str) -> Understood:
    """Parse a Boolean value."""
    word = cell.lower()
    if word in _TRUE or word in _FALSE:
        return json.dumps(word in _TRUE), None
    return None, f"{quote(cell)} is neither true nor false; write true or false, yes or no, 1 or 0"


def number(cell: str) -> Understood:
    """Parse the numeric ID of a row."""
    found = as_id(cell)
    return (None, f"{quote(cell)} is no id") if found is None else (str(found), None)


def named(cell: str) -> Understood:
    """Parse a reference to a row of another table, by ID or name; the database resolves it."""
    reason = line_flaw(cell, LONGEST_TEXT)
    return (None, reason) if reason else (cell, None)
