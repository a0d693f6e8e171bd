"""Read files that change any columns: their layout, and their rows one by one.

A layout has a key column, the columns that change, and perhaps one that scopes some of them. Every
bad line is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aspen.database.bulk.spec import KEEP, Cell, Column, Request, Spec
from aspen.database.bulk.spec import Table as Stored
from aspencli.changes.cells import Field, PassOn, SoughtKey, fitted
from aspencli.errors import BadInputError
from aspencli.tabular.damage import error_in, missing_in
from aspencli.tabular.dates import DayFormat, FutureDays
from aspencli.tabular.delimited import Delimited, Fault
from aspencli.tabular.headers import find, note_further
from aspencli.tabular.table import Table
from aspencli.tabular.xlsx_cells import Unusable

CLEARED = "\\N"
"""The cell content that clears a value."""

_REMEMBERED = 4_096  # cached cells per column
_REPORTED = ""  # the reason for a cell whose line was already reported
_Read = tuple[Cell, str | None]


@dataclass(frozen=True)
class Kind:
    """The columns that a kind of file of changes may have.

    Attributes:
        table: The table to change.
        keys: The possible keys, by header. The first one in the file is used, but the operator has
            to choose if ``id`` is one of several.
        fields: The fields that may change, by header.
        renaming: Headers that change the key under another header.
        creates: All columns of the table, if missing rows are created.
        within: The header and field that scope the values stored in other tables, such as the
            group; a row may then span several lines.
        listing: The headers of the command that lists the table. A file with all of them is read
            as that command's output.
    """

    table: Stored
    keys: Mapping[str, Field]
    fields: Mapping[str, Field]
    renaming: Mapping[str, str]
    creates: tuple[Column, ...] = ()
    within: tuple[str, Field] | None = None
    listing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """The roles of the columns in a file.

    Attributes:
        kind: The kind of file.
        key: The header of the key column.
        places: The positions of the used columns, by header.
        headers: The headers of the columns that change.
        within: The header of the column that scopes some of the values, if there is one.
    """

    kind: Kind
    key: str
    places: Mapping[str, int]
    headers: tuple[str, ...]
    within: str | None = None

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


def lay_out(source: Table, kind: Kind, *, key: str | None, names: Sequence[str]) -> Layout:
    """Determine the roles of the columns in a file, and note any others.

    Args:
        source: The file, with its header read.
        kind: The kind of file.
        key: The header of the key column, if the operator chose one.
        names: The file's names for some columns: ``Lab ID=private_identifier``.

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
    return Layout(kind, chosen, used, headers, within)


def _read_as_listing(source: Table, kind: Kind, known: Sequence[str]) -> list[str]:
    """Prepare for the output of the command that lists the table; return columns to ignore."""
    found = {header.strip() for header in source.header}
    if not kind.listing or not found.issuperset(kind.listing):
        return []
    if isinstance(source, Delimited):
        source.unguard()
    ignored = [header for header in kind.listing if header not in known]
    source.notes.append(f"read as a list of {kind.table.noun}s; not imported: {', '.join(ignored)}")
    return [f"{header}=" for header in ignored]


def _choose_key(source: Table, kind: Kind, places: Mapping[str, int], key: str | None) -> str:
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
    source: Table, kind: Kind, places: Mapping[str, int], headers: Sequence[str]
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


def _refuse_twice(source: Table, kind: Kind, headers: Sequence[str]) -> None:
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
    layout: Layout,
    fault: Callable[[Fault], None],
    pass_on: PassOn = iter,
    clear_word: str | None = None,
    *,
    sought: SoughtKey = lambda _line, _key: None,
    missing_words: bool = False,
    days: DayFormat | None = None,
) -> Iterator[Request]:
    r"""Yield the valid rows of a file, and report the bad ones to ``fault``.

    A blank cell leaves its value unchanged.

    Args:
        source: The file.
        layout: The layout of its columns.
        fault: Called with each fault.
        pass_on: Wraps the stream of rows.
        clear_word: A word that clears a value, in addition to ``\N``.
        sought: Called with the line and text of each key that is not ASCII.
        missing_words: Whether to accept words such as ``NA`` as names.
        days: A date format to accept in addition to ISO 8601.
    """
    width = len(source.header)
    clearing = frozenset(
        {CLEARED, clear_word, *(source.template.clearing if source.template else ())}
    )
    headers = (layout.key, *layout.headers)
    key = _Key(source, layout.kind.keys[layout.key], missing_words=missing_words)
    readers = [(layout.places[layout.key], key.read)]
    readers += [
        (
            layout.places[name],
            _Column(
                source,
                _dated(layout.kind.fields[name], days),
                clearing,
                missing_words=missing_words,
            ).read,
        )
        for name in layout.headers
    ]
    future = [
        (place, FutureDays(name))
        for place, name in enumerate(layout.headers)
        if layout.kind.fields[name].column.type == "date"
    ]
    within = layout.kind.within[1] if layout.kind.within and layout.within else None
    if layout.within and within:
        headers = (*headers, layout.within)
        readers.append(
            (layout.places[layout.within], _Place(source, within, missing_words=True).read)
        )
    arranged = layout.arranging()
    for line, cells in pass_on(source.records(fault)):
        record = cells if len(cells) == width else fitted(source, line, cells, fault)
        if record is None:
            continue
        (name, *values), reasons = zip(*[read(record[at]) for at, read in readers], strict=True)
        if isinstance(name, str) and not name.isascii():
            sought(line, name)
        if isinstance(name, str) and reasons.count(None) == len(reasons):
            place = values.pop() if within else None
            where = place if isinstance(place, str) else None
            for at, counter in future:
                counter.look_at(line, values[at])
            yield Request(line, name, arranged(values), None, where)
            continue
        for header, reason in zip(headers, reasons, strict=True):
            if reason:
                fault(Fault(line, header, reason))
    for _at, counter in future:
        source.notes.extend(counter.notes())


def _dated(field: Field, days: DayFormat | None) -> Field:
    """Return the field with the date format applied, if it is a date column."""
    if days is None or field.column.type != "date":
        return field
    return replace(field, understand=days.understand)


class _Key:
    """A parser for the cells of the key column.

    Args:
        source: The file.
        field: The column.
        missing_words: Whether to accept words such as ``NA`` as names.
    """

    def __init__(self, source: Table, field: Field, *, missing_words: bool):
        self._source = source
        self._field = field
        self._missing_words = missing_words or not field.names

    def read(self, cell: str) -> _Read:
        """Parse a cell."""
        reason = _damage(self._source, cell)
        if reason is not None:
            return None, reason
        text = cell.strip()
        if not text:
            return None, "is blank"
        missing = None if self._missing_words else missing_in(text)
        return (None, missing) if missing else self._field.understand(text)


class _Place(_Key):
    """A parser for the column that scopes some values, such as the group; it may be blank."""

    def read(self, cell: str) -> _Read:
        """Parse a cell."""
        is_blank = cell.__class__ is str and not cell.strip()
        return (None, None) if is_blank else super().read(cell)


class _Column:
    """A parser for the cells of a column that changes.

    Args:
        source: The file.
        field: The column.
        clearing: The words that clear a value.
        missing_words: Whether to accept words such as ``NA`` as names.
    """

    def __init__(
        self,
        source: Table,
        field: Field,
        clearing: frozenset[str | None],
        *,
        missing_words: bool,
    ):
        self._source = source
        self._field = field
        self._clearing = clearing
        self._missing_words = missing_words or not field.names
        self._known: dict[str, _Read] = {}  # most columns repeat a few values

    def read(self, cell: str) -> _Read:
        """Parse a cell."""
        if cell.__class__ is not str:  # an `Unusable` cell looks blank
            return self._look(cell)
        found = self._known.get(cell)
        if found is None:
            found = self._look(cell)
            if len(self._known) < _REMEMBERED:
                self._known[cell] = found
        return found

    def _look(self, cell: str) -> _Read:
        reason = _damage(self._source, cell)
        if reason is not None:
            return None, reason
        text = cell.strip()
        if not text:
            return KEEP, None
        if text in self._clearing:
            uncleared = self._field.uncleared
            return None, uncleared and f"cannot be cleared: {uncleared}"
        missing = None if self._missing_words else missing_in(text)
        return (None, missing) if missing else self._field.understand(text)


def _damage(source: Table, cell: str) -> str | None:
    if isinstance(cell, Unusable):
        return cell.reason
    return _REPORTED if source.is_reported(cell) else error_in(cell.strip())
