"""What a bulk run is about: one table, the rows it may touch, how they are found, what changes.

The statements of `plan_sql`, `check_sql`, `read_sql` and `write_sql` are made from such a
specification, whose names are this program's own constants; whatever comes from a file is bound
or copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Table:
    """A table whose rows are changed.

    Attributes:
        name: With its schema.
        noun: What messages call a row.
        lacks: How messages say that a row is not there; its key follows.
        scope: The column that holds what a run is bound to, such as the group; None for none.
        label: The column by which messages name a row; a text that is unique within the scope.
        id: The column that identifies a row for good.
    """

    name: str
    noun: str
    lacks: str
    scope: str | None
    label: str
    id: str = "id"


@dataclass(frozen=True)
class Reference:
    """Another table that a column refers to: by its number, or by what people call its rows.

    Attributes:
        table: With its schema.
        noun: What messages call a row.
        text: What people call a row ``r``, in SQL.
        is_path: Whether that is a path such as ``Europe / Greece``, whatever spaces it has.
        id: The column that the number is of.
    """

    table: str
    noun: str
    text: str
    is_path: bool = False
    id: str = "id"


@dataclass(frozen=True)
class Side:
    """Another table in which a column of a row lies.

    Attributes:
        table: With its schema.
        id: What identifies its rows.
        joins: SQL that joins it as ``{t}`` to a row ``{s}``; further names must begin with ``{t}``.
        owner: The condition, in SQL, that a row ``{t}`` is still that of the row ``p`` of a plan.
        lacks: How messages say that a row has none there.
    """

    table: str
    id: str
    joins: str
    owner: str
    lacks: str


@dataclass(frozen=True)
class Column:
    """A column that finds rows, or that changes.

    Attributes:
        name: What files, reports and messages call it.
        stored: What the table calls it.
        type: Its type in SQL.
        nullable: Whether it may be cleared.
        unique: Whether no two rows of the scope may hold the same; such a column is a text.
        verb: How messages say what a row holds: ``is named``.
        reference: What it refers to; files then name that by number or by text.
        side: The other table that it lies in.
    """

    name: str
    stored: str
    type: str = "varchar"
    nullable: bool = False
    unique: bool = False
    verb: str | None = None
    reference: Reference | None = None
    side: Side | None = None

    @property
    def holds(self) -> str:
        """How messages say what a row holds in it."""
        return self.verb or f"has {self.name}"

    @property
    def differs(self) -> str:
        """The operator that tells two of its values apart."""
        return "IS DISTINCT FROM" if self.nullable else "<>"

    @property
    def equals(self) -> str:
        """The operator that tells that two of its values are the same."""
        return "IS NOT DISTINCT FROM" if self.nullable else "="


@dataclass(frozen=True)
class Spec:
    """One kind of bulk run.

    Attributes:
        table: Where it writes.
        key: The column by which rows are found; unique within the scope.
        columns: What changes, in the order of a request's values.
        partial: Whether a row may leave columns as they are (`KEEP`).
        expects: Whether rows tell what they must hold now, as those of an undo file do.
    """

    table: Table
    key: Column
    columns: tuple[Column, ...]
    partial: bool = False
    expects: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether each row gives one value that is never nothing: the form of simple renames."""
        first, *others = self.columns
        return not (self.partial or others or first.nullable or self.changes_key)

    @property
    def by_id(self) -> bool:
        """Whether rows are found by what identifies them for good."""
        return self.key.stored == self.table.id

    @property
    def changes_key(self) -> bool:
        """Whether the column by which rows are found is one that changes."""
        return self.key_number is not None

    @property
    def key_number(self) -> int | None:
        """The number of the changing column by which rows are found, if there is one."""
        found = (n for n, column in self.numbered() if column.stored == self.key.stored)
        return next(found, None)

    def restoring(self) -> Spec:
        """The specification of a run that takes this one back."""
        if self.is_plain:
            return replace(self, expects=True)
        key = Column(self.table.id, self.table.id, type="bigint")
        return replace(self, key=key, partial=True, expects=True)

    def numbered(self) -> Iterator[tuple[int, Column]]:
        """Each column with the number by which statements call it."""
        return iter(enumerate(self.columns))

    def unique(self) -> list[tuple[int, Column]]:
        """Those that no two rows may share."""
        return [(number, column) for number, column in self.numbered() if column.unique]

    def own(self) -> list[tuple[int, Column]]:
        """Those that lie in the table itself."""
        return [(number, column) for number, column in self.numbered() if not column.side]

    def aside(self) -> list[tuple[int, Side, Column]]:
        """Those that lie in other tables."""
        return [(number, c.side, c) for number, c in self.numbered() if c.side]

    def references(self) -> list[tuple[int, Reference, Column]]:
        """Those that refer to other tables."""
        return [(number, c.reference, c) for number, c in self.numbered() if c.reference]
