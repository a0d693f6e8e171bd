"""Output of a bulk run: its plan, its problems, its forced changes, and its result.

The columns are contracts. The screen shows the first rows; files have the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aspencli import files
from aspencli.changes import apply
from aspencli.changes.apply import Faults, PlanStore
from aspencli.changes.report import (
    CHANGES,
    PLACED,
    RENAMES,
    JobFiles,
    ReportForm,
    reason_of,
    spare_path,
)
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import OUTCOME, Column, Row, write_rows
from aspencli.text import counted, visible

if TYPE_CHECKING:
    from aspen.database.bulk.spec import AssessedRow, MovedRow, Plan, Problem, Tally
    from aspencli.remote.types import Sample


SHOWN = 200  # rows shown on the screen
_LOOK_AT_SAMPLE = "aspencli samples show PRIVATE_IDENTIFIER"
_ACTION = Column("action", "Action", retired=True, of=str)  # the outcome, under its older name
RESULT_COLUMNS = (
    Column("group_id", "Group id", of=int | None),
    Column("group", "Group"),
    Column("rows", "Rows", right=True, of=int),
    Column("changed", "Updated", right=True, of=int),
    Column("already", "Unchanged", right=True, of=int),
    Column("left_out", "Skipped", right=True, of=int),
    Column("undo_file", "Undo file", whole=True),
    Column("run", "Run", of=str),
    OUTCOME,
)
TALLY_COLUMNS = (
    Column("rows", "Rows", right=True, of=int),
    Column("created", "Created", right=True, of=int),
    Column("changed", "Updated", right=True, of=int),
    Column("deleted", "Deleted", right=True, of=int),
    *RESULT_COLUMNS[4:],
)
OUTCOME_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int | None),
    Column("private_identifier", "Private identifier", whole=True, of=str),
    Column("public_identifier", "Public identifier", whole=True),
    Column("collection_date", "Collected", whole=True),
    Column("sequencing_date", "Sequenced", whole=True),
    Column("location", "Location", secondary=True, tail=True),
    Column("private", "Private", of=bool),
    OUTCOME,
)


@dataclass(frozen=True)
class View:
    """The presentation of a kind of bulk run."""

    noun: str  # for a row: ``sample``
    file: str  # the noun for the file: ``mapping``
    plan_columns: tuple[Column, ...]
    plan_rows: Callable[[AssessedRow], Iterable[Row]]  # the output rows for a row of the plan
    moved_columns: tuple[Column, ...]  # for values that were changed since
    moved_row: Callable[[MovedRow], Row]
    report: ReportForm
    undo: tuple[str, ...]  # the words of the command that undoes the run
    look: str  # the command that shows a row

    def shown(self, rows: Iterable[AssessedRow]) -> Iterator[Row]:
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
            return f"update {self.count(plan.to_change)}"
        return " and ".join(f"{verb} {self.count(n)}" for verb, _, n in _deeds(plan.tally) if n)

    def result(self, plan: Plan) -> str:
        """Return the completed change as a sentence without its period."""
        if plan.tally is None:
            return f"{self.count(plan.to_change)} updated"
        return ", ".join(f"{self.count(n)} {done}" for _, done, n in _deeds(plan.tally) if n)

    def prospect(self, plan: Plan) -> list[str]:
        """Return the totals of the plan, as parts of a sentence."""
        if plan.tally is None:
            return [f"{plan.to_change:,} to update", f"{plan.already:,} unchanged"]
        deeds = [f"{self.count(n)} to {verb}" for verb, _, n in _deeds(plan.tally) if n]
        return [*deeds, f"{self.lines(plan, plan.already)} unchanged"]


def _deeds(tally: Tally) -> tuple[tuple[str, str, int], ...]:
    return (
        ("create", "created", tally.created),
        ("update", "updated", tally.changed),
        ("delete", "deleted", tally.deleted),
    )


def result_row(
    plan: Plan, group_id: int | None, group: str | None, undo_file: Path | None, run: str
) -> Row:
    """Return the result of a run, with `RESULT_COLUMNS`."""
    return {
        "group_id": group_id,
        "group": group,
        "rows": plan.rows,
        "changed": plan.to_change,
        "already": plan.already,
        "left_out": plan.left_out,
        "undo_file": undo_file,
        "run": run,
        "outcome": _outcome_of(plan),
    }


def _outcome_of(plan: Plan) -> str:
    """Return the outcome of a whole run: of its rows if they are all alike, else ``updated``."""
    if not plan.to_change:
        return "skipped" if plan.left_out else "unchanged"
    if plan.tally is None:
        return "updated"
    (only, *others) = [done for _, done, number in _deeds(plan.tally) if number] or ["updated"]
    return "updated" if others else only


def cleared(row: Row) -> str:
    """Return what people read in place of a new value that is missing."""
    if row.get("action") == "delete":
        return ""
    return "(removed)" if row.get("column") == "role" else "(cleared)"


def _renaming(row: AssessedRow) -> Iterable[Row]:
    (change,) = row.changes
    return (
        {
            "line": row.line,
            "private_identifier": row.key,
            "public_identifier_before": change.before,
            "public_identifier_after": change.after,
            "action": row.action,
            "outcome": row.action,
        },
    )


def _renamed_since(row: MovedRow) -> Row:
    return {
        "private_identifier": row.label,
        "public_identifier_written": row.expected,
        "public_identifier_now": row.found,
    }


RENAMING = View(
    noun="sample",
    file="mapping",
    plan_columns=(
        Column("line", "Line", right=True, whole=True, of=int),
        Column("private_identifier", "Private identifier", whole=True),
        Column("public_identifier_before", "Before", whole=True),
        Column("public_identifier_after", "After", whole=True, blank=cleared),
        _ACTION,
        OUTCOME,
    ),
    plan_rows=_renaming,
    moved_columns=(
        Column("private_identifier", "Private identifier", whole=True),
        Column("public_identifier_written", "Written by that run", whole=True),
        Column("public_identifier_now", "Current value", whole=True),
    ),
    moved_row=_renamed_since,
    report=RENAMES,
    undo=("samples", "undo"),
    look=_LOOK_AT_SAMPLE,
)


def _changing(row: AssessedRow) -> Iterable[Row]:
    found = []
    for change in row.changes:
        outcome = row.becomes or ("unchanged" if change.is_same else "update")
        found.append(
            {
                "line": row.line,
                "key": row.key,
                "group": row.within,
                "column": change.column,
                "before": change.before,
                "after": change.after,
                "action": outcome,
                "outcome": outcome,
            }
        )
    return found


def _changed_since(row: MovedRow) -> Row:
    return {
        "key": row.key,
        "label": row.label,
        "column": row.column,
        "written": row.expected,
        "now": row.found,
    }


_BESIDE = (
    Column("column", "Column", of=str),
    Column("before", "Before", whole=True, of=Any),
    Column("after", "After", whole=True, blank=cleared, of=Any),
    _ACTION,
    OUTCOME,
)


def changing(
    noun: str, undo: tuple[str, ...], look: str, *, placed: bool = False, file: str = "file"
) -> View:
    """Return a view for runs that change any columns, with one row per value in the file.

    Some values may be placed in groups.
    """
    group = (Column("group", "Group", whole=True),) if placed else ()
    return View(
        noun=noun,
        file=file,
        plan_columns=(
            Column("line", "Line", right=True, whole=True, of=int),
            Column("key", "Key", whole=True, of=str),
            *group,
            *_BESIDE,
        ),
        plan_rows=_changing,
        moved_columns=(
            Column("key", "Key", whole=True),
            Column("label", noun.capitalize(), whole=True),
            Column("column", "Column"),
            Column("written", "Written by that run", whole=True),
            Column("now", "Current value", whole=True),
        ),
        moved_row=_changed_since,
        report=PLACED if placed else CHANGES,
        undo=undo,
        look=look,
    )


CHANGING = changing("sample", ("samples", "undo"), _LOOK_AT_SAMPLE)
USERS = changing("user", ("users", "undo"), "aspencli users show EMAIL", placed=True)
GROUPS = changing("group", ("groups", "undo"), "aspencli groups show PREFIX")


def write_conflicts(path: Path, view: View, rows: Iterable[MovedRow]) -> Path:
    """Write rows changed since to a CSV file readable by its owner only; return its path."""
    files.make_folder(path.parent)
    with os.fdopen(files.create(path), "w", encoding="utf-8", newline="") as file:
        write_rows(file, "csv", view.moved_columns, map(view.moved_row, rows))
    return path


def problem_line(problem: Problem) -> str:
    """Return a problem as one line of text."""
    return visible(f"line {problem.line}: {reason_of(problem)}")


def nothing_to_do(plan: Plan) -> str:
    """Return the reason why there is nothing to change; empty if every row is unchanged."""
    if not plan.rows:
        return "the file has no rows"
    return f"{counted(plan.left_out, 'row')} skipped" if plan.left_out else ""


class Findings:
    """A reporter of the problems found in a file, whose plan is in the store."""

    def __init__(self, out: Output, store: PlanStore, files: JobFiles, view: View, faults: Faults):
        self._out = out
        self._view = view
        self._store = store
        self._files = files
        self._faults = faults

    def name_problems(self, count: int) -> None:
        """List the lines that cause the file to be rejected."""
        with closing(apply.all_problems(self._store, self._faults)) as problems:
            for problem in islice(problems, SHOWN):
                self._out.info(problem_line(problem))
        self.report("skipped")
        if count > SHOWN:
            self._out.info(f"... and {count - SHOWN:,} more. Full list: {self._all_named()}")

    def put_aside_rejects(self) -> None:
        """Write the invalid rows to the rejects file, if requested; it may have no rows."""
        if not self._files.rejects:
            return
        with closing(apply.all_problems(self._store, self._faults)) as problems:
            done = self._files.rejects.write(problems)
        self._out.info(f"{counted(done.rows, 'invalid row')} written to {done.path}.")
        if done.others:
            lines = counted(done.others, "invalid line")
            self._out.info(f"Not in that file, because they are not rows: {lines}.")

    def name_left_out(self, count: int) -> None:
        """List the skipped rows."""
        with closing(self._store.left_out()) as problems:
            for problem in islice(problems, SHOWN):
                self._out.warn(f"Skipped {problem_line(problem)}")
        if count > SHOWN:
            self._out.warn(f"{count - SHOWN:,} more skipped. Full list: {self._all_named()}")

    def show_forced(self, count: int) -> None:
        """Show the rows that were changed since and are reverted anyway."""
        if not count:
            return
        what = self._view.count(count)
        self._out.warn(f"Because of --force, this also reverts {what} changed since that run.")
        with closing(self._store.moved()) as rows:
            shown = list(islice(rows, SHOWN + 1))
        self._out.preview(
            self._view.moved_columns, map(self._view.moved_row, shown[:SHOWN]), limit=SHOWN
        )
        if len(shown) > SHOWN:
            with closing(self._store.moved()) as rows:
                path = write_conflicts(spare_path(), self._view, rows)
            more = f"{count - SHOWN:,} more" if count > SHOWN else "More columns"
            self._out.warn(f"{more} changed since that run. Full list: {path}")

    def _all_named(self) -> Path:
        """Write all problems to a report, and return its path."""
        report = self._files.overflow()
        report.write(self._store.outcomes(), self._faults, "skipped", bad_only=True)
        return report.publish()

    def report(self, changed: str) -> None:
        """Write the report, with this outcome for rows that change, and print its path."""
        self.prepare_report(changed)
        self.publish_report()

    def prepare_report(self, changed: str) -> None:
        """Write the report under a temporary name; see `report`."""
        if self._files.report:
            self._files.report.write(self._store.outcomes(), self._faults, changed)

    def publish_report(self) -> None:
        """Move the report to its final name, and print its path."""
        if self._files.report:
            self._out.info(f"Report: {self._files.report.publish()}")


def outcome_row(sample: Sample, outcome: str) -> Row:
    """Return the report row of a sample."""
    from aspencli.samples.remote import place_of

    return {
        **{column.key: sample.get(column.key) for column in OUTCOME_COLUMNS},
        "location": place_of(sample["collection_location"]),
        "outcome": outcome,
    }
