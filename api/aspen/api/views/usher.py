"""The trees that UShER can place samples in."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter

from aspen.api.deps import CurrentPathogen, Db
from aspen.api.schemas.reference import UsherTreeVersionsResponse
from aspen.database.models import UsherOption

router = APIRouter(tags=["usher"])


@router.get("/tree_versions/")
async def get_tree_versions(db: Db, pathogen: CurrentPathogen) -> UsherTreeVersionsResponse:
    """List the pathogen's trees, in order of priority."""
    query = sa.select(UsherOption).where(UsherOption.pathogen_id == pathogen.id)
    ordered = query.order_by(UsherOption.priority.nulls_last(), UsherOption.id)
    found = (await db.scalars(ordered)).all()
    return UsherTreeVersionsResponse.model_validate({"usher_options": found})
