"""What a bulk run is about: one table, the rows it may touch, how they are found, what changes.

The statements of `plan_sql`, `check_sql`, `read_sql` and `write_sql` are made from such a
specification, whose names are this program's own constants; whatever comes from a file is bound
or copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
        also: What else people call it, in SQL.
        is_path: Whether that is a path such as ``Europe / Greece``, whatever spaces it has.
        id: The column that the number is of.
    """

    table: str
    noun: str
    text: str
    also: str | None = None
    is_path: bool = False
    id: str = "id"

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a row may be called."""
        return (self.text, self.also) if self.also else (self.text,)


@dataclass(frozen=True)
class Side:
    """Another table in which a column of a row lies.

    Attributes:
        table: With its schema.
        id: What identifies its rows.
        joins: SQL that joins it as ``{t}`` to a row ``{s}``; further names must begin with ``{t}``.
            ``{within}`` is what the row of the file lies within, where there is such a thing.
        owner: The condition, in SQL, that a row ``{t}`` is still that of the row ``p`` of a plan.
        lacks: How messages say that a row has none there, or has several.
        inserts: Where a row of it comes with a value and goes with it: what else a new one holds,
            in SQL, of the row ``p`` of a plan. None where rows are there already or not at all.
    """

    table: str
    id: str
    joins: str
    owner: str
    lacks: str
    inserts: Mapping[str, str] | None = None


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
        fold: Whether letter case does not matter when rows are found by it, or when it is unique.
        default: What a new row holds in it that does not say, in SQL.
        needed: Why a new row has to say; None where it need not.
        hidden: Whether no file has it, and it is not shown; a new row has its default.
    """

    name: str
    stored: str
    type: str = "varchar"
    nullable: bool = False
    unique: bool = False
    verb: str | None = None
    reference: Reference | None = None
    side: Side | None = None
    fold: bool = False
    default: str | None = None
    needed: str | None = None
    hidden: bool = False

    def compared(self, value: str) -> str:
        """A value of it as it is compared with others, where letter case may not matter."""
        return f"lower({value})" if self.fold else value

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
        creates: Whether rows that are not there are made. Then it has all columns of the table,
            each of them nullable, since of a row that is not there each is nothing.
        within: What tells where the values lie that lie in other tables, such as a group: a row of
            the table may then have several lines.
        keeps_key: Whether no row of the file changes what rows are found by, though it could.
    """

    table: Table
    key: Column
    columns: tuple[Column, ...]
    partial: bool = False
    expects: bool = False
    creates: bool = False
    within: Column | None = None
    keeps_key: bool = False

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
    def tells_label(self) -> bool:
        """Whether the file tells what messages call a row, beside what finds it: an undo file."""
        return self.expects and self.by_id

    @property
    def changes_key(self) -> bool:
        """Whether the column by which rows are found is one that changes."""
        return self.key_number is not None

    @property
    def key_number(self) -> int | None:
        """The number of the changing column by which rows are found, if there is one."""
        found = (n for n, column in self.numbered() if column.stored == self.key.stored)
        return next(found, None)

    def restoring(self, *, by_key: bool = False) -> Spec:
        """The specification of a run that takes this one back.

        Args:
            by_key: Whether it finds rows as this one does, and not by what identifies them for
                good; only a simple rename can.
        """
        if by_key:
            return replace(self, expects=True)
        key = Column(self.table.id, self.table.id, type="bigint")
        partial = not self.is_plain
        return replace(self, key=key, partial=partial, expects=True, keeps_key=True)

    @property
    def labelled(self) -> int:
        """The number of the column by which messages name a row."""
        return next(n for n, column in self.numbered() if column.stored == self.table.label)

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

    def looked_up(self) -> list[tuple[int | str, Reference, Column]]:
        """All that refers to other tables: `references`, and what rows lie within (``w``)."""
        found: list[tuple[int | str, Reference, Column]] = [*self.references()]
        if self.within and self.within.reference:
            found.append(("w", self.within.reference, self.within))
        return found
