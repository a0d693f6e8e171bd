"""The stages of a bulk run: read, plan, and then reject, show, or write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from heapq import merge
from typing import TYPE_CHECKING, Generic, TypeVar

from aspencli.commands.bulk_findings import Findings
from aspencli.commands.bulk_options import say_notes
from aspencli.commands.bulk_writing import DatabaseWriting, Purpose, Scope, Writing
from aspencli.context import AppContext
from aspencli.errors import ConflictError
from aspencli.output.console import Tick
from aspencli.output.text import counted
from aspencli.services import bulk
from aspencli.services.bulk import Assessment, BulkStore, Faults, PlanStore
from aspencli.services.folding import fold
from aspencli.services.job_files import JobFiles
from aspencli.services.journal import open_journal
from aspencli.services.recording import Recording, Subject, counts_of, place_of
from aspencli.services.repeats import written_before
from aspencli.services.runs import Place, is_same_place

if TYPE_CHECKING:
    from aspencli.services.runs import Run
    from aspencli.services.tables import Table
    from db.bulk.rows import Plan, PlannedRow, Request

StoreT = TypeVar("StoreT", bound=PlanStore)
_STATEMENT_MS, _LOCK_MS = 1_800_000, 10_000
_TICK = 1_000  # rows between updates of the progress bar


@dataclass(frozen=True)
class Ground(Generic[StoreT]):
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
        ground: Ground[StoreT],
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
        say_notes(self.out, source, said)
        if source.blank_lines:
            self.out.info(f"Note: blank lines skipped: {source.blank_lines:,}.")
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
            force = "" if self._purpose.force else "; --force takes those changed since, too"
            raise ConflictError(
                "left alone, as named above: "
                f"{self._view.lines(plan, plan.left_out)} of {plan.rows:,}",
                hint=f"Look at each: {self._view.look}{force}",
            )

    def _show(
        self, assessment: Assessment, name: str, remedy: str | None, before: Run | None
    ) -> None:
        if before:
            self.out.warn(f"run {before.id} wrote this file already, and it is not written again.")
        self._say(assessment, name, remedy)
        skipped = self._skipped() if assessment.plan.left_out else []
        rows = merge(self._store.rows(), skipped, key=lambda row: row.line)
        self.out.rows(self._view.plan_columns, self._view.shown(rows))
        self._findings.report("would change")
        self.out.hint("Nothing was written (--dry-run).")
        if assessment.plan.to_change:
            self._check_rights()

    def _check_rights(self) -> None:
        """Check that the user may write what a dry run has shown.

        Raises:
            CredentialsError: If not.
        """

    def _skipped(self) -> list[PlannedRow]:
        """Return the rows that the plan leaves out, in the form of planned rows."""
        from db.bulk.rows import PlannedRow

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
        return written_before(fold(open_journal().read().events), subject)

    def _is_there(self, recorded: Place, here: Place) -> bool:
        """Return True if the run being undone is known to have been made here."""
        run = f"run {self._purpose.undo_of}" if self._purpose.undo_of else "The run"
        if is_same_place(recorded, here, run):
            return True
        self.out.warn(
            f"It is not known whether {run} was made on {here}: check it before you confirm."
        )
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
            parts.append(f"{counted(plan.detours, 'identifier')} passed on within the file")
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
        from db.bulk.run import BulkRun
        from db.connecting import Limits

        limits = Limits(statement_ms=_STATEMENT_MS, lock_ms=_LOCK_MS)
        database = context.database(writable=not purpose.dry_run, limits=limits)
        store = stack.enter_context(BulkRun(database, purpose.spec, group_id))
        group = None
        if group_id is not None:
            group = bulk.require_group(store.scope_name(), group_id)
        ground: Ground[BulkStore] = Ground(
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
