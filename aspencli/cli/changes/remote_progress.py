"""Execution of renames through the API, with stopping, resuming, and reporting."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aspen.database.bulk.rows import AssessedRow, Change
from aspencli.changes import request_journal
from aspencli.changes.journal import open_journal
from aspencli.changes.recording import Recording, Subject
from aspencli.changes.runs import Counts, InputFile, Outcome
from aspencli.changes.runs import Place as Stored
from aspencli.cli.changes.views import RESULT_COLUMNS, problem_line
from aspencli.errors import AspenError, ConflictError
from aspencli.remote.scope import Org, find_slugs, require_writer
from aspencli.samples.remote_rename.plan import Place, Snapshot
from aspencli.samples.remote_rename.run import Running, Stopped
from aspencli.signals import Brake
from aspencli.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aspencli.changes.report import ReportFile
    from aspencli.changes.request_journal import RunJournal
    from aspencli.cli.context import AppContext
    from aspencli.samples.remote_rename.run import Remaining

_SHOWN = 200  # rows shown on the screen
_STOPPING = b"\nStopping once no sample has a temporary identifier. Interrupt again to stop now.\n"
_UNSENT = "No request was sent; nothing was changed."


@dataclass(frozen=True)
class Grounds:
    """Access to the samples of a group through the API.

    Attributes:
        place: Endpoint for the samples.
        group: Name of the group.
        stored: Identity of the API, as recorded in the history.
    """

    place: Place
    group: str
    stored: Stored


def open_grounds(context: AppContext, group_id: int) -> Grounds:
    """Find a group through the API.

    Args:
        context: Application context.
        group_id: ID of the group.

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
    place = Place(api.samples, group_id, find_slugs(api, None))
    stored = Stored(url.hostname, url.port, api=address, beside=context.database_address)
    return Grounds(place, name, stored)


def drive(
    context: AppContext,
    place: Place,
    journal: RunJournal,
    snapshot: Snapshot,
    finish: Callable[[Remaining], None],
    *,
    resumed: bool = False,
) -> Remaining:
    """Send the requests of a run, from its current state, until it is done.

    Args:
        context: Application context.
        place: Endpoint for the samples.
        journal: Journal of the run.
        snapshot: Current state of the samples.
        finish: Records completion; an interrupt cannot come between the last request and this
            call.
        resumed: Whether an earlier process may have sent a request without recording its result.

    Raises:
        KeyboardInterrupt: If asked to stop.
        AspenError: If it cannot continue; the error says how to resume.
    """
    out = context.out
    go_on = context.command("samples", "resume", str(journal.path))
    with Brake(lambda: _say_stopping(context)) as brake:
        with out.progress("Updating samples", journal.to_change) as tick:
            running = Running(place, journal, tick, lambda: brake.pulled)
            try:
                left = running.run(snapshot, resumed=resumed)
            except Stopped:
                left = None
            except KeyboardInterrupt:
                if journal.begun:
                    state = f"{_so_far(running)}; some may have a temporary identifier"
                    out.warn(f"{state}. To resume: {go_on}")
                raise
            except AspenError as error:
                if journal.begun:
                    error.details = (*error.details, f"{_so_far(running)}; the run can be resumed")
                    hint = f"{error.hint} " if error.hint else ""
                    error.hint = f"{hint}To resume: {go_on}"
                else:
                    error.details = (*error.details, _UNSENT)
                raise
        if left is None:
            if journal.begun:
                out.warn(f"{_so_far(running)}; none has a temporary identifier. To resume: {go_on}")
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
    end_taken_back(journal.head.undo_of, journal.head.run)
    journal.end(Outcome.WRITTEN.value)


def end_taken_back(undone: str | None, by: str) -> None:
    """Mark an interrupted run as rolled back in its journal.

    Args:
        undone: Run that was undone, if any.
        by: Run that undid it.
    """
    standing = request_journal.look_up(undone) if undone else None
    if standing is not None and standing.ended is None:
        with request_journal.reopen(standing.path) as taken_back:
            taken_back.end(Outcome.ROLLED_BACK.value, f"undone by run {by}")


def go_on(
    context: AppContext,
    place: Place,
    journal: RunJournal,
    snapshot: Snapshot,
    stored: Stored,
    report: ReportFile | None,
) -> None:
    """Resume an interrupted run, and report its outcome.

    Raises:
        ConflictError: If it is done except for samples that someone else changed.
        AspenError: See `drive`.
    """
    out, head = context.out, journal.head
    subject = _subject_of(journal, stored)
    with Recording(open_journal(), subject, out.warn, resumes=head.run) as recording:
        journal.resumed()

        def finish(left: Remaining) -> None:
            end(journal)
            aside = f"{counted(len(left.aside), 'sample')} skipped" if left.aside else None
            recording.ended(Outcome.WRITTEN, aside)

        left = drive(context, place, journal, snapshot, finish, resumed=True)
    for problem in left.aside[:_SHOWN]:
        out.warn(f"Skipped {problem_line(problem)}")
    if report:
        report.write(_outcomes(journal, left), (), "updated")
        out.info(f"Report: {report.publish()}")
    out.done(f"{counted(left.done, 'sample')} updated by run {head.run}.")
    out.record(RESULT_COLUMNS, _result(journal, left))
    undo = context.command("samples", "undo", head.undo_file)
    out.hint(f"Undo it: {undo}")
    if left.aside:
        raise ConflictError(
            f"{len(left.aside):,} of {counted(len(journal.rows), 'sample')} skipped (listed "
            "above).",
            hint="Check each one: aspencli samples show PRIVATE_IDENTIFIER",
        )


def _result(journal: RunJournal, left: Remaining) -> dict[str, object]:
    head, rows = journal.head, journal.rows
    return {
        "group_id": head.group_id,
        "group": head.group,
        "rows": len(rows),
        "changed": left.done,
        "already": len(rows) - journal.to_change,
        "left_out": len(left.aside),
        "undo_file": Path(head.undo_file),
        "run": head.run,
    }


def _outcomes(journal: RunJournal, left: Remaining) -> Iterator[AssessedRow]:
    reasons = {problem.line: f"{problem.column}: {problem.reason}" for problem in left.aside}
    for row in journal.rows:
        change = Change("public_identifier", row.before, row.after)
        reason = reasons.get(row.line)
        yield AssessedRow(row.line, row.key, (change,), reason, reason is not None)


def _subject_of(journal: RunJournal, stored: Stored) -> Subject:
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


def _so_far(running: Running) -> str:
    return f"{running.done:,} of {counted(running.total, 'sample')} updated"


def _say_stopping(context: AppContext) -> None:
    # This runs in a signal handler, so Python's streams may be mid-write.
    if context.out.err.isatty():
        os.write(context.out.err.fileno(), _STOPPING)
