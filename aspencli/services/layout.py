"""Which column of a file finds the rows, and which ones change: by its header, or as told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aspencli.errors import BadInputError
from aspencli.services.cells import Field
from aspencli.services.headers import find, note_further
from aspencli.services.tables import Table
from db.bulk.spec import Spec
from db.bulk.spec import Table as Stored


@dataclass(frozen=True)
class Kind:
    """What a file of changes may have.

    Attributes:
        table: What is changed.
        keys: What may find its rows, by header; the first that a file has does, unless an ``id``
            or the operator says otherwise.
        fields: What may change, by header.
        renaming: Headers that change what another header may find rows by.
    """

    table: Stored
    keys: Mapping[str, Field]
    fields: Mapping[str, Field]
    renaming: Mapping[str, str]


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are.

    Attributes:
        kind: What the file is about.
        key: The header by which rows are found, and where it stands.
        headers: The headers that change something, and where they stand.
    """

    kind: Kind
    key: str
    places: Mapping[str, int]
    headers: tuple[str, ...]

    @property
    def spec(self) -> Spec:
        """What is planned and written."""
        key = self.kind.keys[self.key].column
        columns = tuple(self.kind.fields[header].column for header in self.headers)
        return Spec(self.kind.table, key, columns, partial=True)


def lay_out(source: Table, kind: Kind, *, key: str | None, names: Sequence[str]) -> Layout:
    """Find out what the columns of a file are; the further ones are noted.

    Args:
        source: The file, its header read.
        kind: What it may have.
        key: The header by which rows are found, as the operator says.
        names: What the file calls some columns: ``Lab ID=private_identifier``.

    Raises:
        BadInputError: The header does not tell, or tells two things at once.
    """
    known = [*kind.keys, *(name for name in kind.fields if name not in kind.keys)]
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
    used = {name: places[name] for name in (chosen, *headers)}
    note_further(source, list(used.values()))
    source.days = [places[name] for name in headers if kind.fields[name].column.type == "date"]
    return Layout(kind, chosen, used, headers)


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


def _refuse_twice(source: Table, kind: Kind, headers: Sequence[str]) -> None:
    for header in headers:
        other = kind.renaming.get(header)
        if other in headers:
            raise BadInputError(
                f"{other} and {header} of {source.name} both say what shall be in its place",
                hint=f"Leave one out, or find rows by the former: --key {other}",
            )
