"""Phylogenetic runs, and the trees that UShER can place samples in, read from the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import joinedload, selectinload

from aspen.database.models import PhyloRun, UsherOption
from aspen.database.sessions import ReadSession
from aspencli.reference.database import find_group, find_pathogen

_RELATED = (
    joinedload(PhyloRun.group),
    joinedload(PhyloRun.pathogen),
    joinedload(PhyloRun.user),
    joinedload(PhyloRun.contextual_repository),
    selectinload(PhyloRun.phylo_trees),
)


def list_runs(
    session: ReadSession, *, group: str | None, pathogen: str | None
) -> Iterator[dict[str, Any]]:
    """Return the runs of a group and of a pathogen, or of any, ordered by ID.

    Raises:
        NotFoundError: The group or the pathogen does not exist.
    """
    statement = sa.select(PhyloRun).options(*_RELATED).order_by(PhyloRun.id)
    if group is not None:
        statement = statement.where(PhyloRun.group_id == find_group(session, group).id)
    if pathogen is not None:
        statement = statement.where(PhyloRun.pathogen_id == find_pathogen(session, pathogen).id)
    return map(_row, session.scalars(statement))


def _row(run: PhyloRun) -> dict[str, Any]:
    trees = sorted(tree.entity_id for tree in run.phylo_trees)
    return {
        "id": run.id,
        "name": run.name,
        "workflow_status": run.workflow_status.value,
        "tree_type": run.tree_type.value,
        "group": run.group.name,
        "pathogen": run.pathogen.slug,
        "start_datetime": _utc(run.start_datetime),
        "end_datetime": _utc(run.end_datetime),
        "user": run.user.name if run.user else None,
        "phylo_tree": trees[0] if trees else None,
        "template_args": dict(run.template_args),
        "contextual_data_source": run.contextual_repository.name,
    }


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.replace(microsecond=0, tzinfo=dt.UTC)


def list_usher_trees(session: ReadSession, slug: str) -> Iterator[dict[str, Any]]:
    """Return the pathogen's trees in the order of the API, with the default choice first.

    Raises:
        NotFoundError: The pathogen does not exist.
    """
    statement = (
        sa.select(UsherOption.id, UsherOption.description, UsherOption.value, UsherOption.priority)
        .where(UsherOption.pathogen_id == find_pathogen(session, slug).id)
        .order_by(UsherOption.priority.nulls_last(), UsherOption.id)
    )
    return (dict(row) for row in session.execute(statement).mappings())
