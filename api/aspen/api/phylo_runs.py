"""Phylogenetic runs: listed as JSON, created with their inputs, renamed, and deleted.

PostgreSQL generates the JSON. Keys, their order, and their types match
`aspen.api.schemas.phylo_runs.PhyloRunResponse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.api.samples.finding import named, strains
from aspen.api.samples.naming import GENBANK
from aspen.api.schemas.phylo_runs import PhyloRunRequest, TemplateArgsRequest
from aspen.database.models import (
    AlignedRepositoryData,
    Entity,
    Group,
    Location,
    Pathogen,
    PhyloRun,
    PhyloTree,
    PublicRepository,
    Sample,
    TreeType,
    UploadedPathogenGenome,
    User,
    Workflow,
    WorkflowInput,
    WorkflowStatus,
)

_RUNS, _WORKFLOWS = PhyloRun.__table__, Workflow.__table__
_TREES, _ENTITIES = PhyloTree.__table__, Entity.__table__

_UPLOADED = UploadedPathogenGenome.__table__

_RUN = sa.text("""(
SELECT row_to_json(made)::text FROM (SELECT
    workflows.id,
    date_trunc('second', workflows.start_datetime) AT TIME ZONE 'UTC' AS start_datetime,
    date_trunc('second', workflows.end_datetime) AT TIME ZONE 'UTC' AS end_datetime,
    workflows.workflow_status,
    phylo_runs.template_args,
    phylo_runs.name,
    (SELECT row_to_json(part) FROM (SELECT groups.id, groups.name, groups.location) part)
        AS "group",
    phylo_runs.template_file_path,
    phylo_runs.tree_type,
    (SELECT row_to_json(part) FROM (SELECT pathogens.id, pathogens.slug, pathogens.name) part)
        AS pathogen,
    public_repositories.name AS contextual_data_source,
    CASE WHEN users.id IS NOT NULL THEN (
        SELECT row_to_json(part) FROM (SELECT users.id, users.name) part
    ) END AS "user",
    (
        SELECT row_to_json(part) FROM (
            SELECT tree.entity_id AS id, tree.name
              FROM aspen.entities made_of_it
              JOIN aspen.phylo_trees tree ON tree.entity_id = made_of_it.id
             WHERE made_of_it.producing_workflow_id = workflows.id
             ORDER BY tree.entity_id LIMIT 1
        ) part
    ) AS phylo_tree
) made)""")
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


def listed() -> sa.Select[tuple[str]]:
    """Return a query for the JSON of runs, in order of ID."""
    return (
        sa.select(_RUN)
        .select_from(_RUNS)
        .join(_WORKFLOWS, _WORKFLOWS.c.id == _RUNS.c.workflow_id)
        .join(Group, Group.id == _RUNS.c.group_id)
        .join(Pathogen, Pathogen.id == _RUNS.c.pathogen_id)
        .join(PublicRepository, PublicRepository.id == _RUNS.c.contextual_repository_id)
        .outerjoin(User, User.id == _WORKFLOWS.c.user_id)
        .order_by(_RUNS.c.workflow_id)
    )


async def make(
    db: AsyncSession, access: Access, pathogen: Pathogen, wanted: PhyloRunRequest
) -> int:
    """Insert the row and the inputs of a run that is about to start; the caller commits.

    Args:
        db: A writable session.
        access: The user's permissions; the run belongs to the group in the path.
        pathogen: The pathogen of the run.
        wanted: The request.

    Returns:
        The run's ID.

    Raises:
        ApiError: 400 with the invalid values; nothing was written.
    """
    names = list(dict.fromkeys(wanted.samples))
    genomes = await _genomes(db, access, pathogen, names)
    public = await strains(db, pathogen, [name for name in names if name not in genomes])
    if missing := [name for name in names if name not in genomes and name not in public]:
        raise ApiError(400, "missing ids", ids=missing)
    if bare := [name for name in names if None in genomes.get(name, ())]:
        raise ApiError(400, "some samples have no sequence", ids=bare)
    arguments = await _arguments(db, wanted.template_args)
    dump, repository = await _newest_dump(db, pathogen)
    taken = {genome for some in genomes.values() for genome in some if genome is not None}
    run = PhyloRun(
        user_id=access.user.id,
        group_id=access.group.id,
        pathogen_id=pathogen.id,
        contextual_repository_id=repository,
        name=wanted.name,
        tree_type=TreeType(wanted.tree_type),
        template_args=arguments,
        gisaid_ids=sorted({*public.values()}),
        workflow_status=WorkflowStatus.STARTED,
        start_datetime=datetime.now(UTC).replace(tzinfo=None),  # the column is naive UTC
    )
    db.add(run)
    await db.flush()
    # An INSERT treats parameters as columns, so the values are part of the statement.
    entities = sa.literal([*{dump, *taken}], ARRAY(sa.Integer))
    inputs = sa.select(sa.func.unnest(entities), sa.literal(run.id))
    await db.execute(sa.insert(WorkflowInput).from_select(["entity_id", "workflow_id"], inputs))
    return run.id


async def _arguments(db: AsyncSession, given: TemplateArgsRequest | None) -> dict[str, Any]:
    if given is None:
        return {}
    location = given.location_id
    if location is not None and await db.get(Location, location) is None:
        raise ApiError(400, f"location_id {location} not found")
    return given.model_dump(mode="json", exclude_none=True)


async def _newest_dump(db: AsyncSession, pathogen: Pathogen) -> tuple[int, int]:
    """Return the IDs of the newest data to compare samples with, and of its repository.

    GenBank takes precedence if it has the pathogen.
    """
    source = AlignedRepositoryData
    ended = _WORKFLOWS.c.end_datetime
    query = (
        sa.select(source.entity_id, source.public_repository_id)
        .join(_WORKFLOWS, _WORKFLOWS.c.id == source.producing_workflow_id)
        .where(source.pathogen_id == pathogen.id)
        .join(PublicRepository, PublicRepository.id == source.public_repository_id)
        .order_by(
            (PublicRepository.name == GENBANK).desc(),
            source.public_repository_id,
            ended.desc().nulls_last(),
            source.entity_id.desc(),
        )
        .limit(1)
    )
    found = (await db.execute(query)).one_or_none()
    if found is None:
        raise ApiError(400, "No aligned upstream dump for run", pathogen=pathogen.slug)
    return found[0], found[1]


async def _genomes(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> dict[str, set[int | None]]:
    """Return the IDs of the sequences that each name refers to; None for a sample without one.

    Several groups may use the same public identifier. The samples are locked against deletion and
    renaming until the run has their sequences as its inputs.
    """
    private = sa.case((access.samples(Action.READ_PRIVATE), Sample.private_identifier))
    query = (
        sa.select(Sample.public_identifier, private, _UPLOADED.c.pathogen_genome_id)
        .outerjoin(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .where(named(access, pathogen))
        .order_by(Sample.id)
        .with_for_update(of=Sample, read=True, key_share=True)
    )
    given, found = {*names}, dict[str, set[int | None]]()
    for *identifiers, genome in await db.execute(query, {"names": names}):
        for name in given.intersection(identifiers):
            found.setdefault(name, set()).add(genome)
    return found


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
    """Execute a statement, passing only the values that it refers to."""
    parameters = {name: value for name, value in values.items() if f":{name}" in text}
    typed = [sa.bindparam("trees", type_=ARRAY(sa.Integer))] if "trees" in parameters else []
    await db.execute(sa.text(text).bindparams(*typed), parameters)
