"""Phylogenetic runs as commands show them, from the API; uses only the standard library."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from aspencli.services.orgs import Directory, find_both, find_slugs
from aspencli.shapes import PhyloRun


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


class PhyloRuns(Protocol):
    """The part of the API that lists runs."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Return every run visible to the user."""


class Source(Directory, Protocol):
    """The part of the API that listing runs needs."""

    @property
    def phylo_runs(self) -> PhyloRuns:
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
        NotFoundError: There is no such group or pathogen.
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
