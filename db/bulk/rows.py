"""What a bulk run is told, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final, NamedTuple


class Keep(Enum):
    """That a row leaves a column as it is."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP

Value = str | None
"""What a column holds, as text; None for nothing."""
Cell = str | Keep | None
"""What a row says of a column."""


class Request(NamedTuple):  # made a million times: three times faster than a frozen dataclass
    """One row of a file.

    Attributes:
        line: Its line in the file; no two rows have the same.
        key: What finds the row of the table.
        values: What each column of the specification shall hold.
        expected: What each of them that changes must hold now; None when any will do.
        within: Where the values lie that lie in other tables, if the specification asks for it.
        label: What messages call the row when it is gone, if the specification asks for it.
    """

    line: int
    key: str
    values: tuple[Cell, ...]
    expected: tuple[Cell, ...] | None = None
    within: Value = None
    label: Value = None


_Fields = tuple[int, str, tuple[Cell, ...], tuple[Cell, ...] | None, Value, Value]
make_request: Callable[[_Fields], Request] = partial(tuple.__new__, Request)
"""A `Request` of its fields, all of them and in their order, at a third of the price."""


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be applied.

    Attributes:
        line: Its line in the file.
        column: The column at fault; empty when it is the line as a whole.
        reason: What is wrong with it, as the end of a sentence.
    """

    line: int
    column: str
    reason: str


class Change(NamedTuple):
    """What a row says of one column; both may be the same.

    Attributes:
        column: Its name.
        before: What is there now; None for nothing, or where that is not known.
        after: What shall be there.
        same: Whether they are the same, where their texts do not tell.
    """

    column: str
    before: Value
    after: Value
    same: bool | None = None

    @property
    def is_same(self) -> bool:
        """Whether it is so already."""
        return self.before == self.after if self.same is None else self.same


class PlannedRow(NamedTuple):
    """What will happen to one row.

    Attributes:
        line: Its line in the file.
        key: As in the file.
        changes: What it says of each column that it names.
        becomes: ``create`` or ``delete``, where the row comes into being, or goes.
        within: Where those values lie that lie in other tables, if there are several places.
    """

    line: int
    key: str
    changes: tuple[Change, ...]
    becomes: str | None = None
    within: Value = None

    @property
    def action(self) -> str:
        """``create``, ``delete``, ``change``, or ``same`` where it is so already."""
        is_same = all(change.is_same for change in self.changes)
        return self.becomes or ("same" if is_same else "change")


class MovedRow(NamedTuple):
    """A column that does not hold what was expected of it.

    Attributes:
        line: Its line in the file.
        key: As in the file.
        label: How messages name the row.
        column: The column's name.
        expected: What it was to hold.
        found: What it holds.
    """

    line: int
    key: str
    label: str
    column: str
    expected: Value
    found: Value


class AssessedRow(NamedTuple):
    """One row of the file, whether it can be applied or not.

    Attributes:
        line: Its line in the file.
        key: As in the file.
        changes: What it says of each column that it names.
        reason: Why it is not applied; None when it is.
        left_out: Whether it was left out of the plan, instead of forbidding it.
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
    """What a file means for the database as it is now.

    Attributes:
        rows: How many rows the file has.
        to_change: How many will be written.
        already: How many are so already.
        left_out: How many are left alone; only where that was asked for.
        detours: How many values have to be given up first, because another row takes them.
        problems: How many problems there are; with any, nothing can be applied.
        forced: How many are planned although they do not hold what was expected of them.
        passed_on: How many rows pass on to others what rows are found by. The same file would then
            find other rows the next time.
        tally: What that is in rows of the table, where these may come and go.
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
    """How many rows of the table come, go, and change otherwise; each may have several lines."""

    created: int
    deleted: int
    changed: int
