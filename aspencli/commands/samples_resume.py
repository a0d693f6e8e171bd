"""Going on with a renaming through the API that was interrupted."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from aspencli.commands.renames_driving import go_on, open_grounds
from aspencli.context import AppContext
from aspencli.errors import BadInputError
from aspencli.services.api_renames import journal as run_journals
from aspencli.services.folding import fold
from aspencli.services.journal import open_journal
from aspencli.services.report import RENAMES, ReportFile
from aspencli.services.runs import NO_ID_HINT, command_for, find, looks_like_id


def take_up(context: AppContext, what: str, report: Path | None) -> None:
    """Go on with a run, and tell how it ended.

    Args:
        context: The run of the program.
        what: The run, or its journal.
        report: Where the report shall be; None for no report.

    Raises:
        BadInputError: There is nothing to go on with, or not on this target.
        ConflictError: Another process is at work on it, or some samples had to be left alone.
    """
    with ExitStack() as stack:
        journal = stack.enter_context(run_journals.reopen(_path_of(what)))
        head = journal.head
        if head.target != context.target.label:
            raise BadInputError(
                f"run {head.run} was made on {head.target}, and the target is "
                f"{context.target.label}",
                hint=f"Go on there: {command_for(head.target, 'samples', 'resume', head.run)}",
            )
        if journal.ended is not None:
            context.out.done(f"Nothing to go on with: run {head.run} has ended ({journal.ended}).")
            return
        draft = stack.enter_context(ReportFile(report, RENAMES)) if report else None
        grounds = open_grounds(context, head.group_id, writing=True)
        context.authorise(
            f"go on with run {head.run} ({head.file}) of group {head.group_id} ({head.group})",
            dry_run=False,
        )
        with context.out.progress("Reading"):
            snapshot = grounds.place.read()
        go_on(context, grounds.place, journal, snapshot, grounds.stored, draft)


def _path_of(what: str) -> Path:
    path = Path(what).expanduser()
    if path.is_file() or not looks_like_id(what):
        return path
    run = find(fold(open_journal().read().events), what)
    if run.renames is None:
        raise BadInputError(
            f"run {run.id} ({run.outcome}) has nothing to go on with", hint=NO_ID_HINT
        )
    return run.renames
