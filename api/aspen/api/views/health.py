"""Health checks of the service: liveness and readiness."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from fastapi import APIRouter, Request

from aspen.api.admission import Admission
from aspen.api.errors import unavailable
from aspen.api.schemas.health import Health

router = APIRouter(tags=["health"])
_PATIENCE_S = 3.0


@router.get("/")
async def get_health() -> Health:
    """Report that the process is running; its dependencies are not checked."""
    return Health(healthy=True)


# The live service lacks this path, and the documentation lists only what both have.
@router.get("/ready", include_in_schema=False)
async def get_readiness(request: Request) -> Health:
    """Check that the service is ready for requests: that it can reach the database.

    Raises:
        ApiError: 503 if the database does not respond in time.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await (await Admission.of(request).session()).execute(sa.text("SELECT 1"))
    except TimeoutError as error:
        raise unavailable("the database") from error
    return Health(healthy=True)
