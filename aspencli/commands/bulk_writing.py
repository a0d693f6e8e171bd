"""The writing part of a bulk run: confirmation, the write itself, and its result."""

from __future__ import annotations

import datetime as dt
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from aspencli import homes
from aspencli.commands.bulk_findings import Findings
from aspencli.commands.bulk_rows import RESULT_COLUMNS, TALLY_COLUMNS, nothing_to_do
from aspencli.commands.bulk_views import View
from aspencli.context import AppContext
from aspencli.errors import ConflictError, RefusedError
from aspencli.interrupts import Shield
from aspencli.services import bulk
from aspencli.services.bulk import BulkStore, PlanStore
from aspencli.services.job_files import JobFiles
from aspencli.services.recording import Recording
from aspencli.services.runs import Outcome, Place, Run
from aspencli.services.undofile import Origin, origin_of, write_undo

if TYPE_CHECKING:
    from db.bulk.rows import Plan
    from db.bulk.spec import Spec


StoreT = TypeVar("StoreT", bound=PlanStore)


@dataclass(frozen=True)
class Purpose:
    """The purpose of a bulk run.

    Attributes:
        command: Name of the command in the history.
        spec: Specification of the columns to change.
        view: Presentation of the run.
        dry_run: Whether to stop after the plan.
        force: Whether to also change rows that do not hold the expected values.
        undo_of: Run to undo, if any.
        place: Where that run was made, as far as known; None if this is not an undo.
    """

    command: str
    spec: Spec
    view: View
    dry_run: bool
    force: bool = False
    undo_of: str | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Scope:
    """The target and group that a bulk run is limited to.

    Attributes:
        target: Label of the target.
        group_id: Group whose rows are changed; None where the table has no groups.
        group: Name of the group.
    """

    target: str
    group_id: int | None
    group: str | None

    @property
    def of_group(self) -> str:
        """Return the group as the end of a phrase, or an empty string."""
        return "" if self.group is None else f" of group {self.group_id} ({self.group})"

    @property
    def words(self) -> str:
        """Return the group and target as text."""
        if self.group is None:
            return self.target
        return f"group {self.group_id} ({self.group}) on {self.target}"


def agree(
    context: AppContext, from_stdin: bool, file: str, what: str, *, by_name: bool = False
) -> None:
    """Ask for confirmation, or check that it was given.

    Args:
        context: Application context.
        from_stdin: Whether standard input is the file, so that it cannot be used for a question.
        file: Noun for the file in messages.
        what: Pending change, as a verb phrase.
        by_name: Whether to require the target's name even outside production.

    Raises:
        RefusedError: If confirmation is denied, or cannot be requested.
    """
    target, given = context.target, context.options
    if from_stdin and given["confirm"] is None and (target.is_production or not given["yes"]):
        name = shlex.quote(target.confirmed_by)
        flag = f"--confirm {name}" if target.is_production else "--yes"
        raise RefusedError(
            f"standard input is the {file}, so nobody can be asked there whether "
            f"to {what} on {target.label}; nothing was written",
            hint=f"Look at the plan with --dry-run, then add {flag}.",
        )
    context.authorise(what, by_name=by_name)


class Writing(ABC, Generic[StoreT]):
    """A writer for a plan that has no problems.

    Args:
        context: Application context.
        store: Store that holds the plan.
        files: Files that the run reads and writes.
        findings: Writer of the report.
        purpose: Purpose of the run.
        scope: Target and group of the run.
        recording: Record of the run in the history.

    Attributes:
        place: Identity of the database or API, stored in the undo file.
        by_name: Whether confirmation requires the target's name.
    """

    def __init__(
        self,
        context: AppContext,
        store: StoreT,
        files: JobFiles,
        findings: Findings,
        purpose: Purpose,
        scope: Scope,
        recording: Recording,
    ):
        self._context = context
        self._out = context.out
        self._store = store
        self._files = files
        self._findings = findings
        self._purpose = purpose
        self._view = purpose.view
        self._scope = scope
        self._recording = recording
        self.place = Place()
        self.by_name = False

    def leave(self, plan: Plan, before: Run) -> None:
        """Write nothing, because the same file was written before."""
        self._recording.ended(Outcome.NOTHING)
        self._out.done(f"Nothing to change: run {before.id} wrote this file already.")
        undo = before.command_line(*self._view.undo, before.id)
        self._out.hint(f"To write it again, take that run back first: {undo}")
        self._findings.report("not written")
        tally = plan.tally and replace(plan.tally, created=0, deleted=0, changed=0)
        self._show_result(replace(plan, to_change=0, already=plan.rows, tally=tally), None)

    def nothing(self, plan: Plan) -> None:
        """Write nothing, because there are no changes."""
        self._recording.ended(Outcome.NOTHING)
        self._out.done(nothing_to_do(plan))
        self._findings.report("changed")
        self._show_result(plan, None)

    def consent(self, plan: Plan) -> None:
        """Show the pending changes, and ask for confirmation.

        Raises:
            RefusedError: If confirmation is denied, or cannot be requested.
        """
        self.preview()
        what = f"{self._view.deed(plan)}{self._scope.of_group}"
        if plan.forced:
            what += f", {plan.forced:,} of them changed since,"
        stdin, file = self._files.from_stdin, self._view.file
        try:
            agree(self._context, stdin, file, what, by_name=self.by_name)
        except KeyboardInterrupt:
            if self._out.is_asking:
                self._recording.ended(Outcome.DECLINED, "interrupted")
            raise

    def preview(self) -> None:
        """Show the first rows that change."""
        first = list(self._store.rows(limit=10, changed_only=True))
        self._out.preview(self._view.plan_columns, self._view.shown(first))

    @abstractmethod
    def apply(self, plan: Plan) -> None:
        """Write the plan, and report the result."""

    def _origin(self, plan: Plan) -> Origin:
        return origin_of(
            self._purpose.spec,
            self._context.target.label,
            self._scope.group_id,
            dt.datetime.now(dt.UTC).isoformat(),
            plan.to_change,
            self._recording.id,
            self.place,
        )

    def _show_result(self, plan: Plan, undo_file: Path | None) -> None:
        told = {
            "group_id": self._scope.group_id,
            "group": self._scope.group,
            "rows": plan.rows,
            "changed": plan.to_change,
            "already": plan.already,
            "left_out": plan.left_out,
            "undo_file": undo_file,
            "run": self._recording.id,
        }
        if plan.tally:
            self._out.record(TALLY_COLUMNS, {**told, **vars(plan.tally)})
        else:
            self._out.record(RESULT_COLUMNS, told)
        if undo_file:
            words = (*self._view.undo, str(undo_file.absolute()))
            self._out.hint(f"To take it back: {self._context.command(*words)}")


class DatabaseWriting(Writing[BulkStore]):
    """A writer that applies a plan in one transaction."""

    def apply(self, plan: Plan) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If rows were changed in the meantime; nothing was written.
            AspenError: See `aspencli.services.bulk.apply`.
        """
        origin = self._origin(plan)
        self._findings.prepare_report("changed")
        ask = self._context.command("history", "check", self._recording.id)
        with Shield() as shield:
            undo: list[Path] = []

            def write(rows: bulk.WriteRows) -> Path:
                folder = homes.state_dir() / "undo"
                path = write_undo(folder, origin, rows, self._files.undo, shield.raise_shield)
                undo.append(path)
                return path

            def before_commit() -> None:
                shield.check()
                self._recording.committing(undo[0])

            try:
                with self._out.progress("Writing"):
                    path = bulk.apply(
                        self._store,
                        write,
                        before_commit,
                        self._recording.writing,
                        ask=ask,
                        noun=self._view.noun,
                    )
            except ConflictError:
                self._findings.report("not written")
                raise
            self._recording.ended(Outcome.WRITTEN)
            try:
                self._findings.publish_report()
            finally:  # the change is committed, so the operator must learn how to undo it
                self._out.done(f"{self._view.result(plan)}.")
                self._show_result(plan, path)
            if shield.late:
                self._out.warn("the interrupt came after the commit: the change is written.")
