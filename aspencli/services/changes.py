"""The rows of a file that changes any columns: read once, streamed, every bad line named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.services.cells import Field
from aspencli.services.decoding import Fault
from aspencli.services.layout import Layout
from aspencli.services.mapping import PassOn, misshapen
from aspencli.services.tables import Table
from aspencli.services.unusable import Unusable
from db.bulk.rows import KEEP, Cell, Request

CLEARED = "\\N"
"""What a cell holds that shall become nothing."""

_TOLD = ""  # the reason of a cell whose line was told already
_Read = tuple[Cell, str | None]


def checked_clear_word(word: str | None) -> str | None:
    """The word that clears a value, without surrounding white space.

    Raises:
        BadInputError: It is blank, which leaves a value as it is.
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
) -> Iterator[Request]:
    r"""The good rows of a file, as they come; what is wrong with the others goes to ``fault``.

    A blank cell leaves the value as it is.

    Args:
        source: The file.
        layout: What its columns are.
        fault: Is told of each bad line.
        pass_on: Sees every row on its way.
        clear_word: What else than ``\N`` clears a value.
    """
    width = len(source.header)
    reader = _Reader(source, frozenset({CLEARED, clear_word}))
    key_place, key = layout.places[layout.key], layout.kind.keys[layout.key]
    cells = [(layout.places[name], layout.kind.fields[name]) for name in layout.headers]
    headers = (layout.key, *layout.headers)
    for line, record in pass_on(source.records(fault)):
        if len(record) != width:
            fault(misshapen(line, len(record), width))
            continue
        found = [reader.key(key, record[key_place])]
        found += [reader.value(field, record[place]) for place, field in cells]
        name, *values = [value for value, _reason in found]
        if isinstance(name, str) and all(reason is None for _value, reason in found):
            yield Request(line, name, tuple(values))
            continue
        for header, (_value, reason) in zip(headers, found, strict=True):
            if reason:
                fault(Fault(line, header, reason))


@dataclass(frozen=True)
class _Reader:
    """Tells what the cells of a file mean.

    Attributes:
        source: The file.
        clearing: What clears a value.
    """

    source: Table
    clearing: frozenset[str | None]

    def key(self, field: Field, cell: str) -> _Read:
        """What finds a row, and what is wrong with it."""
        reason = self._damage(cell)
        if reason is not None:
            return None, reason
        text = cell.strip()
        return field.understand(text) if text else (None, "is blank")

    def value(self, field: Field, cell: str) -> _Read:
        """What a column shall hold, and what is wrong with it."""
        reason = self._damage(cell)
        if reason is not None:
            return None, reason
        text = cell.strip()
        if not text:
            return KEEP, None
        if text in self.clearing:
            uncleared = field.uncleared
            return None, uncleared and f"cannot be cleared: {uncleared}"
        return field.understand(text)

    def _damage(self, cell: str) -> str | None:
        if isinstance(cell, Unusable):
            return cell.reason
        return _TOLD if self.source.is_told(cell) else None
