"""Resumption of an interrupted rename through the API."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from aspencli import homes
from aspencli.commands.renames_driving import go_on, open_grounds
from aspencli.context import AppContext
from aspencli.errors import BadInputError, ConflictError
from aspencli.services.api_renames import journal as run_journals
from aspencli.services.api_renames.journal import Head, RunJournal
from aspencli.services.folding import fold
from aspencli.services.journal import open_journal
from aspencli.services.report import RENAMES, ReportFile
from aspencli.services.runs import (
    NO_ID_HINT,
    Place,
    Run,
    command_for,
    find,
    is_same_place,
    looks_like_id,
)


def take_up(context: AppContext, what: str, report: Path | None) -> None:
    """Resume a run, and report its outcome.

    Args:
        context: Application context.
        what: ID of the run, or its journal.
        report: Path of the report; None for no report.

    Raises:
        BadInputError: If there is nothing to resume on this target.
        ConflictError: If another process is working on it, or some samples were skipped.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(run_journals.reopen(_path_of(what)))
        head = journal.head
        if head.target != context.target.label:
            raise BadInputError(
                f"run {head.run} was made on {head.target}, and the target is "
                f"{context.target.label}",
                hint="Go on there: "
                + command_for(head.target, "samples", "resume", head.run, api=_given_api(head.run)),
            )
        if journal.ended is not None:
            context.out.done(f"Nothing to go on with: run {head.run} has ended ({journal.ended}).")
            return
        _refuse_beside_other(journal)
        draft = stack.enter_context(ReportFile(report, RENAMES)) if report else None
        grounds = open_grounds(context, head.group_id)
        known = _known_place(head)
        certain = is_same_place(known, grounds.stored, f"run {head.run}")
        if not certain:
            context.out.warn(
                f"It is not known whether run {head.run} was made on {grounds.stored}: check it "
                "before you confirm."
            )
        context.authorise(
            f"go on with run {head.run} ({head.file}) of group {head.group_id} ({head.group})",
            dry_run=False,
            by_name=not certain,
        )
        with context.out.progress("Reading"):
            snapshot = grounds.place.read()
        go_on(context, grounds.place, journal, snapshot, grounds.stored, draft)


def _refuse_beside_other(journal: RunJournal) -> None:
    """Refuse to resume a run while another one blocks its group.

    Raises:
        ConflictError: If there is such a run; it may be an undo of this one.
    """
    head = journal.head
    other = run_journals.unfinished(head.target, head.group_id, (head.run, head.undo_of), head.api)
    if other is not None:
        raise ConflictError(
            f"run {other.head.run} ({other.head.file}) in this group was interrupted, and comes "
            "first; nothing was changed",
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
    return next((one for one in fold(open_journal().read().events) if one.id == run), None)


def _given_api(run: str) -> str | None:
    found = _recorded(run)
    return found.api if found else None


def _known_place(head: Head) -> Place:
    """Return where a run was made, according to its own journal or the history."""
    if head.api:
        return Place(api=head.api)
    found = _recorded(head.run)
    return found.place if found else Place()


def _path_of(what: str) -> Path:
    path = homes.expand(what)
    if path.is_file() or not looks_like_id(what):
        return path
    run = find(fold(open_journal().read().events), what)
    standing = run_journals.look_up(run.id)
    if standing is None:
        raise BadInputError(
            f"run {run.id} ({run.outcome}) has nothing to go on with", hint=NO_ID_HINT
        )
    return standing.path
