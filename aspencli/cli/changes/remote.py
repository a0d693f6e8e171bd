"""Bulk runs through the API, renames and undos: planned as in a database, written by requests.

The journal of a rename records each request before it is sent, so that an interrupted run can be
resumed. While a run is unfinished, no other run can start in its group, except one that undoes it.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aspen.database.bulk.spec import AssessedRow, Plan, ValueChange
from aspencli import files
from aspencli.changes import request_journal
from aspencli.changes.apply import Assessment
from aspencli.changes.journal import Recording, open_journal
from aspencli.changes.report import RENAMES, JobFiles, ReportFile
from aspencli.changes.request_journal import RenameRow, RunFacts, RunJournal, RunState
from aspencli.changes.runs import (
    NO_ID_HINT,
    Counts,
    InputFile,
    Outcome,
    Place,
    Run,
    Subject,
    find,
    looks_like_id,
    runs_of,
)
from aspencli.changes.undo import write_undo_rows
from aspencli.cli.changes.execute import is_made_here, signed, witness_of
from aspencli.cli.changes.runner import BulkJob, Purpose, StoreT
from aspencli.cli.changes.views import (
    RENAMING,
    RESULT_COLUMNS,
    SHOWN,
    problem_line,
    result_row,
)
from aspencli.cli.context import AppContext
from aspencli.cli.output.formats import Row
from aspencli.config import command_for
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.reference.remote import Org, Scope, find_slugs, require_writer
from aspencli.samples.edit import PlannedEdits
from aspencli.samples.remote import GroupSamples, Snapshot
from aspencli.samples.remote_plan import RenamePlan, RestorePlan
from aspencli.samples.rename_run import (
    Running,
    RunStopped,
    find_remaining,
    temporary_name,
    wanted_by,
    write_rows,
)
from aspencli.signals import Brake
from aspencli.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aspencli.remote.types import Sample
    from aspencli.samples.edit import Edit
    from aspencli.samples.rename_run import Remaining


_STOPPING = b"\nStopping once no sample has a temporary identifier. Interrupt again to stop now.\n"
_UNSENT = "No request was sent; nothing was changed."


class GroupAccess(NamedTuple):
    """Access to the samples of a group through the API."""

    place: GroupSamples
    group: str  # its name
    stored: Place  # the identity of the API, as recorded in the history

    def unfinished(self, target: str) -> RunState | None:
        """Return the newest run that blocks other runs in the group, if any."""
        return request_journal.unfinished(target, self.place.group_id, api=self.stored.api)


def open_grounds(context: AppContext, group_id: int) -> GroupAccess:
    """Find a group through the API.

    Raises:
        CredentialsError: If the user may not change its samples.
        NotFoundError: If the group does not exist.
    """
    from urllib.parse import urlsplit

    api = context.api()
    me = api.users.me()
    known = next((group for group in me["groups"] if group["id"] == group_id), None)
    name = known["name"] if known else api.groups.get(group_id)["name"]
    require_writer(me, Org(group_id, name))
    address = context.access.at.api_url
    url = urlsplit(address)
    place = GroupSamples(api.samples, group_id, find_slugs(api, None))
    stored = Place(url.hostname, url.port, api=address, beside=context.database_address)
    return GroupAccess(place, name, stored)


class RemoteJob(BulkJob[StoreT]):
    """A bulk run through the API.

    Raises:
        CredentialsError: If the user may not change the samples of the group.
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
        self._grounds = _, group, stored = open_grounds(context, group_id)
        self.context = context  # for the store
        store = self._open_store(purpose)
        super().__init__(context, stack, group_id, group, files, purpose, store, lambda: stored)

    @abstractmethod
    def _open_store(self, purpose: Purpose) -> StoreT:
        """Return the store that plans the run."""


class ApiJob(RemoteJob[RenamePlan]):
    """A bulk rename through the API, which applies a plan request by request."""

    def _open_store(self, purpose: Purpose) -> RenamePlan:
        undone = purpose.undo_of
        parked = partial(temporary_name, undone) if undone else None
        found = self._grounds.unfinished(self.context.target.label)
        interrupted = request_journal.read_rows(found.path) if found else ()
        return RenamePlan(purpose.spec, self._grounds.place.read, parked, interrupted)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Run as `BulkJob.go` does, but resume an interrupted run first.

        Raises:
            ConflictError: If another run in this group was interrupted, and must be ended first.
        """
        found = self._grounds.unfinished(self.context.target.label)
        if found is not None:
            with request_journal.reopen(found.path) as journal:
                self.context.out.warn(f"Run {journal.head.run} was interrupted before it finished.")
                if not self._purpose.dry_run and self._is_same(journal.head):
                    self._go_on(journal)
                    return
                if not self._purpose.dry_run:
                    self._refuse_other(journal)
        super().go(assessment, name, remedy)

    def _is_same(self, head: RunFacts) -> bool:
        file = self.files.fingerprint.file
        return (head.command, head.sha256) == (self._purpose.command, file.sha256)

    def _refuse_other(self, journal: RunJournal) -> None:
        head = journal.head
        undone = request_journal.read_state(head.undo_of) if head.undo_of else None
        is_half_undo = undone is not None and undone.is_open
        if self._purpose.undo_of == head.run and not is_half_undo:
            return  # its changes are being undone
        hint = f"Resume it: {self.context.command('samples', 'resume', head.run)}"
        if not is_half_undo:  # otherwise there is no complete state to go back to
            hint += f" or undo it: {self.context.command('samples', 'undo', head.run)}"
        raise _interrupted(head, hint)

    def _go_on(self, journal: RunJournal) -> None:
        what = f"resume run {journal.head.run}{self._in_group}"
        self.context.authorize(what, stdin=self.stdin)
        go_on(self.context, self._grounds, journal, self._store.snapshot, self.files.report)

    def apply(self, recording: Recording) -> None:
        """Write the plan, and report the result.

        Raises:
            ConflictError: If rows were changed in the meantime.
            AspenError: See `drive`; the error says how to resume.
        """
        self._findings.prepare_report("updated")
        undo = self._save_undo(recording, partial(write_rows, self._store.rows_to_undo()))
        try:
            journal = request_journal.create(self._head(undo, recording), self._store.all_rows())
        except BaseException:
            undo.unlink(missing_ok=True)  # there is nothing to undo
            raise
        with journal:
            self._refuse_beside_other(journal.head)
            recording.sending(undo, journal.path, lambda: journal.begun)

            def finish(_left: Remaining) -> None:
                end(journal)
                recording.ended(Outcome.WRITTEN)

            drive(self.context, self._grounds.place, journal, self._store.snapshot, finish)
        self._report_written(undo, recording)

    def leave(self, recording: Recording) -> None:
        """Report that nothing was changed; an interrupted run with nothing to undo has ended."""
        if self.before is None:
            mark_rolled_back(self._purpose.undo_of, recording.id)
        super().leave(recording)

    def _refuse_beside_other(self, head: RunFacts) -> None:
        """Refuse to start if a run of this group began while waiting for confirmation.

        Raises:
            ConflictError: If there is one.
        """
        other = _other_run(head)
        if other is not None:
            resume = self.context.command("samples", "resume", other.head.run)
            raise _interrupted(other.head, f"Wait for it to finish, or resume it: {resume}")

    def _head(self, undo: Path, recording: Recording) -> RunFacts:
        place, group, stored = self._grounds
        file = self.files.fingerprint.file
        return RunFacts(
            run=recording.id,
            command=self._purpose.command,
            target=self.context.target.label,
            group_id=place.group_id,
            group=group,
            slug=place.slug,
            file=file.given or "",
            sha256=file.sha256 or "",
            undo_file=str(undo.absolute()),
            undo_of=self._purpose.undo_of,
            api=stored.api,
        )


class RestoreJob(RemoteJob[RestorePlan]):
    """An undo of several columns of samples through the API."""

    def _open_store(self, purpose: Purpose) -> RestorePlan:
        return RestorePlan(purpose.spec, self._grounds.place, self.context.api().locations)

    def go(self, assessment: Assessment, name: str, remedy: str | None = None) -> None:
        """Run as `BulkJob.go` does, unless samples of the group may have temporary identifiers.

        Raises:
            ConflictError: If a rename in this group was interrupted, and must be ended first.
        """
        found = self._grounds.unfinished(self.context.target.label)
        if found is not None and not self._purpose.dry_run:
            resume = self.context.command("samples", "resume", found.head.run)
            raise _interrupted(found.head, f"Resume it: {resume}")
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
        batches = self._store.batches()
        planned = self._checked(batches)
        spec, total = self._purpose.spec, self._plan.to_change
        rows = partial(write_undo_rows, spec, self._store.undo_rows())
        undo = self._save_undo(recording, rows)
        done: list[Sample] = []
        with (
            recording.keeping(undo, done, lambda: self._say_partial(len(done), undo)),
            self.context.out.progress("Updating samples", total) as tick,
        ):
            for slug, edits in batches:
                for some in planned[slug].apply(edits):
                    done += some
                    tick(len(done))
        recording.ended(Outcome.WRITTEN)
        self._report_written(undo, recording)

    def _checked(self, batches: Sequence[tuple[str, Sequence[Edit]]]) -> dict[str, PlannedEdits]:
        """Return the edits by pathogen, once it is sure that none of their samples has changed."""
        samples = self._grounds.place.samples
        planned: dict[str, PlannedEdits] = {}
        for slug, age in self._store.ages.items():
            edits = [edit for of, some in batches if of == slug for edit in some]
            planned[slug] = PlannedEdits(samples, self._access(slug), edits, age)
            planned[slug].check()
        return planned

    def _access(self, slug: str) -> Scope:
        grounds = self._grounds
        return Scope(Org(grounds.place.group_id, grounds.group), slug)

    def _say_partial(self, done: int, undo: Path) -> None:
        total = counted(self._plan.to_change, "sample")
        self.context.out.warn(
            f"{done:,} of {total} updated before the error, and perhaps those of the last request. "
            "To update the others, run the command again."
        )
        self._hint_undo(undo)


def _other_run(head: RunFacts) -> RunState | None:
    """Return a run that blocks the group of this one, unless this one undoes it."""
    return request_journal.unfinished(
        head.target, head.group_id, (head.run, head.undo_of), head.api
    )


def _interrupted(head: RunFacts, hint: str) -> ConflictError:
    return ConflictError(
        f"Run {head.run} ({head.file}) in this group was interrupted and is not finished; "
        "nothing was changed.",
        hint=hint,
    )


def take_up(context: AppContext, what: str, report: Path | None, *, dry_run: bool) -> None:
    """Resume the run with an ID or a journal, and report its outcome.

    Raises:
        BadInputError: If there is nothing to resume on this target.
        ConflictError: If another process is working on it, or some samples were skipped.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(request_journal.reopen(_path_of(what)))
        head = journal.head
        _refuse_other_target(context, head)
        if journal.ended is not None:
            context.out.nothing(f"run {head.run} has ended ({journal.ended})")
            return context.out.dry_run() if dry_run else None
        _refuse_beside_other(journal)
        draft = stack.enter_context(ReportFile(report, RENAMES)) if report else None
        grounds = open_grounds(context, head.group_id)
        certain = is_made_here(context.out, _known_place(head), grounds.stored, f"run {head.run}")
        deed = f"resume run {head.run} ({head.file}) in group {head.group_id} ({head.group})"
        if not dry_run:
            context.authorize(deed, by_name=not certain)
        with context.out.progress("Reading"):
            snapshot = grounds.place.read(wanted_by(journal.rows))
        if dry_run:
            return _show_rest(context, journal, snapshot, deed)
        return go_on(context, grounds, journal, snapshot, draft)


def _refuse_other_target(context: AppContext, head: RunFacts) -> None:
    if head.target != context.target.label:
        raise BadInputError(
            f"Run {head.run} was made on {head.target}, but the target is {context.target.label}.",
            hint="Resume it there: "
            + command_for(head.target, "samples", "resume", head.run, api=_given_api(head.run)),
        )


def _refuse_beside_other(journal: RunJournal) -> None:
    """Refuse to resume a run while another one blocks its group.

    Raises:
        ConflictError: If there is such a run; it may be an undo of this one.
    """
    head, other = journal.head, _other_run(journal.head)
    if other is not None:
        raise ConflictError(
            f"Run {other.head.run} ({other.head.file}) in this group was interrupted and must be "
            "finished first; nothing was changed.",
            hint="Resume it: "
            + command_for(
                head.target,
                "samples",
                "resume",
                other.head.run,
                api=_given_api(other.head.run),
            ),
        )


def _recorded(run: str) -> Run | None:
    return next((one for one in runs_of(open_journal().read().events) if one.id == run), None)


def _given_api(run: str) -> str | None:
    found = _recorded(run)
    return found.api if found else None


def _known_place(head: RunFacts) -> Place:
    """Return where a run was made, according to its own journal or the history."""
    if head.api:
        return Place(api=head.api)
    found = _recorded(head.run)
    return found.place if found else Place()


def _path_of(what: str) -> Path:
    path = files.expand(what)
    if path.is_file() or not looks_like_id(what):
        return path
    run = find(runs_of(open_journal().read().events), what)
    standing = request_journal.read_state(run.id)
    if standing is None:
        raise BadInputError(f"Nothing to resume in run {run.id} ({run.outcome}).", hint=NO_ID_HINT)
    return standing.path


def go_on(
    context: AppContext,
    grounds: GroupAccess,
    journal: RunJournal,
    snapshot: Snapshot,
    report: ReportFile | None,
) -> None:
    """Resume an interrupted run, and report its outcome.

    Raises:
        ConflictError: If it is done except for samples that someone else changed.
        AspenError: See `drive`.
    """
    out, head = context.out, journal.head
    subject = signed(context, _subject_of(journal, grounds.stored))
    trail = witness_of(context)
    with Recording(open_journal(), subject, out.warn, resumes=head.run, witness=trail) as recording:
        recording.confirmed()
        journal.resumed()

        def finish(left: Remaining) -> None:
            end(journal)
            aside = f"{counted(len(left.aside), 'sample')} skipped" if left.aside else None
            recording.ended(Outcome.WRITTEN, aside)

        left = drive(context, grounds.place, journal, snapshot, finish, resumed=True)
    _report_resumed(context, journal, left, report)
    _end_with_skipped(journal, left)


def _report_resumed(
    context: AppContext, journal: RunJournal, left: Remaining, report: ReportFile | None
) -> None:
    out, head = context.out, journal.head
    for problem in left.aside[:SHOWN]:
        out.warn(f"Skipped {problem_line(problem)}")
    if report:
        report.write(_outcomes(journal, left), (), "updated")
        out.info(f"Report: {report.publish()}")
    out.done(f"{counted(left.done, 'sample')} updated by run {head.run}.")
    out.record(RESULT_COLUMNS, _result(journal, left))
    undo = context.command("samples", "undo", head.undo_file)
    out.hint(f"Undo it: {undo}")


def _end_with_skipped(journal: RunJournal, left: Remaining) -> None:
    """End the command with the exit code for skipped samples, if there are any.

    Raises:
        ConflictError: If there are.
    """
    if left.aside:
        raise ConflictError(
            f"{len(left.aside):,} of {counted(len(journal.rows), 'sample')} skipped (listed "
            "above).",
            hint="Check each one: aspencli samples show PRIVATE_IDENTIFIER",
        )


def _show_rest(context: AppContext, journal: RunJournal, snapshot: Snapshot, what: str) -> None:
    """Show what is left of a run, without changing anything."""
    out = context.out
    left = find_remaining(journal.head.run, journal.rows, snapshot)
    for problem in left.aside[:SHOWN]:
        out.warn(f"Skipped {problem_line(problem)}")
    aside = {problem.line for problem in left.aside}
    out.rows(
        RENAMING.plan_columns, RENAMING.shown(_rest(row, snapshot, aside) for row in journal.rows)
    )
    out.dry_run(what)
    _end_with_skipped(journal, left)


def _rest(row: RenameRow, snapshot: Snapshot, aside: set[int]) -> AssessedRow:
    held = snapshot.samples.get(row.id)
    is_done = row.before == row.after or (held and held.public_identifier == row.after)
    outcome = "skip" if row.line in aside else "unchanged" if is_done else "update"
    change = ValueChange("public_identifier", row.before, row.after)
    return AssessedRow(row.line, row.key, (change,), becomes=outcome)


def _result(journal: RunJournal, left: Remaining) -> Row:
    head, rows = journal.head, len(journal.rows)
    plan = Plan(rows, left.done, rows - journal.to_change, len(left.aside), detours=0, problems=0)
    return result_row(plan, head.group_id, head.group, Path(head.undo_file), head.run)


def _outcomes(journal: RunJournal, left: Remaining) -> Iterator[AssessedRow]:
    reasons = {problem.line: f"{problem.column}: {problem.reason}" for problem in left.aside}
    for row in journal.rows:
        change = ValueChange("public_identifier", row.before, row.after)
        reason = reasons.get(row.line)
        yield AssessedRow(row.line, row.key, (change,), reason, reason is not None)


def _subject_of(journal: RunJournal, stored: Place) -> Subject:
    """Return the run as described when it began; the history has the rest."""
    head = journal.head
    return Subject(
        command=head.command,
        target=head.target,
        place=stored,
        group_id=head.group_id,
        group=head.group,
        file=InputFile(head.file, None, None, head.sha256),
        counts=Counts(len(journal.rows)),
        undo_of=head.undo_of,
        via="api",
    )


def drive(
    context: AppContext,
    place: GroupSamples,
    journal: RunJournal,
    snapshot: Snapshot,
    finish: Callable[[Remaining], None],
    *,
    resumed: bool = False,
) -> Remaining:
    """Send the requests of a run, from its current state, until it is done.

    No interrupt can come between the last request and the call of ``finish``, which records
    completion. With ``resumed``, an earlier process may have sent a request without recording its
    result.

    Raises:
        KeyboardInterrupt: If asked to stop.
        AspenError: If it cannot continue; the error says how to resume.
    """
    out = context.out
    resume = context.command("samples", "resume", str(journal.path))
    with Brake(lambda: _say_stopping(context)) as brake:
        with out.progress("Updating samples", journal.to_change) as tick:
            running = Running(place, journal, tick, lambda: brake.pulled)
            try:
                left = running.run(snapshot, resumed=resumed)
            except RunStopped:
                left = None
            except KeyboardInterrupt:
                if journal.begun:
                    state = f"{_so_far(running)}; some may have a temporary identifier"
                    out.warn(f"{state}. To resume: {resume}")
                raise
            except AspenError as error:
                if journal.begun:
                    error.details = (*error.details, f"{_so_far(running)}; the run can be resumed")
                    hint = f"{error.hint} " if error.hint else ""
                    error.hint = f"{hint}To resume: {resume}"
                else:
                    error.details = (*error.details, _UNSENT)
                raise
        if left is None:
            if journal.begun:
                out.warn(
                    f"{_so_far(running)}; none has a temporary identifier. To resume: {resume}"
                )
            else:
                out.warn(_UNSENT)
            brake.obey()
        finish(left)
        if brake.pulled:
            out.warn("The interrupt came after the last request: all updates were written.")
    return left


def end(journal: RunJournal) -> None:
    """Mark the run as done in its journal, and a run that it undid as well."""
    # In this order, because if this run ended first, only the other one would block the group,
    # and resuming that would redo what was just undone.
    mark_rolled_back(journal.head.undo_of, journal.head.run)
    journal.end(Outcome.WRITTEN.value)


def mark_rolled_back(undone: str | None, by: str) -> None:
    """Mark an interrupted run as rolled back in its journal, undone by another run."""
    standing = request_journal.read_state(undone) if undone else None
    if standing is not None and standing.ended is None:
        with request_journal.reopen(standing.path) as taken_back:
            taken_back.end(Outcome.ROLLED_BACK.value, f"undone by run {by}")


def _so_far(running: Running) -> str:
    return f"{running.done:,} of {counted(running.total, 'sample')} updated"


def _say_stopping(context: AppContext) -> None:
    # This runs in a signal handler, so Python's streams may be mid-write.
    if context.out.err.isatty():
        os.write(context.out.err.fileno(), _STOPPING)
