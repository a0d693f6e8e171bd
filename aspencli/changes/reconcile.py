"""Determine the outcome of a run that did not record its end, by asking the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from aspen.database.bulk.staging import Comparison, compare
from aspen.database.engine import Database, identify, transaction_status
from aspencli.changes.journal import Journal, place_of
from aspencli.changes.runs import Event, Outcome, Run, is_same_place
from aspencli.changes.undo import has_steps, read_origin, read_undo
from aspencli.errors import AspenError, BadInputError, ConflictError
from aspencli.tabular.table import Fault

_NAMED = 10  # maximum number of bad undo-file lines to list


@dataclass(frozen=True)
class RunVerdict:
    """The outcome of a run, as determined afterward."""

    outcome: Outcome  # ``written`` or ``rolled back``
    basis: str
    rows: Comparison | None = None  # compared with the undo file


def judge(run: Run, label: str, open_database: Callable[[], Database]) -> RunVerdict:
    """Determine whether a run with an unknown outcome was written to the target with this label.

    Raises:
        BadInputError: It was made on another target.
        RefusedError: The target now has a different database.
        ConflictError: It has not ended, or its rows are inconclusive.
        AspenError: There is no evidence left to determine it.
    """
    if run.target != label:
        raise BadInputError(
            f"Run {run.id} was made on {run.target}, but the target is {label}.",
            hint=f"Check it on {run.target}: {run.command_line('history', 'check', run.id)}",
        )
    if run.outcome is Outcome.RUNNING:
        raise ConflictError(
            f"Run {run.id} is still in progress (process {run.process.pid}).",
            hint="Wait for it to finish, then check again.",
        )
    if run.single:
        return _judge_single(run, open_database)
    if run.via == "api" or run.transaction is None:
        # The journal of a run through the API would show the first request, had it been sent.
        deed = "sent any request" if run.via == "api" else "wrote anything"
        return RunVerdict(Outcome.ROLLED_BACK, f"it ended before it {deed}")
    database = open_database()
    status = _status(run, run.transaction, database)
    if status == "in progress":
        raise ConflictError(
            f"Transaction {run.transaction} of run {run.id} is still open on the server, "
            "which has not yet noticed that the client is gone.",
            hint="Check again in a moment, or see what it is waiting for: "
            + run.command_line("db", "status"),
        )
    return _by_transaction(run, status, database)


def _by_transaction(run: Run, status: str | None, database: Database) -> RunVerdict:
    """Determine the outcome from the status of a transaction that is not in progress."""
    number = run.transaction
    if status == "aborted" or not run.committing:
        how = "it ended before the commit"
        if status == "aborted":
            how = f"transaction {number} was rolled back"
        if run.provider_before:
            how += ", but the identity provider may have been changed"
            return RunVerdict(Outcome.UNFINISHED, how)
        return RunVerdict(Outcome.ROLLED_BACK, how)
    if status == "committed":
        rows = _compare(run, database) if _has_undo_file(run) and not _has_steps(run) else None
        how = f"transaction {number} was committed"
        if run.provider_after:
            how += ", but what is deleted at the identity provider after that may be left"
            return RunVerdict(Outcome.UNFINISHED, how, rows)
        return RunVerdict(Outcome.WRITTEN, how, rows)
    return _by_rows(
        run, database, f"The database no longer has the outcome of transaction {number}"
    )


def keep(journal: Journal, run: Run, verdict: RunVerdict) -> Event:
    """Record a verdict in the journal, and return the event.

    Raises:
        OSError: The journal cannot be written.
    """
    at = dt.datetime.now(dt.UTC).isoformat()
    facts = {"outcome": verdict.outcome.value, "basis": verdict.basis}
    event = {"event": "checked", "run": run.id, "at": at, **facts}
    journal.append(event)
    return event


def _status(run: Run, transaction: int, database: Database) -> str | None:
    """Return the database's status of the transaction, or None if it is unknown."""
    with database.engine.connect() as connection:
        here = place_of(database.url, identify(connection))
        if not is_same_place(run.place, here, f"run {run.id}"):
            return None  # Possibly another server, with its own transaction IDs.
        return transaction_status(connection, transaction)


def _judge_single(run: Run, open_database: Callable[[], Database]) -> RunVerdict:
    """Determine the outcome of a run without a request journal or a transaction; see `judge`."""
    if run.undo_file is None:
        if run.command == "samples undo":  # it records its undo file before it sends anything
            return RunVerdict(Outcome.ROLLED_BACK, "it ended before it sent any request")
        look = f"Check on the target whether it took effect: aspencli {run.noun} --help"
        if run.command == "identity sync":
            look = f"See what is left to do: {run.command_line('identity', 'diff')}"
        raise ConflictError(
            f"nothing recorded whether run {run.id} ({run.command}) took effect", hint=look
        )
    database = open_database()
    with database.engine.connect() as connection:
        is_same_place(run.place, place_of(database.url, identify(connection)), f"run {run.id}")
    return _by_rows(run, database, f"Nothing recorded whether run {run.id} took effect")


def _has_undo_file(run: Run) -> bool:
    return run.undo_file is not None and run.undo_file.is_file()


def _has_steps(run: Run) -> bool:
    return run.undo_file is not None and has_steps(run.undo_file)


def _by_rows(run: Run, database: Database, unknown: str) -> RunVerdict:
    """Determine the outcome from the rows; ``unknown`` begins the sentence of an error."""
    if not _has_undo_file(run):
        raise AspenError(
            f"{unknown}, and the undo file of run {run.id} is missing: {run.undo_file}",
            hint=f"Check some of its {run.noun}: aspencli {run.noun} list",
        )
    if _has_steps(run):
        raise ConflictError(
            f"{unknown}.",
            hint="See what is left to undo: "
            + run.command_line(run.noun, "undo", str(run.undo_file))
            + " --dry-run",
        )
    rows = _compare(run, database)
    row = run.noun.removesuffix("s")
    total = rows.written + rows.before + rows.otherwise + rows.gone
    if rows.written == total:
        return RunVerdict(Outcome.WRITTEN, f"every {row} has the value that it wrote", rows)
    if rows.before == total:
        return RunVerdict(Outcome.ROLLED_BACK, f"every {row} has its previous value", rows)
    raise ConflictError(
        f"{unknown}, and the {run.noun} of run {run.id} do not show it.",
        hint=f"Review each: {run.command_line(run.noun, 'undo', str(run.undo_file))} --dry-run",
        details=[
            f"with the value that it wrote: {rows.written:,}",
            f"with their previous value: {rows.before:,}",
            f"with another value: {rows.otherwise:,}",
            f"no longer there: {rows.gone:,}",
        ],
    )


def _compare(run: Run, database: Database) -> Comparison:
    path = str(run.undo_file)
    origin = read_origin(path)
    faults: list[Fault] = []
    rows = compare(database, origin.spec, origin.group_id, read_undo(path, origin, faults.append))
    if faults:
        raise BadInputError(
            f"The undo file of run {run.id} is damaged: {path}",
            hint="If you have a copy, restore it to that path.",
            details=[f"line {fault.line}: {fault.reason}" for fault in faults[:_NAMED]],
        )
    return rows
