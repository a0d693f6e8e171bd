"""Phylogenetic runs: the jobs that build trees."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Action
from aspen.api.aws import Aws
from aspen.api.deps import AppRuntime, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented, unavailable
from aspen.api.jobs import JobError, Order, start_job, stop_job, tree_order
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.phylo_runs import listed, make, remove, rename
from aspen.api.runtime import Runtime
from aspen.api.schemas.base import RowId
from aspen.api.schemas.phylo_runs import (
    PhyloRunDeleteResponse,
    PhyloRunRequest,
    PhyloRunResponse,
    PhyloRunsListResponse,
    PhyloRunUpdateRequest,
)
from aspen.api.settings import Settings
from aspen.api.streaming import json_list
from aspen.database.models import PhyloRun, TreeType

router = APIRouter(tags=["phylo_runs"])
_log = logging.getLogger(__name__)


@router.get("/", response_model=PhyloRunsListResponse)
async def list_runs(db: Db, access: OrgAccess, pathogen: CurrentPathogen) -> Response:
    """List all runs of the pathogen that the user can see."""
    query = listed().where(
        access.phylo_runs(Action.READ), PhyloRun.__table__.c.pathogen_id == pathogen.id
    )
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
    run = await make(db, access, pathogen, wanted)
    answer = await _shown(db, run)
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
    await rename(db, access, pathogen, item_id, wanted.name)
    answer = await _shown(db, item_id)
    await db.commit()
    return answer


@router.delete("/{item_id}", responses=documented(404))
async def delete_run(
    item_id: RowId, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> PhyloRunDeleteResponse:
    """Delete a finished run and its tree."""
    await remove(db, access, pathogen, item_id)
    await db.commit()
    return PhyloRunDeleteResponse(id=item_id)


async def _started(aws: Aws, settings: Settings, order: Order) -> str:
    try:
        return await start_job(aws, settings, order)
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
                await stop_job(aws, execution, f"run {run} was not saved")
    except (JobError, SQLAlchemyError, OSError):
        _log.exception(
            "Cleanup failed. If run %s does not exist, stop execution %s.", run, execution
        )


async def _shown(db: AsyncSession, run: int) -> Response:
    query = listed().where(PhyloRun.__table__.c.workflow_id == run)
    return Response((await db.scalars(query)).one(), media_type="application/json")
