"""Samples."""

from __future__ import annotations

from fastapi import APIRouter, Response

from api.authz import Action
from api.context import CurrentPathogen, OrgAccess
from api.deps import Db
from api.errors import documented
from api.samples.listing import listed
from api.samples.updating import update
from api.schemas.samples import SamplesResponse, UpdateSamplesRequest
from api.streaming import json_list
from db.models import Sample

router = APIRouter(tags=["samples"])


@router.get("/", response_model=SamplesResponse)
async def list_samples(db: Db, access: OrgAccess, pathogen: CurrentPathogen) -> Response:
    """All samples of the pathogen that the user may see."""
    query = listed(access.group).where(
        access.samples(Action.READ), Sample.pathogen_id == pathogen.id
    )
    return await json_list(db, "samples", query)


@router.put("/", response_model=SamplesResponse, responses=documented(404))
async def update_samples(
    wanted: UpdateSamplesRequest, db: Db, access: OrgAccess, pathogen: CurrentPathogen
) -> Response:
    """Replace samples: all of them, or none.

    What is left out of a sample does not stay: read it, change it, and put the whole back.
    """
    body = await update(db, access, pathogen, wanted.samples)
    await db.commit()
    return Response(body, media_type="application/json")
