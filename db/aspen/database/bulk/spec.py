"""The specification of a bulk run, and its input and output rows.

A specification names the table and its scope, how rows are found, and what changes. The statements
of `sql_plan`, `sql_create`, and `sql_apply` are built from its names, which are this program's own
constants; all values from a file are bound or copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import ClassVar, Final, NamedTuple


@dataclass(frozen=True)
class BulkTable:
    """A table whose rows are changed; its name includes the schema, and ``id`` identifies rows."""

    id: ClassVar[str] = "id"
    name: str
    noun: str  # for a row in messages
    lacks: str  # the message that a row does not exist, to be followed by its key
    scope: str | None  # the column that limits a run to some rows, such as those of a group
    label: str  # the column by which messages name a row; a text that is unique within the scope


@dataclass(frozen=True)
class Reference:
    """Another table that a column refers to; files give its rows by ID or by name."""

    table: str
    noun: str  # for a row in messages
    text: str  # SQL for the name of a row ``r``
    also: str | None = None  # SQL for an alternative name
    is_path: bool = False  # the name is a path such as ``Europe / Greece``, with any spacing


@dataclass(frozen=True)
class Side:
    """Another table that stores a column of a row."""

    table: str
    id: str  # the column that identifies its rows
    # SQL that joins it as ``{t}`` to a row ``{s}``; other aliases must begin with ``{t}``.
    # ``{within}`` is what the row of the file is within, if the specification has it.
    joins: str
    owner: str  # the SQL condition that a row ``{t}`` still belongs to the row ``p`` of a plan
    lacks: str  # the message that a row has none there, or has several
    # If rows are inserted and deleted along with their value: the other columns of a new one, as
    # SQL over the row ``p`` of a plan.
    inserts: Mapping[str, str] | None = None


@dataclass(frozen=True)
class BulkColumn:
    """A column by which rows are found, or that changes."""

    name: str  # in files, reports and messages
    stored: str = ""  # the name in the table, if it is a different one
    type: str = "varchar"  # in SQL
    nullable: bool = False
    unique: bool = False  # within the scope; such a column is a text
    verb: str | None = None  # introduces its value in messages, such as ``is now named``
    reference: Reference | None = None  # files then give the ID or the name of a row there
    side: Side | None = None
    fold: bool = False  # letter case is ignored in lookups and for uniqueness
    default: str | None = None  # SQL for the value in a new row that does not give one
    needed: str | None = None  # the reason why a new row must give a value
    hidden: bool = False  # never in files and never shown; new rows get the default

    def __post_init__(self) -> None:
        object.__setattr__(self, "stored", self.stored or self.name)

    def compared(self, value: str) -> str:
        """Return SQL for a value as it is compared, in lowercase if letter case is ignored."""
        return f"lower({value})" if self.fold else value

    @property
    def holds(self) -> str:
        """Return the words that introduce its value in messages."""
        return self.verb or f"now has {self.name}"

    @property
    def differs(self) -> str:
        """Return the operator for "is not equal to" between its values."""
        return "IS DISTINCT FROM" if self.nullable else "<>"

    @property
    def equals(self) -> str:
        """Return the operator for "is equal to" between its values."""
        return "IS NOT DISTINCT FROM" if self.nullable else "="


@dataclass(frozen=True)
class Spec:
    """One kind of bulk run."""

    table: BulkTable
    key: BulkColumn  # by which rows are found; unique within the scope
    columns: tuple[BulkColumn, ...]  # that change, in the order of a request's values
    partial: bool = False  # a row may leave columns unchanged (`KEEP`)
    expects: bool = False  # rows give the values that they must hold now, as in an undo file
    # Missing rows are created. The columns are then all columns of the table, each of them
    # nullable, because a missing row has no values.
    creates: bool = False
    # The column that says where values in other tables belong, such as a group; a row of the table
    # may then have several lines.
    within: BulkColumn | None = None
    keeps_key: bool = False  # no row changes the column by which rows are found, though it could

    @property
    def is_plain(self) -> bool:
        """Return True if each row gives one value that is never NULL, as in simple renames."""
        first, *others = self.columns
        return not (self.partial or others or first.nullable or self.changes_key)

    @property
    def by_id(self) -> bool:
        """Return True if rows are found by their permanent ID."""
        return self.key.stored == self.table.id

    @property
    def tells_label(self) -> bool:
        """Return True if the file has a label for each row besides its key, as undo files do."""
        return self.expects and self.by_id

    @property
    def changes_key(self) -> bool:
        """Return True if the column by which rows are found is one that changes."""
        return self.key_number is not None

    @property
    def key_number(self) -> int | None:
        """Return the number of the changing column by which rows are found, if there is one."""
        return next((n for n, c in self.numbered() if c.stored == self.key.stored), None)

    def restoring(self, *, by_key: bool = False) -> Spec:
        """Return the specification of a run that undoes this one.

        It finds rows by their permanent ID, or (only for simple renames) by the same key.
        """
        if by_key:
            return replace(self, expects=True)
        key = BulkColumn(self.table.id, type="bigint")
        partial = not self.is_plain
        return replace(self, key=key, partial=partial, expects=True, keeps_key=True)

    @property
    def labelled(self) -> int:
        """Return the number of the column by which messages name a row."""
        return next(n for n, column in self.numbered() if column.stored == self.table.label)

    def numbered(self) -> Iterator[tuple[int, BulkColumn]]:
        """Return an iterator over the columns and their numbers in statements."""
        return iter(enumerate(self.columns))

    def unique(self) -> list[tuple[int, BulkColumn]]:
        """Return the columns whose values no two rows may share."""
        return [(number, column) for number, column in self.numbered() if column.unique]

    def own(self) -> list[tuple[int, BulkColumn]]:
        """Return the columns that are stored in the table itself."""
        return [(number, column) for number, column in self.numbered() if not column.side]

    def aside(self) -> list[tuple[int, Side, BulkColumn]]:
        """Return the columns that are stored in other tables."""
        return [(number, c.side, c) for number, c in self.numbered() if c.side]

    def references(self) -> list[tuple[int, Reference, BulkColumn]]:
        """Return the columns that refer to other tables."""
        return [(number, c.reference, c) for number, c in self.numbered() if c.reference]

    def looked_up(self) -> list[tuple[int | str, Reference, BulkColumn]]:
        """Return everything that refers to other tables: `references`, and `within` as ``w``."""
        found: list[tuple[int | str, Reference, BulkColumn]] = [*self.references()]
        if self.within and self.within.reference:
            found.append(("w", self.within.reference, self.within))
        return found


class Keep(Enum):
    """A marker for a column that a row leaves unchanged."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

Value = str | None
"""The value of a column, as text; None for NULL."""
Cell = str | Keep | None
"""The value that a row gives for a column, or `KEEP`."""


class RowRequest(NamedTuple):  # created a million times: three times faster than a frozen dataclass
    """One row of a file."""

    line: int  # no two rows have the same
    key: str  # by which the row of the table is found
    values: tuple[Cell, ...]  # the new value of each column of the specification
    expected: tuple[Cell, ...] | None = None  # in each changing column now; None if any will do
    within: Value = None  # where values in other tables belong, if the specification requires it
    label: Value = None  # of the row in case it is gone, if the specification requires it


_Fields = tuple[int, str, tuple[Cell, ...], tuple[Cell, ...] | None, Value, Value]
make_request: Callable[[_Fields], RowRequest] = partial(tuple.__new__, RowRequest)
"""Creates a `RowRequest` from all its fields, in order, at a third of the cost."""


@dataclass(frozen=True)
class Problem:
    """A reason why a row cannot be applied, as the end of a sentence.

    The column is empty if the line as a whole is at fault.
    """

    line: int
    column: str
    reason: str


class ValueChange(NamedTuple):
    """The old and new value of one column, which may be the same."""

    column: str
    before: Value  # None if it is NULL or unknown
    after: Value
    same: bool | None = None  # whether they are the same, if their texts do not show it

    @property
    def is_same(self) -> bool:
        """Return True if the value does not change."""
        return self.before == self.after if self.same is None else self.same


class AssessedRow(NamedTuple):
    """One row of the file with its line and key there, whether or not it can be applied."""

    line: int
    key: str
    changes: tuple[ValueChange, ...]  # of each column that the row gives
    reason: str | None = None  # why it is not applied; None if it is
    left_out: bool = False  # of the plan, instead of blocking it
    becomes: str | None = None  # ``create`` or ``delete``, if the row is created or deleted
    within: Value = None  # where values in other tables belong, if that is ambiguous

    @property
    def action(self) -> str:
        """Return ``create``, ``update``, ``delete``, or ``unchanged``."""
        is_same = all(change.is_same for change in self.changes)
        return self.becomes or ("unchanged" if is_same else "update")


class MovedRow(NamedTuple):
    """A column that does not hold the expected value; messages name its row by the label."""

    line: int
    key: str
    label: str
    column: str
    expected: Value
    found: Value


@dataclass(frozen=True)
class Plan:
    """The effect of a file on the database as it is now, in numbers of rows."""

    rows: int  # in the file
    to_change: int
    already: int  # unchanged
    left_out: int  # skipped; only if skipping was requested
    detours: int  # values that must be given up first, because another row takes them
    problems: int  # with any, nothing can be applied
    forced: int = 0  # planned although they do not hold the expected values
    # Rows that pass their key on to another row. The same file would then find other rows the next
    # time.
    passed_on: int = 0
    tally: Tally | None = None  # in rows of the table, if these may be created and deleted


@dataclass(frozen=True)
class Tally:
    """Counts of rows of the table that are created, deleted, or updated, whatever their lines."""

    created: int
    deleted: int
    changed: int
