"""The presentation of each kind of bulk run: its columns, which are contracts, and its text.

Output shared by all bulk runs: the result, and text for problems.

A report of the outcome of each item, printed even if the run fails partway.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import files
from aspencli.changes.report import CHANGES, PLACED, RENAMES, ReportForm, reason_of
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import Column, Row, write_rows
from aspencli.errors import UncertainError
from aspencli.text import counted, visible

if TYPE_CHECKING:
    from aspencli.remote.types import Sample

if TYPE_CHECKING:
    from aspen.database.bulk.rows import MovedRow, Plan, PlannedRow, Problem, Tally


_LOOK_AT_SAMPLE = "aspencli samples show PRIVATE_IDENTIFIER"


@dataclass(frozen=True)
class View:
    """The presentation of a kind of bulk run.

    Attributes:
        verb: Verb for the change: ``rename``.
        done: Its past participle: ``renamed``.
        noun: Noun for a row: ``sample``.
        file: Noun for the file: ``mapping``.
        plan_columns: Columns of a plan.
        plan_rows: Returns the output rows for a row of the plan.
        moved_columns: Columns for values that were changed since.
        moved_row: Returns the output row for such a value.
        report: Columns of a report.
        undo: Words of the command that undoes the run.
        look: Command that shows a row.
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
    look: str

    def shown(self, rows: Iterable[PlannedRow]) -> Iterator[Row]:
        """Return the output rows for the rows of a plan."""
        return chain.from_iterable(map(self.plan_rows, rows))

    def count(self, number: int) -> str:
        """Return a number of rows as text."""
        return counted(number, self.noun)

    def lines(self, plan: Plan, number: int) -> str:
        """Return a number of lines of the file as text."""
        return self.count(number) if plan.tally is None else counted(number, "row")

    def deed(self, plan: Plan) -> str:
        """Return the pending change as a verb phrase."""
        if plan.tally is None:
            return f"{self.verb} {self.count(plan.to_change)}"
        return " and ".join(f"{verb} {self.count(n)}" for verb, _, n in _deeds(plan.tally) if n)

    def result(self, plan: Plan) -> str:
        """Return the completed change as a sentence without its period."""
        if plan.tally is None:
            return f"{self.count(plan.to_change)} {self.done}"
        return ", ".join(f"{self.count(n)} {done}" for _, done, n in _deeds(plan.tally) if n)

    def prospect(self, plan: Plan) -> list[str]:
        """Return the totals of the plan, as parts of a sentence."""
        if plan.tally is None:
            return [f"{plan.to_change:,} to change", f"{plan.already:,} already so"]
        deeds = [f"{self.count(n)} to {verb}" for verb, _, n in _deeds(plan.tally) if n]
        return [*deeds, f"{self.lines(plan, plan.already)} already so"]


def _deeds(tally: Tally) -> tuple[tuple[str, str, int], ...]:
    return (
        ("create", "created", tally.created),
        ("change", "changed", tally.changed),
        ("delete", "deleted", tally.deleted),
    )


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
        "private_identifier": row.label,
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
    look=_LOOK_AT_SAMPLE,
)


def _changing(row: PlannedRow) -> Iterable[Row]:
    return [
        {
            "line": row.line,
            "key": row.key,
            "group": row.within,
            "column": change.column,
            "before": change.before,
            "after": change.after,
            "action": row.becomes or ("same" if change.is_same else "change"),
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


_BESIDE = (
    Column("column", "Column"),
    Column("before", "Now", whole=True),
    Column("after", "Then", whole=True),
    Column("action", "Action"),
)


def changing(
    noun: str, undo: tuple[str, ...], look: str, *, placed: bool = False, file: str = "file"
) -> View:
    """Return a view for runs that change any columns, with one row per value in the file.

    Args:
        noun: Noun for a row.
        undo: Words of the command that undoes the run.
        look: Command that shows a row.
        placed: Whether some values belong to groups.
        file: Noun for the file.
    """
    group = (Column("group", "Group", whole=True),) if placed else ()
    return View(
        verb="change",
        done="changed",
        noun=noun,
        file=file,
        plan_columns=(
            Column("line", "Line", right=True, whole=True),
            Column("key", "Key", whole=True),
            *group,
            *_BESIDE,
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
        report=PLACED if placed else CHANGES,
        undo=undo,
        look=look,
    )


CHANGING = changing("sample", ("samples", "undo"), _LOOK_AT_SAMPLE)
USERS = changing("user", ("users", "undo"), "aspencli users show EMAIL", placed=True)
GROUPS = changing("group", ("groups", "undo"), "aspencli groups show PREFIX")


RESULT_COLUMNS = (
    Column("group_id", "Group"),
    Column("group", "Name"),
    Column("rows", "Rows", right=True),
    Column("changed", "Changed", right=True),
    Column("already", "Already so", right=True),
    Column("left_out", "Left alone", right=True),
    Column("undo_file", "Undo file", whole=True),
    Column("run", "Run"),
)
TALLY_COLUMNS = (
    Column("rows", "Rows", right=True),
    Column("created", "Created", right=True),
    Column("changed", "Changed", right=True),
    Column("deleted", "Deleted", right=True),
    *RESULT_COLUMNS[-4:],
)


def write_moved(path: Path, view: View, rows: Iterable[MovedRow]) -> Path:
    """Write rows changed since to a CSV file readable by its owner only; return its path."""
    files.make_folder(path.parent)
    with os.fdopen(files.create(path), "w", encoding="utf-8", newline="") as file:
        write_rows(file, "csv", view.moved_columns, map(view.moved_row, rows))
    return path


def problem_line(problem: Problem) -> str:
    """Return a problem as one line of text."""
    return visible(f"line {problem.line}: {reason_of(problem)}")


def nothing_to_do(plan: Plan) -> str:
    """Return a message that says why nothing was changed."""
    if not plan.rows:
        return "Nothing to change: the file holds no rows."
    if plan.left_out:
        return "Nothing was changed."
    return "Nothing to change: it is so already."


@contextmanager
def item_report(
    out: Output, columns: Sequence[Column], total: int, done: str
) -> Iterator[list[Row]]:
    """Print the rows collected in the list, at the end or when an error occurs.

    Args:
        out: Destination.
        columns: Columns to show.
        total: Expected number of rows.
        done: Outcome of the rows in the list, such as ``samples deleted``.
    """
    rows: list[Row] = []
    try:
        yield rows
    except BaseException as error:
        if rows:
            out.rows(columns, rows)
            out.warn(f"{len(rows):,} of {total:,} {done} before that; they are listed")
        if isinstance(error, (KeyboardInterrupt, UncertainError)):
            out.warn("what was being sent may have been done, too: look before you do it again")
        raise
    out.rows(columns, rows)


OUTCOME_COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier", "Public identifier", whole=True),
    Column("collection_date", "Collected", whole=True),
    Column("sequencing_date", "Sequenced", whole=True),
    Column("location", "Location", secondary=True),
    Column("private", "Private"),
    Column("outcome", "Outcome", whole=True),
)


def outcome_row(sample: Sample, outcome: str) -> Row:
    """Return the report row of a sample."""
    from aspencli.samples.remote import place_of

    return {
        **{column.key: sample.get(column.key) for column in OUTCOME_COLUMNS},
        "location": place_of(sample["collection_location"]),
        "outcome": outcome,
    }
