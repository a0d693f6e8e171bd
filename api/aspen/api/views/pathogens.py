"""The pathogens."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter

from aspen.api.deps import Db
from aspen.api.schemas.reference import PathogensResponse
from aspen.database.models import Pathogen

router = APIRouter(tags=["pathogens"])


@router.get("/")
async def list_pathogens(db: Db) -> PathogensResponse:
    """List all pathogens, in ID order."""
    found = (await db.scalars(sa.select(Pathogen).order_by(Pathogen.id))).all()
    return PathogensResponse.model_validate({"pathogens": found})
