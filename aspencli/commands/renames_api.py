"""A bulk rename through the API: planned as for a database, written request by request."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.commands.bulk_findings import Findings
from aspencli.commands.bulk_job import Ground, Job
from aspencli.commands.bulk_writing import Purpose, Scope, Writing, agree
from aspencli.commands.renames_driving import (
    Grounds,
    drive,
    end,
    end_taken_back,
    go_on,
    open_grounds,
)
from aspencli.errors import BadInputError, ConflictError
from aspencli.services.api_renames import journal as run_journals
from aspencli.services.api_renames.journal import Head
from aspencli.services.api_renames.planning import ListPlan
from aspencli.services.api_renames.remaining import temporary_name
from aspencli.services.api_renames.undo_rows import write_rows
from aspencli.services.bulk import Assessment
from aspencli.services.job_files import JobFiles
from aspencli.services.recording import Recording
from aspencli.services.runs import Outcome
from aspencli.services.undofile import write_undo

if TYPE_CHECKING:
    from aspencli.context import AppContext
    from aspencli.services.api_renames.journal import RunJournal
    from aspencli.services.api_renames.remaining import Remaining
    from db.bulk.rows import Plan


class ApiJob(Job[ListPlan]):
    """A bulk rename through the API.

    Raises:
        BadInputError: If the API does not support the change.
        CredentialsError: If the user may not make it.
        NotFoundError: If the group does not exist.
    """

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int,
        files: JobFiles,
        purpose: Purpose,
    ):
        if not purpose.spec.is_plain:
            raise BadInputError(
                "through the API only public identifiers can be changed in bulk",
                hint="Go straight to the database: add --via db",
            )
        grounds = open_grounds(context, group_id)
        undone = purpose.undo_of
        parked = partial(temporary_name, undone) if undone else None
        store = ListPlan(purpose.spec, grounds.place.read, parked)
        ground = Ground(store, grounds.group, lambda: grounds.stored, via="api")
        super().__init__(context, stack, group_id, files, purpose, ground)
        self._grounds = grounds
        self._group_id = group_id

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Run as `Job.go` does, but resume an interrupted run first.

        Raises:
            ConflictError: If another run in this group was interrupted, and must be ended first.
        """
        found = run_journals.unfinished(
            self._scope.target, self._group_id, api=self._grounds.stored.api
        )
        if found is not None:
            with run_journals.reopen(found.path) as journal:
                self.out.warn(f"run {journal.head.run} was interrupted before it was done.")
                if not self._purpose.dry_run and self._is_same(journal.head):
                    self._go_on(journal)
                    return
                if not self._purpose.dry_run:
                    self._refuse_other(journal)
        super().go(assessment, name, remedy)

    def _is_same(self, head: Head) -> bool:
        file = self._files.fingerprint.file
        return (head.command, head.sha256) == (self._purpose.command, file.sha256)

    def _refuse_other(self, journal: RunJournal) -> None:
        head = journal.head
        undone = run_journals.look_up(head.undo_of) if head.undo_of else None
        is_half_undo = undone is not None and undone.is_open
        if self._purpose.undo_of == head.run and not is_half_undo:
            return  # its changes are being undone
        hint = f"Go on with it: {self._context.command('samples', 'resume', head.run)}"
        if not is_half_undo:  # otherwise there is no complete state to go back to
            hint += f" or take it back: {self._context.command('samples', 'undo', head.run)}"
        raise _interrupted(head, hint)

    def _go_on(self, journal: RunJournal) -> None:
        what = f"go on with it{self._scope.of_group}"
        agree(self._context, self._files.from_stdin, self._view.file, what)
        place, snapshot = self._grounds.place, self._store.snapshot
        report = self._files.report
        go_on(self._context, place, journal, snapshot, self._grounds.stored, report)

    def _writing(self, recording: Recording) -> ApiWriting:
        return ApiWriting(
            self._context,
            self._store,
            self._files,
            self._findings,
            self._purpose,
            self._scope,
            recording,
            self._grounds,
        )


class ApiWriting(Writing[ListPlan]):
    """A writer that applies a plan request by request; see `Writing` for the other arguments.

    Args:
        grounds: Access to the samples of the group.
    """

    def __init__(
        self,
        context: AppContext,
        store: ListPlan,
        files: JobFiles,
        findings: Findings,
        purpose: Purpose,
        scope: Scope,
        recording: Recording,
        grounds: Grounds,
    ):
        super().__init__(context, store, files, findings, purpose, scope, recording)
        self._grounds = grounds

    def apply(self, plan: Plan) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If rows were changed in the meantime.
            AspenError: See `drive`; the error says how to resume.
        """
        self._findings.prepare_report("changed")
        rows, folder = self._store.all_rows(), homes.state_dir() / "undo"
        put_back = partial(write_rows, self._store.rows_to_undo())
        undo = write_undo(folder, self._origin(plan), put_back, self._files.undo)
        try:
            journal = run_journals.create(self._head(undo), rows)
        except BaseException:
            undo.unlink(missing_ok=True)  # there is nothing to undo
            raise
        with journal:
            self._refuse_beside_other(journal.head)
            self._recording.sending(undo, journal.path, lambda: journal.begun)

            def finish(_left: Remaining) -> None:
                end(journal)
                self._recording.ended(Outcome.WRITTEN)

            drive(self._context, self._grounds.place, journal, self._store.snapshot, finish)
        try:
            self._findings.publish_report()
        finally:  # the change is written, so the operator must learn how to undo it
            self._out.done(f"{self._view.result(plan)}.")
            self._show_result(plan, undo)

    def nothing(self, plan: Plan) -> None:
        """Write nothing; an interrupted run with nothing to undo is marked as ended."""
        end_taken_back(self._purpose.undo_of, self._recording.id)
        super().nothing(plan)

    def _refuse_beside_other(self, head: Head) -> None:
        """Refuse to start if a run of this group began while waiting for confirmation.

        Raises:
            ConflictError: If there is one.
        """
        other = run_journals.unfinished(
            head.target, head.group_id, (head.run, head.undo_of), head.api
        )
        if other is not None:
            resume = self._context.command("samples", "resume", other.head.run)
            raise _interrupted(other.head, f"Wait for it to end, or go on with it: {resume}")

    def _head(self, undo: Path) -> Head:
        file = self._files.fingerprint.file
        return Head(
            run=self._recording.id,
            command=self._purpose.command,
            target=self._scope.target,
            group_id=self._grounds.place.group_id,
            group=self._grounds.group,
            slug=self._grounds.place.slug,
            file=file.given or "",
            sha256=file.sha256 or "",
            undo_file=str(undo.absolute()),
            undo_of=self._purpose.undo_of,
            api=self._grounds.stored.api,
        )


def _interrupted(head: Head, hint: str) -> ConflictError:
    return ConflictError(
        f"run {head.run} ({head.file}) in this group was interrupted, and is not done; "
        "nothing was changed",
        hint=hint,
    )
