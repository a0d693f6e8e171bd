"""A bulk rename as the operator sees it: plan, preview, consent, write, result."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.context import AppContext
from aspencli.errors import ConflictError, RefusedError
from aspencli.interrupts import Shield
from aspencli.output.console import Tick
from aspencli.output.rendering import Column, Row
from aspencli.output.text import visible
from aspencli.services import renaming
from aspencli.services.job_files import JobFiles
from aspencli.services.renaming import Assessment, Faults
from aspencli.services.report import reason_of
from aspencli.services.undofile import Origin, write_undo

if TYPE_CHECKING:
    from db.bulk.rename_types import Plan, PlannedRow, Problem, Request

SHOWN = 200  # problems on the screen; the rest goes to a file
_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between two looks at the progress bar

PLAN_COLUMNS = (
    Column("line", "Line", right=True, whole=True),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier_before", "Public identifier now", whole=True),
    Column("public_identifier_after", "Public identifier then", whole=True),
    Column("action", "Action"),
)
RESULT_COLUMNS = (
    Column("group_id", "Group"),
    Column("group", "Name"),
    Column("rows", "Rows", right=True),
    Column("changed", "Changed", right=True),
    Column("already", "Already so", right=True),
    Column("left_out", "Left alone", right=True),
    Column("undo_file", "Undo file", whole=True),
)


class Job:
    """One bulk rename.

    Args:
        context: The run.
        stack: What closes what the job opens.
        group_id: The group whose samples are renamed.
        files: What it reads and writes.
        dry_run: Whether to stop at the plan.

    Raises:
        NotFoundError: There is no such group.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int,
        files: JobFiles,
        *,
        dry_run: bool,
    ):
        from db.bulk.renames import RenameRun
        from db.database import Limits

        self.out = context.out
        self.faults = Faults()
        stack.callback(self.faults.close)
        self._context = context
        self._files = files
        self._dry_run = dry_run
        self._group_id = group_id
        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        database = context.database(writable=not dry_run, limits=limits)
        self._store = stack.enter_context(RenameRun(database, group_id))
        self._group = renaming.require_group(self._store.group_name(), group_id)

    def assess(self, requests: Iterator[Request], *, skip_moved: bool = False) -> Assessment:
        """Hold the mapping against the database."""
        with self.out.progress("Reading and planning") as tick:
            rows = _counted(requests, tick)
            return renaming.assess(self._store, rows, self.faults, skip_moved=skip_moved)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Refuse, show, or write.

        Args:
            assessment: What was found.
            name: What messages call the file that was read.
            remedy: What to do when it is refused, if that is more than mending lines.
        """
        if assessment.problems:
            self._name_problems(assessment.problems)
            raise renaming.refuse(assessment, name, remedy)
        plan = assessment.plan
        self._name_left_out(plan.left_out)
        self._say_plan(plan)
        if self._dry_run:
            self.out.rows(PLAN_COLUMNS, map(_plan_row, self._store.rows()))
            self._report("would change")
            self.out.hint("Nothing was written (--dry-run).")
        elif plan.to_change:
            self._consent(plan)
            self._apply(plan)
        else:
            self.out.done(_nothing_to_do(plan))
            self._report("changed")
            self._show_result(plan, None)
        if plan.left_out:
            raise ConflictError(
                f"left alone, as named above: {_samples(plan.left_out)} of {plan.rows:,}",
                hint="Look at each: aspencli samples show PRIVATE_IDENTIFIER",
            )

    def _consent(self, plan: Plan) -> None:
        first = list(self._store.rows(limit=10, changed_only=True))
        self.out.preview(PLAN_COLUMNS, map(_plan_row, first))
        what = f"rename {_samples(plan.to_change)} of group {self._group_id} ({self._group})"
        target, given = self._context.target, self._context.options
        if (
            self._files.from_stdin
            and given["confirm"] is None
            and (target.is_production or not given["yes"])
        ):
            flag = f"--confirm {shlex.quote(target.label)}" if target.is_production else "--yes"
            raise RefusedError(
                f"standard input is the mapping, so nobody can be asked there whether to {what} "
                f"on {target.label}; nothing was written",
                hint=f"Look at the plan with --dry-run, then add {flag}.",
            )
        self._context.authorise(what)

    def _apply(self, plan: Plan) -> None:
        now = dt.datetime.now(dt.UTC).isoformat()
        origin = Origin(self._context.target.label, self._group_id, now, plan.to_change)
        self._prepare_report("changed")
        with Shield() as shield:

            def write(rows: renaming.WriteRows) -> Path:
                folder = homes.state_dir() / "undo"
                return write_undo(folder, origin, rows, self._files.undo, shield.raise_shield)

            try:
                with self.out.progress("Writing"):
                    path = renaming.apply(self._store, write, shield.check)
            except ConflictError:
                self._report("not written")
                raise
            self._publish_report()
            self.out.done(f"{_samples(plan.to_change)} renamed.")
            self._show_result(plan, path)
            if shield.late:
                self.out.warn("the interrupt came after the commit: the change is written.")

    def _show_result(self, plan: Plan, undo_file: Path | None) -> None:
        self.out.record(
            RESULT_COLUMNS,
            {
                "group_id": self._group_id,
                "group": self._group,
                "rows": plan.rows,
                "changed": plan.to_change,
                "already": plan.already,
                "left_out": plan.left_out,
                "undo_file": undo_file,
            },
        )
        if undo_file:
            target = self._context.target
            words = ["aspencli", "--env", target.name, "samples", "undo", str(undo_file.absolute())]
            if target.stack:
                words[3:3] = ["--stack", target.stack]
            self.out.hint(f"To take it back: {shlex.join(words)}")

    def _say_plan(self, plan: Plan) -> None:
        parts = [f"{plan.to_change:,} to change", f"{plan.already:,} already so"]
        if plan.detours:
            parts.append(f"{plan.detours:,} identifiers passed on within the file")
        group = f"group {self._group_id} ({self._group}) on {self._context.target.label}"
        self.out.info(f"{plan.rows:,} rows for {group}: {', '.join(parts)}.")

    # What cannot be applied

    def _name_problems(self, count: int) -> None:
        with closing(renaming.all_problems(self._store, self.faults)) as problems:
            for problem in islice(problems, SHOWN):
                self.out.info(_line(problem))
        self._report("not written")
        if count > SHOWN:
            self.out.info(f"and {count - SHOWN:,} more; all are in {self._all_named()}")

    def _name_left_out(self, count: int) -> None:
        with closing(self._store.left_out()) as problems:
            for problem in islice(problems, SHOWN):
                self.out.warn(f"left alone: {_line(problem)}")
        if count > SHOWN:
            self.out.warn(f"{count - SHOWN:,} more are left alone; all are in {self._all_named()}")

    def _all_named(self) -> Path:
        """Where those stand that are too many for the screen."""
        report = self._files.overflow()
        report.write(self._store.outcomes(), self.faults, "not written", bad_only=True)
        return report.publish()

    def _report(self, changed: str) -> None:
        self._prepare_report(changed)
        self._publish_report()

    def _prepare_report(self, changed: str) -> None:
        if self._files.report:
            self._files.report.write(self._store.outcomes(), self.faults, changed)

    def _publish_report(self) -> None:
        if self._files.report:
            self.out.info(f"The report is in {self._files.report.publish()}")


def _counted(requests: Iterator[Request], tick: Tick) -> Iterator[Request]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request


def _plan_row(row: PlannedRow) -> Row:
    return {
        "line": row.line,
        "private_identifier": row.private_identifier,
        "public_identifier_before": row.before,
        "public_identifier_after": row.after,
        "action": row.action,
    }


def _line(problem: Problem) -> str:
    return visible(f"line {problem.line}: {reason_of(problem)}")


def _nothing_to_do(plan: Plan) -> str:
    if not plan.rows:
        return "Nothing to change: the file holds no rows."
    if plan.left_out:
        return "Nothing was changed."
    return "Nothing to change: it is so already."


def _samples(count: int) -> str:
    return f"{count:,} sample" + ("" if count == 1 else "s")
