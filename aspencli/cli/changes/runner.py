"""The stages of a bulk run: read and plan a file, then reject it, show the plan, or write it."""

from __future__ import annotations

import datetime as dt
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from aspencli import files
from aspencli.changes import apply as bulk
from aspencli.changes.apply import Assessment, BulkStore, Faults, PlanStore, written_before
from aspencli.changes.journal import open_journal
from aspencli.changes.recording import Recording, Subject, counts_of, place_of
from aspencli.changes.report import JobFiles
from aspencli.changes.runs import Outcome, Place, Run, is_same_place, runs_of
from aspencli.changes.undo import Origin, origin_of, write_undo
from aspencli.cli.changes.options import print_notes
from aspencli.cli.changes.views import (
    RESULT_COLUMNS,
    TALLY_COLUMNS,
    Findings,
    View,
    nothing_to_do,
    outcome_of,
)
from aspencli.cli.context import AppContext
from aspencli.cli.output.console import Tick
from aspencli.errors import ConflictError, RefusedError
from aspencli.signals import Shield
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.bulk.spec import Plan, PlannedRow, Request, Spec
    from aspencli.tabular.table import Table


StoreT = TypeVar("StoreT", bound=PlanStore)
_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between updates of the progress bar


@dataclass(frozen=True)
class DataSource(Generic[StoreT]):
    """The data source of a bulk run, and the way to reach it.

    Attributes:
        store: Store that plans the run.
        group: Name of the group whose rows are changed, if the run is limited to one.
        place: Returns the identity of the database or API, as recorded in the history.
        via: ``db`` or ``api``.
    """

    store: StoreT
    group: str | None
    place: Callable[[], Place]
    via: str = "db"


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
    def in_group(self) -> str:
        """Return the group as the end of a phrase, or an empty string."""
        return "" if self.group is None else f" in group {self.group_id} ({self.group})"

    @property
    def words(self) -> str:
        """Return the group and target as text."""
        if self.group is None:
            return self.target
        return f"group {self.group_id} ({self.group}) on {self.target}"


class Job(ABC, Generic[StoreT]):
    """A bulk run, independent of how its rows are reached.

    Args:
        context: Application context.
        stack: Exit stack that closes what the job opens.
        group_id: Group whose rows are changed; None where the table has no groups.
        files: Files to read and write.
        purpose: Purpose of the run.
        ground: Data source.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int | None,
        files: JobFiles,
        purpose: Purpose,
        ground: DataSource[StoreT],
    ):
        self.out = context.out
        self.faults = Faults()
        stack.callback(self.faults.close)
        self._context = context
        self._files = files
        self._purpose = purpose
        self._view = purpose.view
        self._ground = ground
        self._store = ground.store
        self._scope = Scope(context.target.label, group_id, ground.group)
        self._findings = Findings(self.out, self._store, files, self._view, self.faults)

    def run(self, source: Table, requests: Iterator[Request], said: int) -> None:
        """Read a file to its end and apply it.

        Args:
            source: File to read.
            requests: Its rows, not yet read.
            said: Number of the file's notes that were already printed.
        """
        assessment = self.assess(requests)
        print_notes(self.out, source, said)
        if source.blank_lines:
            self.out.info(f"Note: skipped {counted(source.blank_lines, 'blank line')}.")
        self.go(assessment, source.name, source.remedy)

    def assess(self, requests: Iterator[Request], *, skip_moved: bool = False) -> Assessment:
        """Compare the file with the database."""
        force = self._purpose.force
        with self.out.progress("Reading and planning") as tick:
            rows = _ticking(requests, tick)
            return bulk.assess(self._store, rows, self.faults, skip_moved=skip_moved, force=force)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Reject, show, or write the plan; all but dry runs are recorded in the history.

        Args:
            assessment: Result of the assessment.
            name: Name of the file in messages.
            remedy: Advice if the file is rejected, where fixing its lines is not enough.
        """
        place, by_name = self._ground.place(), False
        if self._purpose.place:
            by_name = not self._is_there(self._purpose.place, place)
        plan, subject = assessment.plan, self._subject(assessment, place)
        before = self._written_before(assessment, subject)
        if self._purpose.dry_run:
            self._show(assessment, name, remedy, before)
        else:
            self._write(assessment, name, remedy, before, subject, by_name)
        if plan.left_out and not before:
            force = "" if self._purpose.force else "; or add --force to include those changed since"
            raise ConflictError(
                f"{plan.left_out:,} of {self._view.lines(plan, plan.rows)} skipped (listed above).",
                hint=f"Check each one: {self._view.look}{force}",
            )

    def _show(
        self, assessment: Assessment, name: str, remedy: str | None, before: Run | None
    ) -> None:
        if before:
            self.out.warn(
                f"Run {before.id} already wrote this file, so it would not be written again."
            )
        self._say(assessment, name, remedy)
        skipped = self._skipped() if assessment.plan.left_out else []
        rows = merge(self._store.rows(), skipped, key=lambda row: row.line)
        self.out.rows(self._view.plan_columns, self._view.shown(rows))
        self._findings.report("update")
        if assessment.plan.to_change:
            self._check_rights()
        elif not assessment.plan.left_out:
            self.out.nothing(nothing_to_do(assessment.plan))
        self.out.dry_run()

    def _check_rights(self) -> None:
        """Check that the user may write what a dry run has shown.

        Raises:
            CredentialsError: If not.
        """

    def _skipped(self) -> list[PlannedRow]:
        """Return the rows that the plan leaves out, in the form of planned rows."""
        from aspen.database.bulk.spec import PlannedRow

        with closing(self._store.outcomes()) as rows:
            return [
                PlannedRow(row.line, row.key, row.changes, "skip", row.within)
                for row in rows
                if row.left_out
            ]

    def _write(
        self,
        assessment: Assessment,
        name: str,
        remedy: str | None,
        before: Run | None,
        subject: Subject,
        by_name: bool,
    ) -> None:
        plan = assessment.plan
        with Recording(open_journal(), subject, self.out.warn) as recording:
            writing = self._writing(recording)
            writing.place, writing.by_name = subject.place, by_name
            if before:
                writing.leave(plan, before)
                return
            self._say(assessment, name, remedy)
            if plan.to_change:
                writing.consent(plan)
                writing.apply(plan)
            else:
                writing.nothing(plan)

    @abstractmethod
    def _writing(self, recording: Recording) -> Writing[StoreT]:
        """Return the writer of the plan."""

    def _say(self, assessment: Assessment, name: str, remedy: str | None) -> None:
        """Print the plan, or the reasons why the file is rejected."""
        if assessment.problems:
            self._findings.name_problems(assessment.problems)
            self._findings.put_aside_rejects()
            raise bulk.refuse(assessment, name, remedy)
        self._findings.put_aside_rejects()
        plan = assessment.plan
        self._findings.name_left_out(plan.left_out)
        self._findings.show_forced(plan.forced)
        self._say_plan(plan)

    def _written_before(self, assessment: Assessment, subject: Subject) -> Run | None:
        """Return the run that already wrote this file, if a repeat would not be a no-op."""
        is_other = assessment.problems or assessment.plan.passed_on
        spec = self._purpose.spec
        if not (spec.changes_key and is_other) or spec.keeps_key:
            return None
        return written_before(runs_of(open_journal().read().events), subject)

    def _is_there(self, recorded: Place, here: Place) -> bool:
        """Return True if the run being undone is known to have been made here."""
        run = f"run {self._purpose.undo_of}" if self._purpose.undo_of else "the run"
        if is_same_place(recorded, here, run):
            return True
        self.out.warn(f"Cannot tell whether {run} was made on {here}. Check before you confirm.")
        return False

    def _subject(self, assessment: Assessment, place: Place) -> Subject:
        return Subject(
            command=self._purpose.command,
            target=self._scope.target,
            place=place,
            group_id=self._scope.group_id,
            group=self._scope.group,
            file=self._files.fingerprint.file,
            counts=counts_of(assessment),
            undo_of=self._purpose.undo_of,
            via=self._ground.via,
            api=self._context.given_api if self._ground.via == "api" else None,
        )

    def _say_plan(self, plan: Plan) -> None:
        parts = self._view.prospect(plan)
        if plan.detours:
            moves = f"{counted(plan.detours, 'identifier')} move{'s' * (plan.detours == 1)}"
            parts.append(f"{moves} between {self._view.noun}s in this file")
        rows = counted(plan.rows, "row")
        self.out.info(f"{rows} for {self._scope.words}: {', '.join(parts)}.")


def _ticking(requests: Iterator[Request], tick: Tick) -> Iterator[Request]:
    for count, request in enumerate(requests, start=1):
        if count % _TICK == 0:
            tick(count)
        yield request


class DatabaseJob(Job[BulkStore]):
    """A bulk run directly in the database: all rows in one transaction.

    Raises:
        NotFoundError: If the group does not exist.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int | None,
        files: JobFiles,
        purpose: Purpose,
    ):
        from aspen.database.bulk.run import BulkRun
        from aspen.database.settings import Limits

        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        database = context.database(writable=not purpose.dry_run, limits=limits)
        store = stack.enter_context(BulkRun(database, purpose.spec, group_id))
        group = None
        if group_id is not None:
            group = bulk.require_group(store.scope_name(), group_id)
        ground: DataSource[BulkStore] = DataSource(
            store, group, lambda: place_of(database.url, store.identity(), context.api_address)
        )
        super().__init__(context, stack, group_id, files, purpose, ground)

    def _check_rights(self) -> None:
        """Check the rights; see `Job._check_rights`."""
        bulk.require_rights(self._store.lacking_rights())

    def _writing(self, recording: Recording) -> Writing[BulkStore]:
        return DatabaseWriting(
            self._context,
            self._store,
            self._files,
            self._findings,
            self._purpose,
            self._scope,
            recording,
        )


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
            f"Confirmation required to {what} on {target.label}, but standard input is the {file}; "
            "nothing was written.",
            hint=f"Review the plan with --dry-run, then add {flag}.",
        )
    context.authorize(what, by_name=by_name, recorded=False)


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
        self._out.nothing(f"run {before.id} already wrote this file")
        undo = before.command_line(*self._view.undo, before.id)
        self._out.hint(f"To write it again, undo that run first: {undo}")
        self._findings.report("unchanged")
        tally = plan.tally and replace(plan.tally, created=0, deleted=0, changed=0)
        self._show_result(replace(plan, to_change=0, already=plan.rows, tally=tally), None)

    def nothing(self, plan: Plan) -> None:
        """Write nothing, because there are no changes."""
        self._recording.ended(Outcome.NOTHING)
        self._out.nothing(nothing_to_do(plan))
        self._findings.report("updated")
        self._show_result(plan, None)

    def consent(self, plan: Plan) -> None:
        """Show the pending changes, and ask for confirmation.

        Raises:
            RefusedError: If confirmation is denied, or cannot be requested.
        """
        self.preview()
        what = f"{self._view.deed(plan)}{self._scope.in_group}"
        if plan.forced:
            what += f" ({plan.forced:,} changed since that run)"
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

    def _report_written(self, plan: Plan, undo_file: Path) -> None:
        try:
            self._findings.publish_report()
        finally:  # the change is written, so the operator must learn how to undo it
            self._out.done(f"{self._view.result(plan)}.")
            self._show_result(plan, undo_file)

    def _show_result(self, plan: Plan, undo_file: Path | None) -> None:
        result = {
            "group_id": self._scope.group_id,
            "group": self._scope.group,
            "rows": plan.rows,
            "changed": plan.to_change,
            "already": plan.already,
            "left_out": plan.left_out,
            "undo_file": undo_file,
            "run": self._recording.id,
            "outcome": outcome_of(plan.to_change, plan.left_out, plan.tally),
        }
        if plan.tally:
            self._out.record(TALLY_COLUMNS, {**result, **vars(plan.tally)})
        else:
            self._out.record(RESULT_COLUMNS, result)
        if undo_file:
            self._hint_undo(undo_file)

    def _hint_undo(self, undo_file: Path) -> None:
        words = (*self._view.undo, str(undo_file.absolute()))
        self._out.hint(f"Undo it: {self._context.command(*words)}")


class DatabaseWriting(Writing[BulkStore]):
    """A writer that applies a plan in one transaction."""

    def apply(self, plan: Plan) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If rows were changed in the meantime; nothing was written.
            AspenError: See `aspencli.changes.apply.apply`.
        """
        origin = self._origin(plan)
        self._findings.prepare_report("updated")
        ask = self._context.command("history", "check", self._recording.id)
        with Shield() as shield:
            undo: list[Path] = []

            def write(rows: bulk.WriteRows) -> Path:
                folder = files.state_dir() / "undo"
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
                self._findings.report("skipped")
                raise
            self._recording.ended(Outcome.WRITTEN)
            self._report_written(plan, path)
            if shield.late:
                self._out.warn("The interrupt came after the commit: all updates were written.")
