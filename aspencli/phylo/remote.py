"""Phylogenetic runs through the API: list, start, rename, and delete them.

If a response is lost, the API is asked what happened. Uses only the standard library.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.remote.scope import Directory, Scope, find_both, find_slugs
from aspencli.remote.types import NewPhyloRun, PhyloRun
from aspencli.stored_text import as_id

_RUNNING = "STARTED"
_SHOWN = 20


@dataclass(frozen=True)
class PhyloRunRow:
    """A phylogenetic run.

    Attributes:
        workflow_status: ``STARTED``, ``COMPLETED``, or ``FAILED``.
        group: The name of its group.
        pathogen: The pathogen's slug.
        start_datetime: In UTC, to the second.
        user: The name of the user who started it.
        phylo_tree: The ID of its tree, or None if there is none yet.
        template_args: The parameters of the run besides its samples.
        contextual_data_source: The source of the contextual samples.
    """

    id: int
    name: str | None
    workflow_status: str
    tree_type: str | None
    group: str
    pathogen: str
    start_datetime: dt.datetime | None
    end_datetime: dt.datetime | None
    user: str | None
    phylo_tree: int | None
    template_args: dict[str, Any]
    contextual_data_source: str


class ListsRuns(Protocol):
    """The part of the API that lists runs."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Return every run visible to the user."""


class Source(Directory, Protocol):
    """The part of the API that listing runs needs."""

    @property
    def phylo_runs(self) -> ListsRuns:
        """Return the phylogenetic-run endpoints."""


def ask_runs(
    source: Source, *, group: str | None, pathogen: str | None, org: str | None = None
) -> Iterator[PhyloRunRow]:
    """Return the runs visible to the user, ordered by ID.

    Args:
        source: The API.
        group: ID, name, or prefix of the owning group; None for any.
        pathogen: The pathogen's slug; None for any.
        org: The group to send the request as; None for the owner, or the user's only group.

    Raises:
        NotFoundError: The group or the pathogen does not exist.
        BadInputError: No group was named, and the user has several.
    """
    asker, owner = find_both(source, org, group)
    found = [
        run
        for slug in find_slugs(source, pathogen)
        for run in source.phylo_runs.all(asker.id, slug)
        if owner is None or run["group"]["id"] == owner.id
    ]
    return map(run_row, sorted(found, key=lambda run: run["id"]))


def run_row(run: PhyloRun) -> PhyloRunRow:
    """Convert an API run to the row that commands show."""
    pathogen, user, tree = run["pathogen"], run["user"], run["phylo_tree"]
    return PhyloRunRow(
        run["id"],
        run["name"],
        run["workflow_status"],
        run["tree_type"],
        run["group"]["name"],
        pathogen["slug"] if pathogen else "",
        _moment(run["start_datetime"]),
        _moment(run["end_datetime"]),
        user["name"] if user else None,
        tree["id"] if tree else None,
        run["template_args"],
        run["contextual_data_source"],
    )


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text).astimezone(dt.UTC)


class ChangesRuns(ListsRuns, Protocol):
    """The part of the API that lists and changes runs."""

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


def start_run(runs: ChangesRuns, scope: Scope, wanted: NewPhyloRun) -> PhyloRun:
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
            f"Invalid run ID: {', '.join(map(repr, wrong[:_SHOWN]))}",
            hint="List the runs: aspencli phylo-runs list",
        )
    return list(dict.fromkeys(number for number in numbers.values() if number is not None))


def find_runs(runs: ChangesRuns, scope: Scope, ids: Sequence[int]) -> list[PhyloRun]:
    """Return the group's runs with these IDs, in the order given.

    Raises:
        NotFoundError: A run does not exist or belongs to another group.
        ConflictError: A run is still in progress.
    """
    own = {run["id"]: run for run in runs.all(*scope.key) if run["group"]["id"] == scope.org.id}
    missing = [number for number in ids if number not in own]
    if missing:
        raise NotFoundError(
            f"No such run in {scope}: {_listed(missing)}",
            hint="List the runs: aspencli phylo-runs list",
        )
    running = [number for number in ids if own[number]["workflow_status"] == _RUNNING]
    if running:
        raise ConflictError(
            f"Still in progress: run {_listed(running)}; nothing was changed.",
            hint="Wait for it to finish (see: aspencli phylo-runs list), or leave it out.",
        )
    return [own[number] for number in ids]


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def delete_runs(runs: ChangesRuns, scope: Scope, ids: Sequence[int]) -> Iterator[int]:
    """Delete runs one by one, yielding the ID of each deleted run.

    Raises:
        AspenError: A deletion was rejected; the runs yielded before are deleted.
    """
    for number in ids:
        yield runs.delete(*scope.key, number, partial(_gone, runs, scope, number))


def _gone(runs: ChangesRuns, scope: Scope, number: int) -> int | None:
    return None if any(run["id"] == number for run in runs.all(*scope.key)) else number


def with_scheme(address: str, beside: str) -> str:
    """Return a URL with its scheme, which the API sometimes omits.

    Args:
        address: The URL from the API.
        beside: The URL of the API itself, whose scheme is used.
    """
    if "://" in address:
        return address
    scheme = beside.partition("://")[0]
    return f"{'http' if scheme == 'http' else 'https'}://{address}"
