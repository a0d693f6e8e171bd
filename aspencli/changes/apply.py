"""Bulk runs: plan a whole file, bad lines included, and apply the plan, all rows or none.

A store does the work: the database, or for a plan also the list of samples from the API.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from aspen.database.bulk.spec import AssessedRow, MovedRow, Plan, Problem, RowRequest
from aspen.database.errors import OutcomeUnknownError, RowsMovedError
from aspencli.changes.runs import Counts, Outcome, Run, Subject
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    UnreachableError,
)
from aspencli.tabular.table import Fault
from aspencli.text import folded, unusual_in_identifier

if TYPE_CHECKING:
    from aspen.database.roles import Right

WriteRows = Callable[[IO[bytes]], None]
"""A function that writes the undo rows to an open file."""


class PlanStore(Protocol):
    """A store that plans a bulk run: the database, or a list fetched from the API."""

    @property
    def encoding(self) -> str | None:
        """Return Python's name for the text encoding, or None if it can store every character."""

    def load(self, requests: Iterable[RowRequest]) -> int:
        """Load the rows of the file and return their number."""

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare the loaded rows with the current data, and return the plan."""

    def problems(self) -> Generator[Problem, None, None]:
        """Yield the problems that prevent the plan from being applied."""

    def left_out(self) -> Generator[Problem, None, None]:
        """Yield the rows left out of the plan, each with the reason."""

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Add to each line's problem the reason its key may match no row.

        Given is, for each line, what is odd about its key, and the key that may be meant.
        """

    def moved(self) -> Generator[MovedRow, None, None]:
        """Yield the values in the planned rows that differ from the expected ones."""

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Yield every row of the file, with the reason it cannot be applied, if any."""

    def rows(
        self, *, limit: int | None = None, changed_only: bool = False
    ) -> Iterator[AssessedRow]:
        """Return the planned rows."""

    def digest(self) -> str:
        """Return the SHA-256 of the rows that change, in hexadecimal."""


class BulkStore(PlanStore, Protocol):
    """A store that can also apply the plan, in one transaction: the database."""

    def lacking_rights(self) -> list[Right]:
        """Return the privileges that `apply` needs and the user lacks."""

    def apply(
        self,
        write_undo: Callable[[WriteRows], Path],
        before_commit: Callable[[], None],
        begun: Callable[[int], None],
    ) -> Path:
        """Write all changes or none, and return the path of the undo file."""


class Faults:
    """The bad lines of a file, spooled to disk because there may be many."""

    _IN_MEMORY = 1 << 20  # bytes
    _MOST_KEYS = 1_000  # to explain; a file may have any number of odd keys

    def __init__(self) -> None:
        self.count = 0
        self._keys: dict[int, tuple[str, str]] = {}
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by close()
            self._IN_MEMORY, "w+", encoding="ascii", newline="\n"
        )

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        self.count += 1
        json.dump([fault.line, fault.column, fault.reason], self._file)
        self._file.write("\n")

    def look_at_key(self, line: int, key: str) -> None:
        """Remember a key that contains odd characters, because it may match no row."""
        odd = unusual_in_identifier(key) if len(self._keys) < self._MOST_KEYS else []
        if odd:
            self._keys[line] = f"it contains {odd[0]}", folded(key)

    @property
    def keys(self) -> Mapping[int, tuple[str, str]]:
        """Return, by line, what is odd about a key, and the key that may be meant."""
        return self._keys

    def __iter__(self) -> Iterator[Problem]:
        self._file.seek(0)
        for line in self._file:
            yield Problem(*json.loads(line))

    def close(self) -> None:
        """Close the temporary file."""
        self._file.close()


@dataclass(frozen=True)
class Assessment:
    """The result of comparing a file with the current data."""

    plan: Plan  # for the usable rows
    faults: int  # the number of bad lines in the file itself

    @property
    def problems(self) -> int:
        """Return the total number of problems, any of which blocks the run."""
        return self.faults + self.plan.problems

    @property
    def counts(self) -> Counts:
        """Return the row counts to record in the history."""
        plan = self.plan
        return Counts(plan.rows, plan.to_change, plan.already, plan.left_out, self.problems)


def assess(
    store: PlanStore,
    requests: Iterable[RowRequest],
    faults: Faults,
    *,
    skip_moved: bool = False,
    force: bool = False,
) -> Assessment:
    """Load and plan the whole file despite bad lines, so that all are reported at once."""
    codec = store.encoding
    store.load(requests if codec is None else _storable(requests, codec, faults))
    plan = store.plan(skip_moved=skip_moved, force=force)
    if faults.keys and plan.problems:
        store.explain(faults.keys)
    return Assessment(plan, faults.count)


def _storable(requests: Iterable[RowRequest], codec: str, faults: Faults) -> Iterator[RowRequest]:
    """Yield the rows that the database's encoding can store, and report the others."""
    for request in requests:
        _line, key, values, expected, within, label = request
        texts = (key, *values, *(expected or ()), within, label)
        try:
            for text in texts:
                if isinstance(text, str):
                    text.encode(codec)
        except UnicodeEncodeError as error:
            character = error.object[error.start]
            faults.add(
                Fault(
                    request.line,
                    "",
                    f"contains {character} (U+{ord(character):04X}), which the database's encoding "
                    f"({error.encoding}) cannot store",
                )
            )
        else:
            yield request


def all_problems(store: PlanStore, faults: Faults) -> Generator[Problem, None, None]:
    """Yield the problems found in the file and by the store, ordered by line."""
    yield from merge(faults, store.problems(), key=lambda problem: problem.line)


def require_rights(lacking: Sequence[Right]) -> None:
    """Check that no required privilege is missing.

    Raises:
        CredentialsError: A privilege is missing.
    """
    if lacking:
        raise CredentialsError(
            "This database user lacks the privileges that the plan needs.",
            hint="Have an administrator grant them, or connect as a user that has them.",
            details=[f"missing: {right}" for right in lacking],
        )


def require_group(name: str | None, group_id: int) -> str:
    """Return the group's name.

    Raises:
        NotFoundError: The group does not exist.
    """
    if name is None:
        raise NotFoundError(f"No such group: {group_id}", hint="See: aspencli groups list")
    return name


def refuse(assessment: Assessment, name: str, remedy: str | None = None) -> BadInputError:
    """Return the error for a file with problems, which the caller has already listed.

    The remedy is the hint, if fixing the listed lines is not enough.
    """
    count = assessment.problems
    return BadInputError(
        f"{name} cannot be applied: {count:,} {'problem' if count == 1 else 'problems'}; "
        "nothing was written.",
        hint=remedy or "Fix the lines listed above, then run the command again.",
    )


def written_before(runs: Iterable[Run], subject: Subject) -> Run | None:
    """Return the run that wrote the same file to the same rows and was not undone, or None.

    A file that moves key values between rows, such as a swap of private identifiers, matches the
    swapped rows when it is applied again, and would swap them back. The database cannot detect
    that; the history can.

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
    def what(one: Subject) -> tuple[object, ...]:
        place = one.place
        return (one.command, one.target, one.group_id, one.file.sha256, place.name, place.oid)

    return what(run) == what(subject)


def _holds(run: Run, known: dict[str, Run]) -> bool:
    """Return True if the run was written and is not currently undone."""
    if run.outcome is not Outcome.WRITTEN:
        return False
    return not any(_holds(known[undo], known) for undo in run.undone_by if undo in known)


def apply(
    store: BulkStore,
    write_undo: Callable[[WriteRows], Path],
    before_commit: Callable[[], None],
    begun: Callable[[int], None],
    *,
    ask: str,
    noun: str,
) -> Path:
    """Apply the plan that the store made, and return the path of the undo file.

    For the first arguments, see `BulkStore.apply`. ``ask`` is the command that checks later
    whether the transaction was committed; ``noun`` is the word for a row in messages.

    Raises:
        ConflictError: Rows changed after the plan was made, or the database rejected them;
            nothing was written.
        UnreachableError: The connection was lost; nothing was written.
        AspenError: The connection was lost during the commit, so the outcome is unknown.
    """
    from sqlalchemy.exc import DBAPIError, IntegrityError

    try:
        return store.apply(write_undo, before_commit, begun)
    except RowsMovedError as error:
        raise _conflict(error, noun) from error
    except OutcomeUnknownError as error:
        raise AspenError(
            "Connection lost during the commit; it is unknown whether the changes were written.",
            hint=f"When the database is reachable again, run: {ask}",
            details=[f"undo file: {error.undo_file}"],
        ) from error
    except IntegrityError as error:
        raise ConflictError(
            "The database rejected the changes; nothing was written.",
            hint="If a new row's ID is already taken, run the command again: it uses the next one.",
            details=str(error.orig).strip().splitlines(),
        ) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise UnreachableError(
            "Connection to the database lost; nothing was written.",
            hint="Run the command again.",
            details=str(error.orig).strip().splitlines(),
        ) from error


def _conflict(error: RowsMovedError, noun: str) -> ConflictError:
    more = error.total - len(error.rows)
    return ConflictError(
        f"Another user changed {noun}s in this file after the plan was made; nothing was written.",
        hint="Run the command again to make a new plan.",
        details=[*error.rows, f"and {more:,} more"] if more else error.rows,
    )
