"""The undo of several columns of samples through the API."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli.changes.journal import Recording
from aspencli.changes.report import JobFiles
from aspencli.changes.runs import Outcome, Subject
from aspencli.changes.undo import write_undo_rows
from aspencli.cli.changes.remote import interrupted, open_grounds
from aspencli.cli.changes.runner import Job, Purpose
from aspencli.cli.context import AppContext
from aspencli.reference.remote import Org
from aspencli.reference.remote import Scope as Access
from aspencli.samples.edit import apply_edits, check_edits
from aspencli.samples.remote_plan import RestorePlan
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.changes.apply import Assessment
    from aspencli.remote.api import Sample


class RestoreJob(Job[RestorePlan]):
    """An undo of several columns of samples through the API.

    Raises:
        CredentialsError: If the user may not change the samples.
        NotFoundError: If the group does not exist.
    """

    _via = "api"

    def __init__(
        self,
        context: AppContext,
        stack: ExitStack,
        group_id: int,
        files: JobFiles,
        purpose: Purpose,
    ):
        self._grounds = place, group, stored = open_grounds(context, group_id)
        store = RestorePlan(purpose.spec, place, context.api().locations)
        super().__init__(context, stack, group_id, group, files, purpose, store, lambda: stored)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Run as `Job.go` does, unless samples of the group may have temporary identifiers.

        Raises:
            ConflictError: If a rename in this group was interrupted, and must be ended first.
        """
        found = self._grounds.unfinished(self.context.target.label)
        if found is not None and not self._purpose.dry_run:
            resume = self.context.command("samples", "resume", found.head.run)
            raise interrupted(found.head, f"Resume it: {resume}")
        super().go(assessment, name, remedy)

    def subject(self) -> Subject:
        """Return the facts to record: only renames have a journal to be resumed from."""
        return replace(super().subject(), single=True)

    def apply(self, recording: Recording) -> None:
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
        spec, total = self._purpose.spec, self._plan.to_change
        rows = partial(write_undo_rows, spec, self._store.undo_rows())
        undo = self._save_undo(recording, rows)
        done: list[Sample] = []
        with (
            recording.keeping(undo, done, lambda: self._say_partial(len(done), undo)),
            self.context.out.progress("Updating samples", total) as tick,
        ):
            for slug, edits in batches:
                for some in apply_edits(samples, self._access(slug), edits, checked):
                    done += some
                    tick(len(done))
        recording.ended(Outcome.WRITTEN)
        self._report_written(undo, recording)

    def _access(self, slug: str) -> Access:
        grounds = self._grounds
        return Access(Org(grounds.place.group_id, grounds.group), slug)

    def _say_partial(self, done: int, undo: Path) -> None:
        total = counted(self._plan.to_change, "sample")
        self.context.out.warn(
            f"{done:,} of {total} updated before the error, and perhaps those of the last request. "
            "To update the others, run the command again."
        )
        self._hint_undo(undo)
