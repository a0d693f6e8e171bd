"""Locations: the full list, and a search for the closest names."""

from __future__ import annotations

import sqlalchemy as sa
from fastapi import APIRouter, Response

from aspen.api.deps import Db
from aspen.api.schemas.reference import LocationDepth, LocationListResponse, LocationSearchRequest
from aspen.api.streaming import json_list
from aspen.database.models.reference import LEVELS, listed_places, nearest_places

router = APIRouter(tags=["locations"])


@router.get("/", response_model=LocationListResponse)
async def list_locations(
    db: Db, max_location_depth: LocationDepth = LocationDepth.LOCATION
) -> Response:
    """List the locations down to the given depth, in ID order."""
    # There are tens of thousands, so PostgreSQL generates the JSON, and it is streamed.
    place = listed_places(max_location_depth).subquery()
    region = sa.func.coalesce(place.c.region, "").label("region")
    part = sa.select(place.c.id, region, *(place.c[level] for level in LEVELS[1:])).subquery("part")
    made: sa.Select[tuple[str]] = sa.select(sa.literal_column("row_to_json(part)::text"))
    return await json_list(db, "locations", made.select_from(part).order_by(part.c.id))


@router.post("/search/")
async def search_locations(search: LocationSearchRequest, db: Db) -> LocationListResponse:
    """Return the locations with the names nearest to the given ones, by edit distance.

    A country or division is returned with the places directly in it, a region alone with
    locations.
    """
    typed = {level: name for level in LEVELS if (name := getattr(search, level))}
    if not typed:
        return LocationListResponse(locations=[])
    rows = (await db.execute(nearest_places(typed))).mappings().all()
    return LocationListResponse.model_validate({"locations": rows})
