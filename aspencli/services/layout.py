"""The layout of a file of changes: its key column, and the columns that change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.services.cells import Field
from aspencli.services.headers import find, note_further
from aspencli.services.tables import Table
from db.bulk.rows import KEEP, Cell
from db.bulk.spec import Column, Spec
from db.bulk.spec import Table as Stored


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
    """

    table: Stored
    keys: Mapping[str, Field]
    fields: Mapping[str, Field]
    renaming: Mapping[str, str]
    creates: tuple[Column, ...] = ()
    within: tuple[str, Field] | None = None


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
    places = find(source, known, "a file of changes", names=names)
    chosen = _choose_key(source, kind, places, key)
    headers = tuple(name for name in kind.fields if name in places and name != chosen)
    _refuse_twice(source, kind, headers)
    if not headers:
        raise BadInputError(
            f"{source.name} has no column that changes anything",
            hint=f"Rows are found by {chosen}. What may change: "
            + ", ".join(name for name in kind.fields if name != chosen),
        )
    within = _within(source, kind, places, headers)
    used = {name: places[name] for name in (chosen, *headers, within) if name}
    note_further(source, list(used.values()), names)
    source.days = [places[name] for name in headers if kind.fields[name].column.type == "date"]
    return Layout(kind, chosen, used, headers, within)


def _choose_key(source: Table, kind: Kind, places: Mapping[str, int], key: str | None) -> str:
    found = [name for name in kind.keys if name in places]
    if key is not None:
        if key not in kind.keys:
            raise BadInputError(
                f"--key {key!r} is nothing that rows can be found by",
                hint=f"Give one of: {', '.join(kind.keys)}.",
            )
        if key not in places:
            raise BadInputError(
                f"{source.name} has no column {key}, which --key names",
                hint="Look at its header, or name the column with --map.",
            )
        return key
    if not found:
        raise BadInputError(
            f"{source.name} has no column that tells which {kind.table.noun} a row means",
            hint=f"Give one of: {', '.join(kind.keys)}; or say which it is with "
            f"--map 'HEADER={next(iter(kind.keys))}'.",
            details=[f"found: {', '.join(source.header)}"],
        )
    if len(found) > 1:
        if kind.table.id in found:
            raise BadInputError(
                f"each of {' and '.join(found)} could tell which {kind.table.noun} a row means",
                hint=" or ".join(f"--key {name}" for name in found),
            )
        source.notes.append(f"{kind.table.noun}s are found by {found[0]}; --key says otherwise")
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
        f"{source.name} has the column {', '.join(has)} and no column {' or '.join(lacks)}",
        hint=f"Each {aside[0]} is one within a {within}: give both, or neither.",
    )


def _refuse_twice(source: Table, kind: Kind, headers: Sequence[str]) -> None:
    for header in headers:
        other = kind.renaming.get(header)
        if other in headers:
            raise BadInputError(
                f"{other} and {header} of {source.name} both say what shall be in its place",
                hint=f"Leave one out, or find rows by the former: --key {other}",
            )
