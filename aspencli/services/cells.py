"""What the cells of a file mean, by the kind of their column."""

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
"""The value as the database takes it, or else what is wrong with the cell."""

_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


@dataclass(frozen=True)
class Field:
    """A column as files have it.

    Attributes:
        column: Where it goes.
        understand: What a cell means that is not blank, stripped.
        uncleared: Why it may not be cleared; None where it may.
        names: Whether it names something, so that a word such as ``NA`` can hardly be meant.
    """

    column: Column
    understand: Callable[[str], Understood]
    uncleared: str | None = None
    names: bool = False


def identifier(cell: str, *, missing_words: bool = True) -> Understood:
    """Understand an identifier that is stored; one that a spreadsheet damaged is refused."""
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
    """Understand an identifier that rows are found by; it may hold what nothing new may."""
    reason = line_flaw(cell)
    return (None, reason) if reason else (cell, None)


def text(cell: str) -> Understood:
    """Understand a text for people that is stored."""
    reason = name_flaw(cell)
    return (None, reason) if reason else (cell, None)


def day(cell: str) -> Understood:
    """A day, written year-month-day."""
    found = read_day(cell)
    return (found, None) if found else (None, why_no_day(cell))


def truth(cell: str) -> Understood:
    """Yes or no."""
    word = cell.lower()
    if word in _TRUE or word in _FALSE:
        return json.dumps(word in _TRUE), None
    return None, f"{quote(cell)} is neither true nor false; write true or false, yes or no, 1 or 0"


def number(cell: str) -> Understood:
    """The number that identifies a row."""
    found = as_id(cell)
    return (None, f"{quote(cell)} is no id") if found is None else (str(found), None)


def named(cell: str) -> Understood:
    """A row of another table, by number or by name; the database knows which."""
    reason = line_flaw(cell, LONGEST_TEXT)
    return (None, reason) if reason else (cell, None)
