"""Renaming samples in bulk: read, plan, apply, undo; by whatever store serves the target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from aspencli.errors import AspenError, BadInputError, ConflictError, NotFoundError
from aspencli.services.tables import Fault
from db.bulk.renames import Plan, PlannedRow, Problem, Request
from db.errors import OutcomeUnknownError, RowsMovedError


class RenameStore(Protocol):
    """What plans and applies a rename: the database, or the API."""

    def load(self, requests: Iterable[Request]) -> int:
        """Take the mapping."""

    def plan(self, *, skip_moved: bool = False) -> Plan:
        """Compare it with what is there."""

    def problems(self) -> Iterator[Problem]:
        """What stands in the way."""

    def left_out(self) -> Iterator[Problem]:
        """What was left out of the plan."""

    def rows(self, *, limit: int | None = None, changed_only: bool = False) -> Iterator[PlannedRow]:
        """The plan, row by row."""

    def apply(
        self,
        write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
        before_commit: Callable[[], None],
    ) -> Path:
        """Write all of it or nothing; the undo file."""


class Faults:
    """The bad lines of a file; they may be many, so most of them wait on disk."""

    _IN_MEMORY = 1 << 20  # bytes

    def __init__(self) -> None:
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by close()
            self._IN_MEMORY, "w+", encoding="utf-8", errors="surrogateescape", newline="\n"
        )

    def add(self, fault: Fault) -> None:
        """Take one."""
        self.count += 1
        cells = (str(fault.line), fault.column, fault.reason.replace("\n", "\\n"))
        self._file.write("\x1f".join(cells) + "\n")

    def __iter__(self) -> Iterator[Problem]:
        self._file.seek(0)
        for line in self._file:
            number, column, reason = line.rstrip("\n").split("\x1f")
            yield Problem(int(number), column, reason)

    def close(self) -> None:
        """Let the disk go."""
        self._file.close()


@dataclass(frozen=True)
class Assessment:
    """A mapping held against what is there.

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
    store: RenameStore, requests: Iterable[Request], faults: Faults, *, skip_moved: bool = False
) -> Assessment:
    """Load the whole mapping and plan it, bad lines included, so that all are named at once."""
    store.load(requests)
    plan = store.plan(skip_moved=skip_moved)
    return Assessment(plan, faults.count)


def all_problems(store: RenameStore, faults: Faults) -> Iterator[Problem]:
    """Every bad line, whether the file or the database says so, by line."""
    from heapq import merge

    return merge(faults, store.problems(), key=lambda problem: problem.line)


def refuse(assessment: Assessment, name: str) -> BadInputError:
    """The error for a mapping with problems; the caller has named them."""
    count = assessment.problems
    return BadInputError(
        f"{name} cannot be applied: {count:,} {'problem' if count == 1 else 'problems'}; "
        "nothing was written",
        hint="Mend the lines named above, and run the command again.",
    )


def apply(
    store: RenameStore,
    write_undo: Callable[[Callable[[IO[bytes]], None]], Path],
    before_commit: Callable[[], None],
) -> Path:
    """Write the plan, and return the undo file.

    Raises:
        ConflictError: Rows changed since the plan; nothing was written.
        AspenError: It is not known whether it was written.
    """
    try:
        return store.apply(write_undo, before_commit)
    except RowsMovedError as error:
        raise ConflictError(
            "somebody else changed these samples since the plan was made; nothing was written",
            hint="Run the command again: it makes a new plan.",
            details=error.rows,
        ) from error
    except OutcomeUnknownError as error:
        raise AspenError(
            "the connection was lost at the commit: it is not known whether it was written",
            hint="Run the command again: where all was written it changes nothing. "
            f"Or ask the database: SELECT pg_xact_status('{error.transaction}')",
        ) from error


def require_group(name: str | None, group_id: int) -> str:
    """The group's name.

    Raises:
        NotFoundError: There is no such group.
    """
    if name is None:
        raise NotFoundError(f"there is no group {group_id}", hint="See: aspencli groups list")
    return name
