"""Taking a bulk run back, whatever it changed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from aspencli.commands.bulk_job import Job
from aspencli.commands.bulk_views import CHANGING, GROUPS, RENAMING, USERS
from aspencli.commands.bulk_writing import Purpose
from aspencli.context import AppContext
from aspencli.errors import BadInputError
from aspencli.services.folding import fold
from aspencli.services.job_files import JobFiles
from aspencli.services.journal import open_journal
from aspencli.services.runs import command_for, undo_source
from aspencli.services.undofile import read_origin, read_undo

_DAMAGED = "It is not as it was written: find a whole copy of it, and undo with that."
_VIEWS = {"samples": CHANGING, "users": USERS, "groups": GROUPS}


def take_back(
    context: AppContext,
    noun: str,
    what: str,
    dry_run: bool,
    force: bool,
    report: Path | None,
    undo_file: Path | None,
) -> None:
    """Put back what a bulk run changed, where it still holds what that run wrote.

    Args:
        context: The run of the program.
        noun: Whose command it is, such as ``samples``.
        what: The run, or its undo file.
        dry_run: Whether to stop at the plan.
        force: Whether to put back, too, what was changed since.
        report: Where the report shall be; None for no report.
        undo_file: Where the undo file of the undo shall be; None for a place of its own.

    Raises:
        BadInputError: The run was made on another target, or changed something else.
    """
    file, run = undo_source(what, fold(open_journal().read().events))
    origin = read_origin(file)
    if origin.target != context.target.label:
        raise BadInputError(
            f"{file} was written on {origin.target}, and the target is {context.target.label}",
            hint=f"Undo it there: {command_for(origin.target, origin.of, 'undo', what)}",
        )
    if origin.of != noun:
        raise BadInputError(
            f"{file} takes back a change of {origin.of}, not of {noun}",
            hint=f"Run: {command_for(origin.target, origin.of, 'undo', what)}",
        )
    run = run or origin.run  # a file that was moved is not the one that the history knows
    view = _VIEWS[origin.of] if origin.columns else RENAMING
    with ExitStack() as stack:
        files = JobFiles(stack, file, view.report, report, undo_file)
        purpose = Purpose(f"{noun} undo", origin.spec, view, dry_run, force, run)
        job = Job(context, stack, origin.group_id, files, purpose)
        requests = read_undo(file, origin, job.faults.add, files.fingerprint.take)
        job.go(job.assess(requests, skip_moved=True), file, _DAMAGED)
