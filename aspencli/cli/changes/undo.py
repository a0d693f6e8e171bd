"""Undo of a bulk run of any kind, through the backend that the run used, or the one given."""

from __future__ import annotations

from contextlib import ExitStack

from aspencli.changes.journal import open_journal
from aspencli.changes.report import JobFiles
from aspencli.changes.runs import Outcome, Place, Run, runs_of, undo_source
from aspencli.changes.undo import UndoOrigin, has_steps, read_origin, read_undo
from aspencli.cli.changes.options import UndoOptions
from aspencli.cli.changes.runner import Purpose, open_job
from aspencli.cli.changes.views import CHANGING, GROUPS, RENAMING, USERS
from aspencli.cli.context import AppContext, Backend
from aspencli.config import command_for
from aspencli.errors import BadInputError, ConflictError

_DAMAGED = "The undo file is damaged. Find an intact copy and use that."
_VIEWS = {"samples": CHANGING, "users": USERS, "groups": GROUPS}


def take_back(
    context: AppContext, noun: str, given: UndoOptions, via: Backend | None = None
) -> None:
    """Restore what a bulk run changed, where the values are still those that it wrote.

    The run is given by its ID or its undo file; the backend is the one that it used unless one is
    given. With ``--force``, what was changed since is restored too.

    Raises:
        BadInputError: If the run was made on another target, or changed something else.
    """
    runs = runs_of(open_journal().read().events)
    known = {run.id: run for run in runs}
    what = given.what
    file, run = undo_source(what, runs)
    if has_steps(file):
        from aspencli.cli.changes.two_sided import undo_steps

        return undo_steps(context, noun, given, file)
    origin = read_origin(file)
    api = known[run].api if run in known else None
    if origin.target != context.target.label:
        raise BadInputError(
            f"{file} was written on {origin.target}, but the target is {context.target.label}.",
            hint=f"Undo it there: {command_for(origin.target, origin.of, 'undo', what, api=api)}",
        )
    if origin.of != noun:
        raise BadInputError(
            f"{file} undoes an update of {origin.of}, not of {noun}.",
            hint=f"Run: {command_for(origin.target, origin.of, 'undo', what, api=api)}",
        )
    run = run or origin.run  # a file that was moved is not in the history under its new path
    view = _VIEWS[origin.of] if origin.columns else RENAMING
    with ExitStack() as stack:
        files = JobFiles(stack, file, view.report, given.report, given.undo_file)
        before = known.get(run or "")
        place = origin.place or (before.place if before else Place())
        purpose = Purpose(f"{noun} undo", origin.spec, view, given.dry_run, given.force, run, place)
        backend = _backend(context, origin, via, before)
        if backend is Backend.DB:
            _refuse_half_done(before)
        job = open_job(context, stack, origin.group_id, files, purpose, backend)
        requests = read_undo(file, origin, job.faults.add, files.fingerprint.take)
        return job.go(job.assess(requests, skip_moved=True), file, _DAMAGED)


def _refuse_half_done(run: Run | None) -> None:
    """Refuse to undo an interrupted API run in the database, where temporary names are unknown.

    Raises:
        ConflictError: If the run is an interrupted API run.
    """
    if run is None or run.single:  # only renames use temporary identifiers
        return
    if run.via == Backend.API.value and run.outcome is Outcome.UNFINISHED:
        undo = run.command_line(run.noun, "undo", run.id)
        raise ConflictError(
            f"Run {run.id} through the API was interrupted: samples may have temporary "
            "identifiers; nothing was changed.",
            hint=f"Undo it through the API: {undo} --via api",
        )


def _backend(
    context: AppContext, origin: UndoOrigin, via: Backend | None, run: Run | None
) -> Backend:
    """Return the requested backend, else the one that the run used, else the default."""
    if via is not None:
        return via
    if origin.of != "samples":  # the API does not support these
        return Backend.DB
    if run is None and origin.columns and origin.place:  # it is no longer in the history
        return Backend.API if origin.place.api else Backend.DB
    return Backend(run.via or "db") if run else context.choose_backend(None)
