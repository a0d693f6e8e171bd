"""Determine the outcome of a run that did not record its end, by asking the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from aspen.database.bulk.compare import Comparison, compare
from aspen.database.engine import Database
from aspen.database.transactions import identify, transaction_status
from aspencli.changes.journal import Journal
from aspencli.changes.recording import place_of
from aspencli.changes.runs import Outcome, Run, is_same_place
from aspencli.changes.undo import read_origin, read_undo
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.tabular.decode import Fault

_NAMED = 10  # maximum number of bad undo-file lines to list


@dataclass(frozen=True)
class Verdict:
    """The outcome of a run, as determined afterward.

    Attributes:
        outcome: ``written`` or ``rolled back``.
        basis: How that was determined.
        rows: The comparison of its rows with the undo file, if made.
    """

    outcome: Outcome
    basis: str
    rows: Comparison | None = None


def judge(run: Run, label: str, open_database: Callable[[], Database]) -> Verdict:
    """Determine whether a run with an unknown outcome was written.

    Args:
        run: The run.
        label: The target's label.
        open_database: Opens the target's database.

    Raises:
        BadInputError: It was made on another target.
        RefusedError: The target now has a different database.
        ConflictError: It has not ended, or its rows are inconclusive.
        AspenError: There is no evidence left to determine it.
    """
    if run.target != label:
        raise BadInputError(
            f"run {run.id} was made on {run.target}, and the target is {label}",
            hint=f"Ask there: {run.command_line('history', 'check', run.id)}",
        )
    if run.outcome is Outcome.RUNNING:
        raise ConflictError(
            f"run {run.id} has not ended: process {run.process.pid} works on it",
            hint="Wait for it to end, then check again.",
        )
    if run.single:
        raise ConflictError(
            f"nothing recorded whether run {run.id} ({run.command}) took effect",
            hint=f"Look at what it was to change: aspencli {run.noun} --help",
        )
    if run.via == "api":  # Its journal would show the first request, had it been sent.
        return Verdict(Outcome.ROLLED_BACK, "it ended before it sent anything")
    if run.transaction is None:
        return Verdict(Outcome.ROLLED_BACK, "it ended before it began to write")
    database = open_database()
    status = _status(run, run.transaction, database)
    if status == "in progress":
        raise ConflictError(
            f"transaction {run.transaction} of run {run.id} is still open on the server, "
            "which has not noticed that nobody is there any more",
            hint="Check again in a moment; or see what it waits for: "
            + run.command_line("db", "status"),
        )
    number = run.transaction
    if status == "aborted":
        return Verdict(Outcome.ROLLED_BACK, f"the database rolled transaction {number} back")
    if not run.committing:
        return Verdict(Outcome.ROLLED_BACK, "it ended before it asked for the commit")
    if status == "committed":
        rows = _compare(run, database) if _has_undo_file(run) else None
        return Verdict(Outcome.WRITTEN, f"the database committed transaction {number}", rows)
    return _by_rows(run, database)


def keep(journal: Journal, run: Run, verdict: Verdict) -> None:
    """Record a verdict in the journal.

    Raises:
        OSError: The journal cannot be written.
    """
    at = dt.datetime.now(dt.UTC).isoformat()
    facts = {"outcome": verdict.outcome.value, "basis": verdict.basis}
    journal.append({"event": "checked", "run": run.id, "at": at, **facts})


def _status(run: Run, transaction: int, database: Database) -> str | None:
    """Return the database's status of the transaction, or None if it is unknown."""
    with database.engine.connect() as connection:
        here = place_of(database.url, identify(connection))
        if not is_same_place(run.place, here, f"run {run.id}"):
            return None  # Possibly another server, with its own transaction IDs.
        return transaction_status(connection, transaction)


def _has_undo_file(run: Run) -> bool:
    return run.undo_file is not None and run.undo_file.is_file()


def _by_rows(run: Run, database: Database) -> Verdict:
    if not _has_undo_file(run):
        raise AspenError(
            f"the database does not know any more what became of transaction {run.transaction}, "
            f"and the undo file of run {run.id}, which could tell, is gone: {run.undo_file}",
            hint=f"Look at some of its {run.noun}: aspencli {run.noun} list",
        )
    rows = _compare(run, database)
    row = run.noun.removesuffix("s")
    total = rows.written + rows.before + rows.otherwise + rows.gone
    if rows.written == total:
        return Verdict(Outcome.WRITTEN, f"every {row} holds what it wrote", rows)
    if rows.before == total:
        return Verdict(Outcome.ROLLED_BACK, f"every {row} holds what it held before", rows)
    raise ConflictError(
        f"the database does not know any more what became of transaction {run.transaction}, and "
        f"the {run.noun} of run {run.id} tell no single story",
        hint=f"Look at each: {run.command_line(run.noun, 'undo', str(run.undo_file))} --dry-run",
        details=[
            f"{rows.written:,} hold what it wrote",
            f"{rows.before:,} hold what they held before",
            f"{rows.otherwise:,} hold something else",
            f"{rows.gone:,} are gone",
        ],
    )


def _compare(run: Run, database: Database) -> Comparison:
    path = str(run.undo_file)
    origin = read_origin(path)
    faults: list[Fault] = []
    rows = compare(database, origin.spec, origin.group_id, read_undo(path, origin, faults.append))
    if faults:
        raise BadInputError(
            f"the undo file of run {run.id} is damaged: {path}",
            hint="If there is a copy of it, put it there.",
            details=[f"line {fault.line}: {fault.reason}" for fault in faults[:_NAMED]],
        )
    return rows
