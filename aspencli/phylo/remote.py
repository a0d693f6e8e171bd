"""Phylogenetic runs through the API: list, start, rename, and delete them.

If a response is lost, the API is asked what happened. Uses only the standard library.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.reference.remote import Scope, find_both, find_slugs
from aspencli.remote.types import NewPhyloRun, PhyloRun
from aspencli.text import as_id

if TYPE_CHECKING:
    from aspencli.remote.api import Api, PhyloRuns

STARTED = "STARTED"
"""The status of a run that has not ended."""
_SHOWN = 20


def ask_runs(
    api: Api, *, group: str | None, pathogen: str | None, org: str | None
) -> Iterator[dict[str, Any]]:
    """Return the runs visible to the user, ordered by ID.

    Args:
        api: The API.
        group: ID, name, or prefix of the owning group; None for any.
        pathogen: The pathogen's slug; None for any.
        org: The group to send the request as; None for the owner, or the user's only group.

    Raises:
        NotFoundError: The group or the pathogen does not exist.
        BadInputError: No group was named, and the user has several.
    """
    asker, owner = find_both(api, org, group)
    found = [
        run
        for slug in find_slugs(api, pathogen)
        for run in api.phylo_runs.all(asker.id, slug)
        if owner is None or run["group"]["id"] == owner.id
    ]
    return map(run_row, sorted(found, key=lambda run: run["id"]))


def run_row(run: PhyloRun) -> dict[str, Any]:
    """Convert an API run to the row that commands show."""
    pathogen, user, tree = run["pathogen"], run["user"], run["phylo_tree"]
    return {
        "id": run["id"],
        "name": run["name"],
        "workflow_status": run["workflow_status"],
        "tree_type": run["tree_type"],
        "group": run["group"]["name"],
        "pathogen": pathogen["slug"] if pathogen else "",
        "start_datetime": _moment(run["start_datetime"]),
        "end_datetime": _moment(run["end_datetime"]),
        "user": user["name"] if user else None,
        "phylo_tree": tree["id"] if tree else None,
        "template_args": run["template_args"],
        "contextual_data_source": run["contextual_data_source"],
    }


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text).astimezone(dt.UTC)


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


def find_run(runs: PhyloRuns, scope: Scope, number: int) -> PhyloRun | None:
    """Return a run, or None if it does not exist."""
    return next((run for run in runs.all(*scope.key) if run["id"] == number), None)


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
            f"No such run in {scope}: {_listed(missing)}",
            hint="List the runs: aspencli phylo-runs list",
        )
    running = [number for number in ids if own[number]["workflow_status"] == STARTED]
    if running:
        raise ConflictError(
            f"Still in progress: run {_listed(running)}; nothing was changed.",
            hint="Wait for it to finish (see: aspencli phylo-runs list), or leave it out.",
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
