"""The input and output rows of a bulk run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final, NamedTuple


class Keep(Enum):
    """A marker for a column that a row leaves unchanged."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

Value = str | None
"""The value of a column, as text; None for NULL."""
Cell = str | Keep | None
"""The value that a row gives for a column, or `KEEP`."""


class Request(NamedTuple):  # created a million times: three times faster than a frozen dataclass
    """One row of a file.

    Attributes:
        line: The line in the file; no two rows have the same.
        key: The key by which the row of the table is found.
        values: The new value of each column of the specification.
        expected: The value that each changing column must hold now; None if any will do.
        within: Where values in other tables belong, if the specification requires it.
        label: The label of the row in case it is gone, if the specification requires it.
    """

    line: int
    key: str
    values: tuple[Cell, ...]
    expected: tuple[Cell, ...] | None = None
    within: Value = None
    label: Value = None


_Fields = tuple[int, str, tuple[Cell, ...], tuple[Cell, ...] | None, Value, Value]
make_request: Callable[[_Fields], Request] = partial(tuple.__new__, Request)
"""Creates a `Request` from all its fields, in order, at a third of the cost."""


@dataclass(frozen=True)
class Problem:
    """A reason why a row cannot be applied.

    Attributes:
        line: The line in the file.
        column: The column at fault; empty if it is the line as a whole.
        reason: The reason, as the end of a sentence.
    """

    line: int
    column: str
    reason: str


class Change(NamedTuple):
    """The old and new value of one column, which may be the same.

    Attributes:
        column: The name of the column.
        before: The current value; None if it is NULL or unknown.
        after: The new value.
        same: Whether they are the same, if their texts do not show it.
    """

    column: str
    before: Value
    after: Value
    same: bool | None = None

    @property
    def is_same(self) -> bool:
        """Return True if the value does not change."""
        return self.before == self.after if self.same is None else self.same


class PlannedRow(NamedTuple):
    """The plan for one row.

    Attributes:
        line: The line in the file.
        key: The key, as in the file.
        changes: The old and new value of each column that the row gives.
        becomes: ``create`` or ``delete``, if the row is created or deleted.
        within: Where values in other tables belong, if that is ambiguous.
    """

    line: int
    key: str
    changes: tuple[Change, ...]
    becomes: str | None = None
    within: Value = None

    @property
    def action(self) -> str:
        """Return ``create``, ``update``, ``delete``, or ``unchanged``."""
        is_same = all(change.is_same for change in self.changes)
        return self.becomes or ("unchanged" if is_same else "update")


class MovedRow(NamedTuple):
    """A column that does not hold the expected value.

    Attributes:
        line: The line in the file.
        key: The key, as in the file.
        label: The name of the row in messages.
        column: The name of the column.
        expected: The expected value.
        found: The current value.
    """

    line: int
    key: str
    label: str
    column: str
    expected: Value
    found: Value


class AssessedRow(NamedTuple):
    """One row of the file, whether or not it can be applied.

    Attributes:
        line: The line in the file.
        key: The key, as in the file.
        changes: The old and new value of each column that the row gives.
        reason: The reason why it is not applied; None if it is.
        left_out: Whether it was left out of the plan, instead of blocking it.
        becomes: See `PlannedRow`.
        within: See `PlannedRow`.
    """

    line: int
    key: str
    changes: tuple[Change, ...]
    reason: str | None = None
    left_out: bool = False
    becomes: str | None = None
    within: Value = None


@dataclass(frozen=True)
class Plan:
    """The effect of a file on the database as it is now.

    Attributes:
        rows: The number of rows in the file.
        to_change: The number of rows that will be written.
        already: The number of unchanged rows.
        left_out: The number of skipped rows; only if skipping was requested.
        detours: The number of values that must be given up first, because another row takes them.
        problems: The number of problems; with any, nothing can be applied.
        forced: The number of rows planned although they do not hold the expected values.
        passed_on: The number of rows that pass their key on to another row. The same file would
            then find other rows the next time.
        tally: The same in rows of the table, if these may be created and deleted.
    """

    rows: int
    to_change: int
    already: int
    left_out: int
    detours: int
    problems: int
    forced: int = 0
    passed_on: int = 0
    tally: Tally | None = None


@dataclass(frozen=True)
class Tally:
    """Counts of rows of the table that are created, deleted, or updated, whatever their lines."""

    created: int
    deleted: int
    changed: int
