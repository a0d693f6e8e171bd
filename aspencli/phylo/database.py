"""Phylogenetic runs, and the trees that UShER can place samples in, read from the database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import joinedload, selectinload

from aspen.database.engine import ReadSession
from aspen.database.models import PhyloRun, UsherOption
from aspencli.phylo.remote import PhyloRunRow
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
) -> Iterator[PhyloRunRow]:
    """Return the runs, ordered by ID.

    Args:
        session: The database session.
        group: ID, name, or prefix of the owning group; None for any.
        pathogen: The pathogen's slug; None for any.

    Raises:
        NotFoundError: The group or the pathogen does not exist.
    """
    statement = sa.select(PhyloRun).options(*_RELATED).order_by(PhyloRun.id)
    if group is not None:
        statement = statement.where(PhyloRun.group_id == find_group(session, group).id)
    if pathogen is not None:
        statement = statement.where(PhyloRun.pathogen_id == find_pathogen(session, pathogen).id)
    return map(_row, session.scalars(statement))


def _row(run: PhyloRun) -> PhyloRunRow:
    trees = sorted(tree.entity_id for tree in run.phylo_trees)
    return PhyloRunRow(
        run.id,
        run.name,
        run.workflow_status.value,
        run.tree_type.value,
        run.group.name,
        run.pathogen.slug,
        _utc(run.start_datetime),
        _utc(run.end_datetime),
        run.user.name if run.user else None,
        trees[0] if trees else None,
        dict(run.template_args),
        run.contextual_repository.name,
    )


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
