"""The undo of several columns of samples through the API."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import files
from aspencli.changes import request_journal
from aspencli.changes.recording import Recording, Subject
from aspencli.changes.report import JobFiles
from aspencli.changes.runs import Outcome, Place
from aspencli.changes.undo import write_undo, write_undo_rows
from aspencli.cli.changes.remote import RemoteWriting, open_grounds
from aspencli.cli.changes.runner import DataSource, Job, Purpose
from aspencli.cli.context import AppContext
from aspencli.errors import ConflictError
from aspencli.remote.scope import Org
from aspencli.remote.scope import Scope as Access
from aspencli.samples.edit import apply_edits, check_edits
from aspencli.samples.restore import RestorePlan
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.bulk.spec import Plan
    from aspencli.changes.apply import Assessment
    from aspencli.remote.types import Sample


class RestoreJob(Job[RestorePlan]):
    """An undo of several columns of samples through the API.

    Raises:
        CredentialsError: If the user may not change the samples.
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
        self._grounds = open_grounds(context, group_id)
        store = RestorePlan(purpose.spec, self._grounds.place, context.api().locations)
        ground = DataSource(store, self._grounds.group, lambda: self._grounds.stored, via="api")
        super().__init__(context, stack, group_id, files, purpose, ground)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Run as `Job.go` does, unless samples of the group may have temporary identifiers.

        Raises:
            ConflictError: If a rename in this group was interrupted, and must be ended first.
        """
        place = self._grounds.place
        found = request_journal.unfinished(
            self._scope.target, place.group_id, api=self._grounds.stored.api
        )
        if found is not None and not self._purpose.dry_run:
            resume = self._context.command("samples", "resume", found.head.run)
            raise ConflictError(
                f"Run {found.head.run} ({found.head.file}) in this group was interrupted and is "
                "not finished; nothing was changed.",
                hint=f"Resume it: {resume}",
            )
        super().go(assessment, name, remedy)

    def _subject(self, assessment: Assessment, place: Place) -> Subject:
        # Only renames have a journal of their requests, from which they can be resumed.
        return replace(super()._subject(assessment, place), single=True)

    def _writing(self, recording: Recording) -> RestoreWriting:
        return RestoreWriting(
            self._context,
            self._store,
            self._files,
            self._findings,
            self._purpose,
            self._scope,
            recording,
            self._grounds,
        )


class RestoreWriting(RemoteWriting[RestorePlan]):
    """A writer that sends the edits of an undo."""

    def apply(self, plan: Plan) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If samples were changed in the meantime.
            AspenError: If the API refused a request; the error says how many samples are restored.
        """
        self._findings.prepare_report("updated")
        batches, samples = self._store.batches(), self._grounds.place.samples
        checked = time.monotonic()
        for slug, edits in batches:
            check_edits(samples, self._access(slug), edits)
        rows = partial(write_undo_rows, self._purpose.spec, self._store.undo_rows())
        undo = write_undo(files.state_dir() / "undo", self._origin(plan), rows, self._files.undo)
        done: list[Sample] = []
        with (
            self._recording.keeping(undo, done, lambda: self._say_partial(len(done), plan, undo)),
            self._out.progress("Updating samples", plan.to_change) as tick,
        ):
            for slug, edits in batches:
                for some in apply_edits(samples, self._access(slug), edits, checked):
                    done += some
                    tick(len(done))
        self._recording.ended(Outcome.WRITTEN)
        self._report_written(plan, undo)

    def _access(self, slug: str) -> Access:
        return Access(Org(self._grounds.place.group_id, self._grounds.group), slug)

    def _say_partial(self, done: int, plan: Plan, undo: Path) -> None:
        total = counted(plan.to_change, "sample")
        self._out.warn(
            f"{done:,} of {total} updated before the error, and perhaps those of the last request. "
            "To update the others, run the command again."
        )
        self._hint_undo(undo)
