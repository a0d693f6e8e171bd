"""How each kind of bulk run is shown: its columns, which are contracts, and its words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from aspencli.output.rendering import Column, Row
from aspencli.services.report import CHANGES, RENAMES, ReportForm

if TYPE_CHECKING:
    from db.bulk.rows import MovedRow, PlannedRow


@dataclass(frozen=True)
class View:
    """How a kind of bulk run is shown.

    Attributes:
        verb: What is done to the rows: ``rename``.
        done: What was done to them: ``renamed``.
        noun: What a row is called: ``sample``.
        file: What the file is called: ``mapping``.
        plan_columns: The columns of a plan.
        plan_rows: What is shown of a row of the plan.
        moved_columns: The columns of what somebody changed since.
        moved_row: What is shown of it.
        report: The columns of a report.
        undo: The words of the command that takes it back.
    """

    verb: str
    done: str
    noun: str
    file: str
    plan_columns: tuple[Column, ...]
    plan_rows: Callable[[PlannedRow], Iterable[Row]]
    moved_columns: tuple[Column, ...]
    moved_row: Callable[[MovedRow], Row]
    report: ReportForm
    undo: tuple[str, ...]

    def shown(self, rows: Iterable[PlannedRow]) -> Iterator[Row]:
        """What is shown of the rows of a plan."""
        return chain.from_iterable(map(self.plan_rows, rows))

    def count(self, number: int) -> str:
        """So many rows, in words."""
        return f"{number:,} {self.noun}" + ("" if number == 1 else "s")


def _renaming(row: PlannedRow) -> Iterable[Row]:
    (change,) = row.changes
    return (
        {
            "line": row.line,
            "private_identifier": row.key,
            "public_identifier_before": change.before,
            "public_identifier_after": change.after,
            "action": row.action,
        },
    )


def _renamed_since(row: MovedRow) -> Row:
    return {
        "private_identifier": row.key,
        "public_identifier_written": row.expected,
        "public_identifier_now": row.found,
    }


RENAMING = View(
    verb="rename",
    done="renamed",
    noun="sample",
    file="mapping",
    plan_columns=(
        Column("line", "Line", right=True, whole=True),
        Column("private_identifier", "Private identifier", whole=True),
        Column("public_identifier_before", "Public identifier now", whole=True),
        Column("public_identifier_after", "Public identifier then", whole=True),
        Column("action", "Action"),
    ),
    plan_rows=_renaming,
    moved_columns=(
        Column("private_identifier", "Private identifier", whole=True),
        Column("public_identifier_written", "Public identifier as written", whole=True),
        Column("public_identifier_now", "Public identifier now", whole=True),
    ),
    moved_row=_renamed_since,
    report=RENAMES,
    undo=("samples", "undo"),
)


def _changing(row: PlannedRow) -> Iterable[Row]:
    return [
        {
            "line": row.line,
            "key": row.key,
            "column": change.column,
            "before": change.before,
            "after": change.after,
            "action": "same" if change.is_same else "change",
        }
        for change in row.changes
    ]


def _changed_since(row: MovedRow) -> Row:
    return {
        "key": row.key,
        "label": row.label,
        "column": row.column,
        "written": row.expected,
        "now": row.found,
    }


def changing(noun: str, file: str, undo: tuple[str, ...]) -> View:
    """How runs are shown that change any columns: a row for each value that the file names.

    Args:
        noun: What a row is called.
        file: What the file is called.
        undo: The words of the command that takes it back.
    """
    return View(
        verb="change",
        done="changed",
        noun=noun,
        file=file,
        plan_columns=(
            Column("line", "Line", right=True, whole=True),
            Column("key", "Key", whole=True),
            Column("column", "Column"),
            Column("before", "Now", whole=True),
            Column("after", "Then", whole=True),
            Column("action", "Action"),
        ),
        plan_rows=_changing,
        moved_columns=(
            Column("key", "Key", whole=True),
            Column("label", noun.capitalize(), whole=True),
            Column("column", "Column"),
            Column("written", "As written", whole=True),
            Column("now", "Now", whole=True),
        ),
        moved_row=_changed_since,
        report=CHANGES,
        undo=undo,
    )


CHANGING = changing("sample", "file", ("samples", "undo"))
