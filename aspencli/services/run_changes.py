"""Runs started, renamed and deleted through the API; a lost answer is looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from aspencli.errors import NotFoundError
from aspencli.services.orgs import Scope
from aspencli.shapes import NewPhyloRun, PhyloRun


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


def find_runs(runs: PhyloRuns, scope: Scope, ids: Sequence[int]) -> list[PhyloRun]:
    """The runs of these ids, in their order.

    Raises:
        NotFoundError: Some are not there, or may not be seen.
    """
    seen = {run["id"]: run for run in runs.all(*scope.key)}
    missing = [number for number in ids if number not in seen]
    if missing:
        raise NotFoundError(
            f"there is no run {', '.join(map(str, missing))} that {scope} may see",
            hint="See those that there are: aspencli phylo-runs list",
        )
    return [seen[number] for number in ids]


def delete_runs(runs: PhyloRuns, scope: Scope, ids: Sequence[int]) -> Iterator[int]:
    """Delete runs one by one; each that is gone, as it is done.

    Raises:
        AspenError: One was refused; those told before are gone.
    """
    for number in ids:
        yield runs.delete(*scope.key, number, partial(_gone, runs, scope, number))


def _gone(runs: PhyloRuns, scope: Scope, number: int) -> int | None:
    return None if any(run["id"] == number for run in runs.all(*scope.key)) else number
