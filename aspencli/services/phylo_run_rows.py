"""Phylogenetic runs as commands show them, through the API; the standard library only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from aspencli.services.orgs import Directory, find_both, find_slugs
from aspencli.shapes import PhyloRun


@dataclass(frozen=True)
class PhyloRunRow:
    """A run that makes a tree.

    Attributes:
        workflow_status: ``STARTED``, ``COMPLETED`` or ``FAILED``.
        group: The name of the group that it belongs to.
        pathogen: The pathogen's slug.
        start_datetime: In UTC, to the second.
        user: The name of who started it.
        phylo_tree: The id of its tree; None while there is none.
        template_args: What was asked for besides the samples.
        contextual_data_source: Where the samples around them come from.
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
    """Lists runs."""

    def all(self, org: int, slug: str) -> list[PhyloRun]:
        """Every run that one may see."""


class Source(Directory, Protocol):
    """The API, as far as lists of runs need it."""

    @property
    def phylo_runs(self) -> PhyloRuns:
        """Its runs."""


def ask_runs(
    source: Source, *, group: str | None, pathogen: str | None, org: str | None = None
) -> Iterator[PhyloRunRow]:
    """The runs that one may see, in the order of their ids.

    Args:
        source: The API.
        group: Id, name or prefix of the group that they are of; None means any.
        pathogen: The pathogen's slug; None means any.
        org: The group in whose name it is asked; None means the other, or one's only group.

    Raises:
        NotFoundError: There is no such group or pathogen.
        BadInputError: No group was named, and one has several.
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
    """A run of the API as commands show it."""
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
