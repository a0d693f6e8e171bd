"""Detect a file that was already applied and would match other rows the second time.

A file that moves key values between rows, such as a swap of private identifiers, matches the
swapped rows when it is applied again, and would swap them back. The database cannot detect that;
the history can.
"""

from __future__ import annotations

from collections.abc import Iterable

from aspencli.changes.recording import Subject
from aspencli.changes.runs import Outcome, Run
from aspencli.errors import ConflictError


def written_before(runs: Iterable[Run], subject: Subject) -> Run | None:
    """Return the run that wrote the same file to the same rows and was not undone, or None.

    Args:
        runs: The known runs, newest first.
        subject: The run that is about to write.

    Raises:
        ConflictError: Such a run has an unknown outcome, or is still in progress.
    """
    known = {run.id: run for run in runs}
    for run in known.values():
        if not _is_same(run, subject):
            continue
        if run.outcome is Outcome.UNKNOWN:
            raise ConflictError(
                f"This file moves identifiers between rows, and it is unknown whether run {run.id} "
                "already wrote it.",
                hint="Check that first: " + run.command_line("history", "check", run.id),
            )
        if run.outcome is Outcome.RUNNING:
            raise ConflictError(
                f"Run {run.id} is still writing this file.", hint="Wait for it to finish."
            )
        if _holds(run, known):
            return run
    return None


def _is_same(run: Run, subject: Subject) -> bool:
    def what(one: Run | Subject) -> tuple[object, ...]:
        place = one.place
        return (one.command, one.target, one.group_id, one.file.sha256, place.name, place.oid)

    return what(run) == what(subject)


def _holds(run: Run, known: dict[str, Run]) -> bool:
    """Return True if the run was written and is not currently undone."""
    if run.outcome is not Outcome.WRITTEN:
        return False
    return not any(_holds(known[undo], known) for undo in run.undone_by if undo in known)
