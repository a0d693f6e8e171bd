"""Whether the service runs."""

from __future__ import annotations

from fastapi import APIRouter

from api.schemas.health import Health

router = APIRouter(tags=["health"])


@router.get("/")
async def get_health() -> Health:
    """That the process answers; what it depends on is not asked."""
    return Health(healthy=True)
