"""Samples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fastapi import APIRouter, Response
from starlette.background import BackgroundTask
from starlette.convertors import StringConvertor, register_url_convertor

from aspen.api.authz import Action
from aspen.api.aws import Aws
from aspen.api.deps import AppSettings, AwsClients, CurrentPathogen, Db, OrgAccess
from aspen.api.errors import ApiError, documented
from aspen.api.jobs import (
    PANGOLIN_PATHOGEN,
    JobError,
    Order,
    enqueue_sample_jobs,
    lineage_qc_orders,
    pangolin_orders,
    start_job,
)
from aspen.api.limits import NAMES_MIB, accepts
from aspen.api.samples.forms import fill_in
from aspen.api.samples.lifecycle import create, remove
from aspen.api.samples.listing import listed
from aspen.api.samples.naming import unknown_names
from aspen.api.samples.updating import update
from aspen.api.schemas.base import RowId, Samples
from aspen.api.schemas.samples import (
    CreateSampleRequest,
    SampleBulkDeleteRequest,
    SampleBulkDeleteResponse,
    SampleDeleteResponse,
    SamplesResponse,
    SubmissionTemplateRequest,
    UpdateSamplesRequest,
    ValidateIDsRequest,
    ValidateIDsResponse,
)
from aspen.api.settings import JobsEngine, Settings
from aspen.api.streaming import Pieces, json_list
from aspen.database.models import Sample


class _SampleConvertor(StringConvertor):
    """A path parameter for a sample's ID that never matches the path of the form."""

    regex = "(?!submission_template$)[^/]+"


register_url_convertor("sample", _SampleConvertor())
router = APIRouter(tags=["samples"])
_SAMPLES_MIB = 32
_log = logging.getLogger(__name__)


@router.get("/", response_model=SamplesResponse)
async def list_samples(db: Db, access: OrgAccess, pathogen: CurrentPathogen) -> Response:
    """List all samples of the pathogen that the user can see."""
    query = listed(access.group).where(
        access.samples(Action.READ), Sample.pathogen_id == pathogen.id
    )
    return await json_list(db, "samples", query)


@router.post("/", response_model=SamplesResponse)
@accepts(mebibytes=_SAMPLES_MIB)
async def create_samples(
    wanted: Samples[CreateSampleRequest],
    db: Db,
    access: OrgAccess,
    pathogen: CurrentPathogen,
    aws: AwsClients,
    settings: AppSettings,
) -> Response:
    """Create samples with their sequences: all of them or none.

    Jobs then assign their lineages and assess their quality.
    """
    if not access.may(Action.CREATE_SAMPLE):
        raise ApiError(403, "access denied")
    publics, answer = await create(db, access, pathogen, wanted)
    if settings.jobs_engine is JobsEngine.LOCAL:
        if publics and not await enqueue_sample_jobs(db, pathogen, [*publics]):
            _log.error("No jobs for %d new samples: no worker has started yet", len(publics))
        await db.commit()
        return Pieces(answer)
    orders = [*lineage_qc_orders(access.group, pathogen, [*publics])]
    if pathogen.slug == PANGOLIN_PATHOGEN:
        orders = [*pangolin_orders(access.group, [*publics.values()]), *orders]
    await db.commit()
    jobs = BackgroundTask(_examine, aws, settings, orders) if orders else None
    return Pieces(answer, background=jobs)


@router.put("/", response_model=SamplesResponse, responses=documented(404))
@accepts(mebibytes=_SAMPLES_MIB)
async def update_samples(
    wanted: UpdateSamplesRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Replace samples: all of them or none.

    Omitted fields are not kept: read the sample, change it, and send all of it back.
    """
    answer = await update(db, access, pathogen, wanted.samples)
    await db.commit()
    return Pieces(answer)


@router.delete("/", responses=documented(404))
@accepts(mebibytes=NAMES_MIB)
async def delete_samples(
    unwanted: SampleBulkDeleteRequest, db: Db, access: OrgAccess, _: CurrentPathogen
) -> SampleBulkDeleteResponse:
    """Delete samples and everything derived from them: all of them or none."""
    await remove(db, access, unwanted.ids, "samples not found")
    await db.commit()
    return SampleBulkDeleteResponse(ids=unwanted.ids)


@router.delete("/{sample_id:sample}", responses=documented(404))
async def delete_sample(
    sample_id: RowId, db: Db, access: OrgAccess, _: CurrentPathogen
) -> SampleDeleteResponse:
    """Delete a sample and everything derived from it."""
    await remove(db, access, [sample_id], "sample not found")
    await db.commit()
    return SampleDeleteResponse(id=sample_id)


@router.post("/validate_ids/")
@accepts(mebibytes=NAMES_MIB)
async def validate_ids(
    given: ValidateIDsRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> ValidateIDsResponse:
    """Return the names that match nothing.

    A name can be the public or private identifier of a sample, a strain of a public repository with
    or without the repository's prefix, or a GISAID accession number.
    """
    missing = await unknown_names(db, access, pathogen, given.sample_ids)
    return ValidateIDsResponse(missing_sample_ids=missing)


@router.post("/submission_template", response_class=Response)
@accepts(mebibytes=NAMES_MIB)
async def fill_submission_template(
    wanted: SubmissionTemplateRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Download the submission form of a public repository, filled in with the known data."""
    return await fill_in(db, access, pathogen, wanted.sample_ids, wanted.public_repository_name)


async def _examine(aws: Aws, settings: Settings, orders: Sequence[Order]) -> None:
    """Start the jobs that analyze new samples; only log failures, since the samples are kept."""
    for order in orders:
        try:
            await asyncio.to_thread(start_job, aws, settings, order)
        except JobError as error:
            _log.error("Cannot start job %s for %s: %s", order.job, order.run, error)
