"""Whether a file was written before that would find other rows the second time.

A file that passes on what rows are found by, such as a swap of private identifiers, finds the
swapped rows when it is given again, and would swap them back. The database cannot tell; the history
can.
"""

from __future__ import annotations

from collections.abc import Iterable

from aspencli.errors import ConflictError
from aspencli.services.recording import Subject
from aspencli.services.runs import Outcome, Run


def written_before(runs: Iterable[Run], subject: Subject) -> Run | None:
    """The run that wrote the same file to the same rows, and was not taken back.

    Args:
        runs: The runs that are known, the newest first.
        subject: What is about to be written.

    Raises:
        ConflictError: It is not known whether a run wrote it, or one is about to.
    """
    known = {run.id: run for run in runs}
    for run in known.values():
        if not _is_same(run, subject):
            continue
        if run.outcome is Outcome.UNKNOWN:
            raise ConflictError(
                f"it is not known whether run {run.id} wrote this file already, which passes on "
                "what its rows are found by",
                hint="Ask the database first: " + run.command_line("history", "check", run.id),
            )
        if run.outcome is Outcome.RUNNING:
            raise ConflictError(f"run {run.id} is at work on this file", hint="Wait for it to end.")
        if _holds(run, known):
            return run
    return None


def _is_same(run: Run, subject: Subject) -> bool:
    def what(one: Run | Subject) -> tuple[object, ...]:
        place = one.place
        return (one.command, one.target, one.group_id, one.file.sha256, place.name, place.oid)

    return what(run) == what(subject)


def _holds(run: Run, known: dict[str, Run]) -> bool:
    """Whether it was written, and no undo of it was that still holds."""
    if run.outcome is not Outcome.WRITTEN:
        return False
    return not any(_holds(known[undo], known) for undo in run.undone_by if undo in known)
