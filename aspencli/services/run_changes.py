"""Runs started, renamed and deleted through the API; a lost answer is looked into."""

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
    """Lists runs, and changes them."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Every run that one may see."""

    def create(
        self,
        org: int,
        slug: str,
        run: NewPhyloRun,
        settle: Callable[[], PhyloRun | None] | None = None,
    ) -> PhyloRun:
        """Start a run."""

    def rename(self, org: int, slug: str, run: int, name: str) -> PhyloRun:
        """Give a run, and its tree, another name."""

    def delete(
        self, org: int, slug: str, run: int, settle: Callable[[], int | None] | None = None
    ) -> int:
        """Delete a run."""


def start_run(runs: PhyloRuns, scope: Scope, wanted: NewPhyloRun) -> PhyloRun:
    """Start a run; where the answer is lost, the run is looked for among those that came since."""
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
    """The ids of runs that were named, each once.

    Raises:
        BadInputError: Some are none.
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
    """The runs of these ids, in their order, which the group can change.

    Raises:
        NotFoundError: Some are not there, or are another group's.
        ConflictError: Some have not ended.
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
    """Delete runs one by one; each that is gone, as it is done.

    Raises:
        AspenError: One was refused; those told before are gone.
    """
    for number in ids:
        yield runs.delete(*scope.key, number, partial(_gone, runs, scope, number))


def _gone(runs: PhyloRuns, scope: Scope, number: int) -> int | None:
    return None if any(run["id"] == number for run in runs.all(*scope.key)) else number
