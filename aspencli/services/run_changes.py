"""Start, rename, and delete runs through the API; recover if a response is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.services.checks import as_id
from aspencli.services.orgs import Scope
from aspencli.shapes import NewPhyloRun, PhyloRun

_RUNNING = "STARTED"
_SHOWN = 20


class PhyloRuns(Protocol):
    """The part of the API that lists and changes runs."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Return every run visible to the user."""

    def create(
        self,
        org: int,
        slug: str,
        run: NewPhyloRun,
        settle: Callable[[], PhyloRun | None] | None = None,
    ) -> PhyloRun:
        """Start a run."""

    def rename(self, org: int, slug: str, run: int, name: str) -> PhyloRun:
        """Rename a run and its tree."""

    def delete(
        self, org: int, slug: str, run: int, settle: Callable[[], int | None] | None = None
    ) -> int:
        """Delete a run."""


def start_run(runs: PhyloRuns, scope: Scope, wanted: NewPhyloRun) -> PhyloRun:
    """Start a run; if the response is lost, look for it among the runs that appeared since."""
    known = {run["id"] for run in runs.all(*scope.key)}

    def look() -> PhyloRun | None:
        came = [
            run
            for run in runs.all(*scope.key)
            if run["id"] not in known
            and (run["group"]["id"], run["name"]) == (scope.org.id, wanted["name"])
        ]
        return came[-1] if came else None

    return runs.create(*scope.key, wanted, look)


def run_ids(keys: Sequence[str]) -> list[int]:
    """Parse run IDs, dropping duplicates.

    Raises:
        BadInputError: A key is not a valid ID.
    """
    numbers = {key: as_id(key) for key in keys}
    wrong = [key for key, number in numbers.items() if number is None]
    if wrong:
        raise BadInputError(
            f"a run has a number: {', '.join(map(repr, wrong[:_SHOWN]))}",
            hint="See those that there are: aspencli phylo-runs list",
        )
    return list(dict.fromkeys(number for number in numbers.values() if number is not None))


def find_runs(runs: PhyloRuns, scope: Scope, ids: Sequence[int]) -> list[PhyloRun]:
    """Return the group's runs with these IDs, in the order given.

    Raises:
        NotFoundError: A run does not exist or belongs to another group.
        ConflictError: A run is still in progress.
    """
    own = {run["id"]: run for run in runs.all(*scope.key) if run["group"]["id"] == scope.org.id}
    missing = [number for number in ids if number not in own]
    if missing:
        raise NotFoundError(
            f"{scope} has no run {_listed(missing)}",
            hint="See those that there are: aspencli phylo-runs list",
        )
    running = [number for number in ids if own[number]["workflow_status"] == _RUNNING]
    if running:
        raise ConflictError(
            f"still in progress: run {_listed(running)}; nothing was changed",
            hint="Wait until it has ended (see: aspencli phylo-runs list), or leave it out.",
        )
    return [own[number] for number in ids]


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def delete_runs(runs: PhyloRuns, scope: Scope, ids: Sequence[int]) -> Iterator[int]:
    """Delete runs one by one, yielding the ID of each deleted run.

    Raises:
        AspenError: A deletion was rejected; the runs yielded before are deleted.
    """
    for number in ids:
        yield runs.delete(*scope.key, number, partial(_gone, runs, scope, number))


def _gone(runs: PhyloRuns, scope: Scope, number: int) -> int | None:
    return None if any(run["id"] == number for run in runs.all(*scope.key)) else number
