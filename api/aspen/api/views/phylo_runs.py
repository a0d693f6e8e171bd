"""Phylogenetic runs: the jobs that build trees.

PostgreSQL generates the JSON of runs. Keys, their order, and their types match
`aspen.api.schemas.phylo_runs.PhyloRunResponse`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Response
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.aws import Aws
from aspen.api.database import integers
from aspen.api.deps import AppRuntime, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented, unavailable
from aspen.api.jobs import JobError, Order, enqueue_tree, start_job, stop_job, tree_order
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.runtime import Runtime
from aspen.api.samples.naming import GENBANK, named, strains
from aspen.api.schemas.base import RowId
from aspen.api.schemas.phylo_runs import (
    PhyloRunDeleteResponse,
    PhyloRunRequest,
    PhyloRunResponse,
    PhyloRunsListResponse,
    PhyloRunUpdateRequest,
    TemplateArgsRequest,
)
from aspen.api.settings import JobsEngine, Settings
from aspen.api.streaming import json_list
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

router = APIRouter(tags=["phylo_runs"])
_log = logging.getLogger(__name__)

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


@router.get("/", response_model=PhyloRunsListResponse)
async def list_runs(db: Db, access: OrgAccess, pathogen: CurrentPathogen) -> Response:
    """List all runs of the pathogen that the user can see."""
    query = _listed().where(access.phylo_runs(Action.READ), _RUNS.c.pathogen_id == pathogen.id)
    return await json_list(db, "phylo_runs", query)


@router.post("/", response_model=PhyloRunResponse, responses=documented(502, 503))
@accepts(mebibytes=NAMES_MIB)
async def kick_off_phylo_run(
    wanted: PhyloRunRequest,
    db: Db,
    access: OrgAccess,
    pathogen: CurrentPathogen,
    aws: AwsClients,
    runtime: AppRuntime,
) -> Response:
    """Start a run that builds a tree; both its row and its job are created, or neither."""
    if not access.may(Action.CREATE_PHYLO_RUN):
        raise ApiError(403, "access denied")
    run = await _insert(db, access, pathogen, wanted)
    answer = await _shown(db, run)
    if runtime.settings.jobs_engine is JobsEngine.LOCAL:
        await enqueue_tree(db, run)
        await db.commit()
        return answer
    # Start the job before the commit; it reads the row only once its machine is up. If the service
    # dies in between, there is no run left that looks in progress and cannot be deleted.
    kind = TreeType(wanted.tree_type)
    order = tree_order(access.group, pathogen, kind, run)
    execution = await _started(aws, runtime.settings, order)
    try:
        await db.commit()
    except BaseException:
        await _take_back(aws, runtime, execution, run)
        raise
    return answer


@router.put("/{item_id}", response_model=PhyloRunResponse, responses=documented(404))
async def update_phylo_tree_and_run(
    item_id: RowId,
    wanted: PhyloRunUpdateRequest,
    db: Db,
    access: OrgAccess,
    pathogen: CurrentPathogen,
) -> Response:
    """Rename a finished run and its tree."""
    trees = await _locked(db, access, pathogen, item_id)
    for statement in _RENAME:
        await _execute(db, statement, run=item_id, trees=trees, name=wanted.name)
    answer = await _shown(db, item_id)
    await db.commit()
    return answer


@router.delete("/{item_id}", responses=documented(404))
async def delete_run(
    item_id: RowId, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> PhyloRunDeleteResponse:
    """Delete a finished run and its tree."""
    trees = await _locked(db, access, pathogen, item_id)
    for statement in _DELETE:  # the trees' files stay in storage
        await _execute(db, statement, run=item_id, trees=trees)
    await db.commit()
    return PhyloRunDeleteResponse(id=item_id)


def _listed() -> sa.Select[tuple[str]]:
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


async def _insert(
    db: AsyncSession, access: Access, pathogen: Pathogen, wanted: PhyloRunRequest
) -> int:
    """Insert the row and the inputs of a run that is about to start, and return its ID."""
    taken, public = await _inputs(db, access, pathogen, wanted.samples)
    arguments = await _arguments(db, wanted.template_args)
    dump, repository = await _newest_dump(db, pathogen)
    run = PhyloRun(
        user_id=access.user.id,
        group_id=access.group.id,
        pathogen_id=pathogen.id,
        contextual_repository_id=repository,
        name=wanted.name,
        tree_type=TreeType(wanted.tree_type),
        template_args=arguments,
        gisaid_ids=sorted(public),
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


async def _inputs(
    db: AsyncSession, access: Access, pathogen: Pathogen, samples: Sequence[str]
) -> tuple[set[int], set[str]]:
    """Return the IDs of the chosen samples' genomes, and the chosen strains of the repository."""
    names = list(dict.fromkeys(samples))
    genomes = await _genomes(db, access, pathogen, names)
    public = await strains(db, pathogen, [name for name in names if name not in genomes])
    if missing := [name for name in names if name not in genomes and name not in public]:
        raise ApiError(400, "missing ids", ids=missing)
    if bare := [name for name in names if None in genomes.get(name, ())]:
        raise ApiError(400, "some samples have no sequence", ids=bare)
    taken = {genome for some in genomes.values() for genome in some if genome is not None}
    return taken, {*public.values()}


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
    typed = [integers("trees")] if ":trees" in text else []
    await db.execute(sa.text(text).bindparams(*typed), values)


async def _started(aws: Aws, settings: Settings, order: Order) -> str:
    try:
        return await asyncio.to_thread(start_job, aws, settings, order)
    except JobError as error:
        _log.error("Cannot start job %s for %s: %s", order.job, order.run, error)
        if error.away:
            raise unavailable("AWS") from error
        raise ApiError(502, "the job could not be started", reason=str(error)) from error


async def _take_back(aws: Aws, runtime: Runtime, execution: str, run: int) -> None:
    """Stop the job, unless the commit succeeded and only its response was lost."""
    try:
        async with runtime.sessions() as session:
            if await session.get(PhyloRun, run) is None:
                await asyncio.to_thread(stop_job, aws, execution, f"run {run} was not saved")
    except (JobError, SQLAlchemyError, OSError):
        _log.exception(
            "Cleanup failed. If run %s does not exist, stop execution %s.", run, execution
        )


async def _shown(db: AsyncSession, run: int) -> Response:
    query = _listed().where(_RUNS.c.workflow_id == run)
    return Response((await db.scalars(query)).one(), media_type="application/json")
