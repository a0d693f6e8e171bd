"""Read files of changes row by row: the layout of their columns, and the parsers of their cells.

A file is a mapping of identifiers, or has a key column, the columns that change, and perhaps one
that scopes some of them. Every bad line is reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from aspen.database.bulk.spec import KEEP, BulkColumn, Cell, RowRequest, Spec, make_request
from aspen.database.bulk.spec import BulkTable as Stored
from aspencli.errors import BadInputError
from aspencli.tabular.damage import (
    Unusable,
    damage_to_identifier,
    error_in,
    missing_in,
    plainly_whole,
    power_like,
)
from aspencli.tabular.dates import DayFormat, DayNotes, day_flaw, read_day_or_words
from aspencli.tabular.table import DamageCount, Fault, Table, find, locate, note_further
from aspencli.text import LONGEST_TEXT, as_id, identifier_flaw, line_flaw, name_flaw, quote

Understood = tuple[str | None, str | None]
"""The value in the form the database accepts, or None and the reason the cell is invalid."""

PassOn = Callable[[Iterator[tuple[int, list[str]]]], Iterator[tuple[int, list[str]]]]
"""A wrapper for a stream of rows, which may act on them."""
SoughtKey = Callable[[int, str], object]
"""A function called with the line and text of each key that is not ASCII."""

PRIVATE = "private_identifier"
PUBLIC = "public_identifier"
CLEARED = "\\N"
"""The cell content that clears a value."""
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})
# Identifiers to look up; this excludes control characters (category Cc) and undecodable ones.
_FINDS = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffd]{1,128}").fullmatch
_REMEMBERED = 4_096  # cached cells per column
_REPORTED = ""  # the reason for a cell whose line was already reported
_Read = tuple[Cell, str | None]


@dataclass(frozen=True)
class Field:
    """A column of a file."""

    column: BulkColumn
    # parses a cell that is not blank, with white space stripped
    understand: Callable[[str], Understood]
    uncleared: str | None = None  # why the value cannot be cleared; None if it can
    names: bool = False  # it holds a name, for which a word such as ``NA`` is likely a mistake


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


def accepted(flaw: Callable[[str], str | None]) -> Callable[[str], Understood]:
    """Return a parser that accepts the cells in which a validation rule finds no flaw."""

    def understand(cell: str) -> Understood:
        reason = flaw(cell)
        return (None, reason) if reason else (cell, None)

    return understand


sought = accepted(line_flaw)
"""Parse an identifier to look up, which may contain characters not allowed in new ones."""
text = accepted(name_flaw)
"""Parse human-readable text to store."""
named = accepted(partial(line_flaw, longest=LONGEST_TEXT))
"""Parse a reference to a row of another table, by ID or name; the database resolves it."""


def day(cell: str) -> Understood:
    """Parse a date written as YYYY-MM-DD, or in words such as ``yesterday``."""
    found = read_day_or_words(cell)
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


def read_mapping(
    source: Table,
    fault: Callable[[Fault], None],
    names: Sequence[str] = (),
    pass_on: PassOn = iter,
    *,
    sought: SoughtKey = lambda _line, _key: None,
    missing_words: bool = False,
) -> Iterator[RowRequest]:
    """Yield the valid rows of a mapping, and report the bad ones to ``fault``.

    The file may have names of its own for the columns: ``Lab ID=private_identifier``. ``sought`` is
    called with the line and text of each private identifier that is not ASCII. Words such as ``NA``
    are accepted as identifiers only if ``missing_words`` is True.

    Raises:
        BadInputError: The header is not that of a mapping.
    """
    private, public = locate(source, (PRIVATE, PUBLIC), names=names)
    understand = partial(identifier, missing_words=missing_words)
    width = len(source.header)
    powers = DamageCount()
    for line, cells in pass_on(source.records(fault)):
        record = cells if len(cells) == width else source.fit(line, cells, fault)
        if record is None:
            continue
        lab, new = record[private].strip(), record[public].strip()
        is_plain = plainly_whole(new)
        if (plainly_whole(lab) or _finds(line, lab, sought)) and (
            is_plain or understand(new)[1] is None
        ):
            if not is_plain and power_like(new):
                powers.add(f"{new} on line {line:,}")
            yield make_request((line, lab, (new,), None, None, None))
            continue
        for column, cell, check in (
            (PRIVATE, record[private], line_flaw),
            (PUBLIC, record[public], lambda text: understand(text)[1]),
        ):
            reason = _damage(source, cell)
            if reason is None:
                reason = check(cell.strip())
            if reason:
                fault(Fault(line, column, reason))
    if powers.number:
        source.notes.append(
            f"identifiers that a spreadsheet would read as numbers in scientific notation: {powers}"
        )


def _finds(line: int, lab: str, sought: SoughtKey) -> bool:
    """Return True if samples can be looked up by this identifier."""
    if not lab.isascii():
        sought(line, lab)
    return _FINDS(lab) is not None and error_in(lab) is None


@dataclass(frozen=True)
class ChangeKind:
    """The columns that a kind of file of changes may have."""

    table: Stored
    # The possible keys, by header. The first one in the file is used, but the operator has to
    # choose if ``id`` is one of several.
    keys: Mapping[str, Field]
    fields: Mapping[str, Field]  # that may change, by header
    renaming: Mapping[str, str]  # headers that change the key under another header
    creates: tuple[BulkColumn, ...] = ()  # all columns of the table, if missing rows are created
    # The header and field that scope the values stored in other tables, such as the group; a row
    # may then span several lines.
    within: tuple[str, Field] | None = None
    # The headers of the command that lists the table. A file with all of them is read as that
    # command's output.
    listing: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileLayout:
    """The roles of the columns in a file."""

    kind: ChangeKind
    key: str  # the header of the key column
    places: Mapping[str, int]  # the positions of the used columns, by header
    headers: tuple[str, ...]  # of the columns that change
    within: str | None = None  # the header of the column that scopes some of the values

    @property
    def spec(self) -> Spec:
        """Return the specification of the run."""
        kind, key = self.kind, self.kind.keys[self.key].column
        named = [kind.fields[header].column for header in self.headers]
        columns = [c for c in kind.creates if c in named or not c.side] or named
        return Spec(
            kind.table,
            key,
            tuple(columns),
            partial=True,
            creates=bool(kind.creates),
            within=kind.within[1].column if kind.within else None,
            keeps_key=key not in named,
        )

    def arranging(self) -> Callable[[Sequence[Cell]], tuple[Cell, ...]]:
        """Return a function that arranges the values of the headers as columns of `spec`."""
        if not self.kind.creates:
            return tuple
        named = {self.kind.fields[name].column.name: n for n, name in enumerate(self.headers)}
        found = [named.get(column.name) for column in self.spec.columns]
        return lambda values: tuple([KEEP if n is None else values[n] for n in found])


def lay_out(
    source: Table, kind: ChangeKind, *, key: str | None, names: Sequence[str]
) -> FileLayout:
    """Determine the roles of the columns in a file, and note any others.

    The operator may choose the header of the key column, and give the file's names for some
    columns: ``Lab ID=private_identifier``.

    Raises:
        BadInputError: The header is incomplete or ambiguous.
    """
    known = [*kind.keys, *(name for name in kind.fields if name not in kind.keys)]
    known += [kind.within[0]] if kind.within else []
    names = [*names, *_read_as_listing(source, kind, known)]
    places = find(source, known, "a bulk update", names=names)
    chosen = _choose_key(source, kind, places, key)
    headers = tuple(name for name in kind.fields if name in places and name != chosen)
    _refuse_twice(source, kind, headers)
    if not headers:
        raise BadInputError(
            f"{source.name} has no column to update.",
            hint=f"Rows are matched by {chosen}. Columns that can be updated: "
            + ", ".join(name for name in kind.fields if name != chosen),
        )
    within = _within(source, kind, places, headers)
    used = {name: places[name] for name in (chosen, *headers, within) if name}
    note_further(source, list(used.values()), names)
    source.days = [places[name] for name in headers if kind.fields[name].column.type == "date"]
    return FileLayout(kind, chosen, used, headers, within)


def _read_as_listing(source: Table, kind: ChangeKind, known: Sequence[str]) -> list[str]:
    """Prepare for the output of the command that lists the table; return columns to ignore."""
    found = {header.strip() for header in source.header}
    if not kind.listing or not found.issuperset(kind.listing):
        return []
    source.is_guarded = True
    ignored = [header for header in kind.listing if header not in known]
    source.notes.append(f"read as a list of {kind.table.noun}s; not imported: {', '.join(ignored)}")
    return [f"{header}=" for header in ignored]


def _choose_key(source: Table, kind: ChangeKind, places: Mapping[str, int], key: str | None) -> str:
    found = [name for name in kind.keys if name in places]
    if key is not None:
        if key not in kind.keys:
            raise BadInputError(
                f"Invalid value for --key: {key!r}",
                hint=f"Choose one of: {', '.join(kind.keys)}.",
            )
        if key not in places:
            raise BadInputError(
                f"Invalid value for --key: {source.name} has no column {key}",
                hint="Check its header, or map the column with --map.",
            )
        return key
    if not found:
        raise BadInputError(
            f"{source.name} has no column that identifies the {kind.table.noun} of each row.",
            hint=f"Add one of: {', '.join(kind.keys)}. If the file has it under another name: "
            f"--map 'HEADER={next(iter(kind.keys))}'",
            details=[f"found: {', '.join(source.header)}"],
        )
    if len(found) > 1:
        if kind.table.id in found:
            raise BadInputError(
                f"Several columns could identify the {kind.table.noun} of each row: "
                f"{', '.join(found)}",
                hint=f"Choose one: {' or '.join(f'--key {name}' for name in found)}",
            )
        source.notes.append(f"{kind.table.noun}s are matched by {found[0]} (to change: --key)")
    return found[0]


def _within(
    source: Table, kind: ChangeKind, places: Mapping[str, int], headers: Sequence[str]
) -> str | None:
    """Return the header that scopes some values; the file must have both or neither."""
    if kind.within is None:
        return None
    within = kind.within[0]
    aside = [name for name, field in kind.fields.items() if field.column.side]
    lying = [name for name in headers if name in aside]
    if (within in places) == bool(lying):
        return within if lying else None
    has, lacks = (lying, [within]) if lying else ([within], aside)
    raise BadInputError(
        f"{source.name} has the column {', '.join(has)} but no column {' or '.join(lacks)}",
        hint=f"A {aside[0]} belongs to a {within}: give both columns, or neither.",
    )


def _refuse_twice(source: Table, kind: ChangeKind, headers: Sequence[str]) -> None:
    for header in headers:
        other = kind.renaming.get(header)
        if other in headers:
            raise BadInputError(
                f"{source.name} has two columns with the new {other}: {other} and {header}",
                hint=f"Remove one of them, or match rows by the first: --key {other}",
            )


def checked_clear_word(word: str | None) -> str | None:
    """Return the word that clears a value, without surrounding white space.

    Raises:
        BadInputError: The word is blank; a blank cell leaves its value unchanged.
    """
    if word is not None and not word.strip():
        raise BadInputError(
            "--clear-word cannot be blank: a blank cell leaves the value unchanged.",
            hint="Choose a word that does not occur as a value.",
        )
    return word and word.strip()


def read_changes(
    source: Table,
    layout: FileLayout,
    fault: Callable[[Fault], None],
    pass_on: PassOn = iter,
    clear_word: str | None = None,
    *,
    sought: SoughtKey = lambda _line, _key: None,
    missing_words: bool = False,
    days: DayFormat | None = None,
) -> Iterator[RowRequest]:
    r"""Yield the valid rows of a file, and report the bad ones to ``fault``.

    A blank cell leaves its value unchanged; ``\N`` or the given word clears it. Dates are in ISO
    8601 or the given format. For the other arguments, see `read_mapping`.
    """
    width = len(source.header)
    fields, places, within = layout.kind.fields, layout.places, layout.kind.within
    clearing = {CLEARED, clear_word, *(source.template.clearing if source.template else ())}
    headers = [layout.key, *layout.headers]
    key = _Parser(
        source, layout.kind.keys[layout.key], (None, "is blank"), missing_words=missing_words
    )
    readers = [(places[layout.key], key.parse)]  # not from the cache: nearly all keys differ
    for header in layout.headers:
        parser = _Parser(
            source, fields[header], (KEEP, None), clearing, missing_words=missing_words, days=days
        )
        readers.append((places[header], parser.parse_cached))
    future = [
        (place, DayNotes(name))
        for place, name in enumerate(layout.headers)
        if fields[name].column.type == "date"
    ]
    if within and layout.within:
        headers.append(layout.within)
        parser = _Parser(source, within[1], (None, None), missing_words=True)
        readers.append((places[layout.within], parser.parse))
    arranged = layout.arranging()
    for line, cells in pass_on(source.records(fault)):
        record = cells if len(cells) == width else source.fit(line, cells, fault)
        if record is None:
            continue
        (name, *values), reasons = zip(*[read(record[at]) for at, read in readers], strict=True)
        if isinstance(name, str) and not name.isascii():
            sought(line, name)
        if isinstance(name, str) and reasons.count(None) == len(reasons):
            place = values.pop() if layout.within else None
            where = place if isinstance(place, str) else None
            for at, counter in future:
                counter.look_at(line, values[at], record[places[layout.headers[at]]])
            yield RowRequest(line, name, arranged(values), None, where)
            continue
        for header, reason in zip(headers, reasons, strict=True):
            if reason:
                fault(Fault(line, header, reason))
    for _at, counter in future:
        source.notes.extend(counter.notes())


class _Parser:
    """A parser for the cells of a column, with the result for a blank one.

    It may accept words that clear a value, words such as ``NA`` as names, and a date format in
    addition to ISO 8601.
    """

    def __init__(
        self,
        source: Table,
        field: Field,
        blank: _Read,
        clearing: Collection[str | None] = (),
        *,
        missing_words: bool,
        days: DayFormat | None = None,
    ):
        self._source = source
        self._field = field
        self._blank = blank
        self._clearing = clearing
        self._missing_words = missing_words or not field.names
        dated = days if field.column.type == "date" else None
        self._understand = dated.understand if dated else field.understand
        self._known: dict[str, _Read] = {}

    def parse_cached(self, cell: str) -> _Read:
        """Parse a cell of a column that repeats a few values, as most do."""
        if cell.__class__ is not str:  # an `Unusable` cell looks blank
            return self.parse(cell)
        found = self._known.get(cell)
        if found is None:
            found = self.parse(cell)
            if len(self._known) < _REMEMBERED:
                self._known[cell] = found
        return found

    def parse(self, cell: str) -> _Read:
        """Return the value in a cell, or None and the reason the cell is invalid."""
        reason = _damage(self._source, cell)
        if reason is not None:
            return None, reason
        text = cell.strip()
        if not text:
            return self._blank
        if text in self._clearing:
            uncleared = self._field.uncleared
            return None, uncleared and f"cannot be cleared: {uncleared}"
        missing = None if self._missing_words else missing_in(text)
        return (None, missing) if missing else self._understand(text)


def _damage(source: Table, cell: str) -> str | None:
    return _REPORTED if source.is_reported(cell) else spoiled(cell)


def spoiled(cell: str) -> str | None:
    """Return a reason if a cell of a spreadsheet holds no usable value, else None."""
    return cell.reason if isinstance(cell, Unusable) else error_in(cell.strip())
