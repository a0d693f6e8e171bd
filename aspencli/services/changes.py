"""Streaming reader for files that change any columns; every bad line is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from aspencli.errors import BadInputError
from aspencli.services.cells import Field
from aspencli.services.dates import DayFormat, FutureDays
from aspencli.services.decoding import Fault
from aspencli.services.layout import Layout
from aspencli.services.mapping import PassOn, SoughtKey, fitted
from aspencli.services.sheet_damage import error_in, missing_in
from aspencli.services.tables import Table
from aspencli.services.unusable import Unusable
from db.bulk.rows import KEEP, Cell, Request

CLEARED = "\\N"
"""The cell content that clears a value."""

_REMEMBERED = 4_096  # cached cells per column
_TOLD = ""  # the reason for a cell whose line was already reported
_Read = tuple[Cell, str | None]


def checked_clear_word(word: str | None) -> str | None:
    """Return the word that clears a value, without surrounding white space.

    Raises:
        BadInputError: The word is blank; a blank cell leaves its value unchanged.
    """
    if word is not None and not word.strip():
        raise BadInputError(
            "--clear-word is blank, and a blank cell leaves a value as it is",
            hint="Give a word that nothing else is called.",
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
    return _TOLD if source.is_told(cell) else error_in(cell.strip())
