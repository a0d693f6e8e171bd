"""Bulk runs: read, plan, apply, undo; by whatever store serves the target."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import IO, Protocol

from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    NotFoundError,
    UnreachableError,
)
from aspencli.services.decoding import Fault
from aspencli.services.stored_text import folded, odd_in_identifier
from db.bulk.rows import AssessedRow, MovedRow, Plan, PlannedRow, Problem, Request
from db.errors import OutcomeUnknownError, RowsMovedError
from db.rights import Right

WriteRows = Callable[[IO[bytes]], None]
"""Writes the undo rows to an open file."""


class PlanStore(Protocol):
    """What plans a bulk run: the database, or a list that the API gave."""

    @property
    def encoding(self) -> str | None:
        """Python's name for the encoding of the texts; None where every character can be stored."""

    def load(self, requests: Iterable[Request]) -> int:
        """Take the rows of the file."""

    def plan(self, *, skip_moved: bool = False, force: bool = False) -> Plan:
        """Compare it with what is there."""

    def problems(self) -> Generator[Problem, None, None]:
        """What stands in the way."""

    def left_out(self) -> Generator[Problem, None, None]:
        """What was left out of the plan."""

    def explain(self, unknown: Mapping[int, tuple[str, str]]) -> None:
        """Add to the problem of each of these lines why its key may name no row.

        Args:
            unknown: For each line what is odd about its key, and the key that may be meant.
        """

    def moved(self) -> Generator[MovedRow, None, None]:
        """What the rows of the plan hold although something else was expected."""

    def outcomes(self) -> Generator[AssessedRow, None, None]:
        """Every row of the file, with what stands in its way."""

    def rows(self, *, limit: int | None = None, changed_only: bool = False) -> Iterator[PlannedRow]:
        """The plan, row by row."""


class BulkStore(PlanStore, Protocol):
    """What also applies it at once: the database."""

    def lacking_rights(self) -> list[Right]:
        """Return the rights that `apply` would need and the user does not have."""

    def apply(
        self,
        write_undo: Callable[[WriteRows], Path],
        before_commit: Callable[[], None],
        begun: Callable[[int], None],
    ) -> Path:
        """Write all of it or nothing; the undo file."""


class Faults:
    """The bad lines of a file; they may be many, so most of them wait on disk."""

    _IN_MEMORY = 1 << 20  # bytes
    _MOST_KEYS = 1_000  # that are explained; more are not read, and a file may have any number

    def __init__(self) -> None:
        self.count = 0
        self._keys: dict[int, tuple[str, str]] = {}
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by close()
            self._IN_MEMORY, "w+", encoding="ascii", newline="\n"
        )

    def add(self, fault: Fault) -> None:
        """Take one."""
        self.count += 1
        json.dump([fault.line, fault.column, fault.reason], self._file)
        self._file.write("\n")

    def look_at_key(self, line: int, key: str) -> None:
        """Remember a key that contains odd characters: there may be no row of that name."""
        odd = odd_in_identifier(key) if len(self._keys) < self._MOST_KEYS else []
        if odd:
            self._keys[line] = f"it contains {odd[0]}", folded(key)

    @property
    def keys(self) -> Mapping[int, tuple[str, str]]:
        """What is odd about the keys of some lines, and which keys may be meant."""
        return self._keys

    def __iter__(self) -> Iterator[Problem]:
        self._file.seek(0)
        for line in self._file:
            yield Problem(*json.loads(line))

    def close(self) -> None:
        """Let the disk go."""
        self._file.close()


@dataclass(frozen=True)
class Assessment:
    """A file held against what is there.

    Attributes:
        plan: What would happen.
        faults: How many bad lines the file itself has.
    """

    plan: Plan
    faults: int

    @property
    def problems(self) -> int:
        """How many reasons there are to refuse."""
        return self.faults + self.plan.problems


def assess(
    store: PlanStore,
    requests: Iterable[Request],
    faults: Faults,
    *,
    skip_moved: bool = False,
    force: bool = False,
) -> Assessment:
    """Load the whole file and plan it, bad lines included, so that all are named at once."""
    codec = store.encoding
    store.load(requests if codec is None else _storable(requests, codec, faults))
    plan = store.plan(skip_moved=skip_moved, force=force)
    if faults.keys and plan.problems:
        store.explain(faults.keys)
    return Assessment(plan, faults.count)


def _storable(requests: Iterable[Request], codec: str, faults: Faults) -> Iterator[Request]:
    """Yield the rows that a database with an encoding other than Unicode can store."""
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
    """Every bad line, whether the file or the database says so, by line."""
    yield from merge(faults, store.problems(), key=lambda problem: problem.line)


def require_rights(lacking: Sequence[Right]) -> None:
    """Refuse what the database would refuse.

    Raises:
        CredentialsError: A right is missing.
    """
    if lacking:
        raise CredentialsError(
            "This database user may not write what the plan shows",
            hint="Sign in as a user that may, or ask for these rights with GRANT.",
            details=[f"missing: {right}" for right in lacking],
        )


def refuse(assessment: Assessment, name: str, remedy: str | None = None) -> BadInputError:
    """The error for a file with problems; the caller has named them.

    Args:
        assessment: What was found.
        name: What messages call the file.
        remedy: What to do about it, when it is more than mending lines.
    """
    count = assessment.problems
    return BadInputError(
        f"{name} cannot be applied: {count:,} {'problem' if count == 1 else 'problems'}; "
        "nothing was written",
        hint=remedy or "Mend the lines named above, and run the command again.",
    )


def apply(
    store: BulkStore,
    write_undo: Callable[[WriteRows], Path],
    before_commit: Callable[[], None],
    begun: Callable[[int], None],
    *,
    ask: str,
    noun: str,
) -> Path:
    """Write the plan, and return the undo file.

    Args:
        store: What planned it.
        write_undo: See `BulkStore.apply`.
        before_commit: Is called when everything but the commit is done.
        begun: Is called with the transaction's id before anything is written.
        ask: The command that finds out later whether it was written.
        noun: What messages call a row.

    Raises:
        ConflictError: Rows changed since the plan, or the database refused them; nothing was
            written.
        UnreachableError: The connection broke; nothing was written.
        AspenError: It is not known whether it was written.
    """
    from sqlalchemy.exc import DBAPIError, IntegrityError

    try:
        return store.apply(write_undo, before_commit, begun)
    except RowsMovedError as error:
        raise _conflict(error, noun) from error
    except OutcomeUnknownError as error:
        raise AspenError(
            "the connection was lost at the commit: it is not known whether it was written",
            hint=f"When the database answers again, ask it: {ask}",
            details=[f"The undo file is {error.undo_file}."],
        ) from error
    except IntegrityError as error:
        raise ConflictError(
            "the database refused what was to be written; nothing was written",
            hint="If a new row's number is taken, run the command again: it takes the next.",
            details=str(error.orig).strip().splitlines(),
        ) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise UnreachableError(
            "the connection to the database broke; nothing was written",
            hint="Run the command again.",
            details=str(error.orig).strip().splitlines(),
        ) from error


def _conflict(error: RowsMovedError, noun: str) -> ConflictError:
    more = error.total - len(error.rows)
    return ConflictError(
        f"somebody else changed {noun}s of this file since the plan was made; nothing was written",
        hint="Run the command again: it makes a new plan.",
        details=[*error.rows, f"and {more:,} more"] if more else error.rows,
    )


def require_group(name: str | None, group_id: int) -> str:
    """The group's name.

    Raises:
        NotFoundError: There is no such group.
    """
    if name is None:
        raise NotFoundError(f"there is no group {group_id}", hint="See: aspencli groups list")
    return name
