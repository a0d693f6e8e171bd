"""Renaming and deleting runs together with the trees that they built."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.database.models import Entity, Pathogen, PhyloRun, PhyloTree, Workflow, WorkflowStatus

_RUNS, _WORKFLOWS = PhyloRun.__table__, Workflow.__table__
_TREES, _ENTITIES = PhyloTree.__table__, Entity.__table__
_RENAME = (
    "UPDATE aspen.phylo_runs SET name = :name WHERE workflow_id = :run",
    "UPDATE aspen.phylo_trees SET name = :name WHERE entity_id = ANY(:trees)",
)
_DELETE = (
    "DELETE FROM aspen.phylo_tree_samples WHERE phylo_tree_id = ANY(:trees)",
    "DELETE FROM aspen.phylo_trees WHERE entity_id = ANY(:trees)",
    "DELETE FROM aspen.workflow_inputs WHERE workflow_id = :run OR entity_id = ANY(:trees)",
    "DELETE FROM aspen.entities WHERE id = ANY(:trees)",
    # Other output of the run's job may still be in use.
    "UPDATE aspen.entities SET producing_workflow_id = NULL WHERE producing_workflow_id = :run",
    "DELETE FROM aspen.phylo_runs WHERE workflow_id = :run",
    "DELETE FROM aspen.workflows WHERE id = :run",
)


async def rename(db: AsyncSession, access: Access, pathogen: Pathogen, run: int, name: str) -> None:
    """Rename a run and its trees; the caller commits.

    Raises:
        ApiError: 404 or 400; nothing was changed.
    """
    trees = await _locked(db, access, pathogen, run)
    for statement in _RENAME:
        await _execute(db, statement, run=run, trees=trees, name=name)


async def remove(db: AsyncSession, access: Access, pathogen: Pathogen, run: int) -> None:
    """Delete a run and its trees; the caller commits. The trees' files stay in storage.

    Raises:
        ApiError: 404 or 400; nothing was deleted.
    """
    trees = await _locked(db, access, pathogen, run)
    for statement in _DELETE:
        await _execute(db, statement, run=run, trees=trees)


async def _locked(db: AsyncSession, access: Access, pathogen: Pathogen, run: int) -> list[int]:
    """Lock a run that the user may change and its trees; return the IDs of the trees."""
    query = (
        sa.select(_WORKFLOWS.c.workflow_status)
        .join(_RUNS, _RUNS.c.workflow_id == _WORKFLOWS.c.id)
        .where(
            _WORKFLOWS.c.id == run,
            _RUNS.c.pathogen_id == pathogen.id,
            access.phylo_runs(Action.WRITE),
        )
        .with_for_update()
    )
    status = await db.scalar(query)
    if status is None:
        raise ApiError(404, "phylo run not found")
    if status == WorkflowStatus.STARTED:
        raise ApiError(400, "Can't modify an in-progress phylo run")
    trees = sa.select(_TREES.c.entity_id).join(_ENTITIES, _ENTITIES.c.id == _TREES.c.entity_id)
    made = trees.where(_ENTITIES.c.producing_workflow_id == run).with_for_update()
    return list(await db.scalars(made))


async def _execute(db: AsyncSession, text: str, **values: Any) -> None:
    """Execute a statement with those of the values that it uses."""
    told = {name: value for name, value in values.items() if f":{name}" in text}
    typed = [sa.bindparam("trees", type_=ARRAY(sa.Integer))] if "trees" in told else []
    await db.execute(sa.text(text).bindparams(*typed), told)
