"""Locations: all of them, or those whose names are nearest to what was typed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncSession

from api.deps import Db
from api.schemas.locations import LocationDepth, LocationListResponse, LocationSearchRequest
from db.models import Location

router = APIRouter(tags=["locations"])

_LEVELS = ("region", "country", "division", "location")
_COLUMNS = [getattr(Location, level) for level in _LEVELS]
_NEAREST = 30
_LONGEST = 255  # what PostgreSQL's levenshtein() takes


@router.get("/")
async def list_locations(
    db: Db, max_location_depth: LocationDepth = LocationDepth.LOCATION
) -> LocationListResponse:
    """Every location that is no more exact than that, in the order of their ids."""
    return await _answer(db, _no_deeper_than(max_location_depth), [Location.id])


@router.post("/search/")
async def search_locations(search: LocationSearchRequest, db: Db) -> LocationListResponse:
    """The locations nearest to what was typed, by edit distance; the more exact, the fewer.

    A place above the level of locations comes with what lies directly in it.
    """
    typed = {level: name for level in _LEVELS if (name := getattr(search, level))}
    if not typed:
        return LocationListResponse(locations=[])
    distance = sum(_distance(level, name) for level, name in typed.items())
    depth = max(map(_LEVELS.index, typed))
    if depth == _LEVELS.index("location"):
        named = Location.location.is_not(None)
        return await _answer(db, named, [distance, *_COLUMNS, Location.id], _NEAREST)
    path, inner = _COLUMNS[: depth + 1], _LEVELS[depth + 1]
    query = sa.select(*path).where(path[-1].is_not(None))
    nearest = (await db.execute(query.order_by(distance, *path).limit(1))).one_or_none()
    if nearest is None:
        return LocationListResponse(locations=[])
    inside = sa.and_(
        _no_deeper_than(LocationDepth(inner)),
        *(column.is_not_distinct_from(name) for column, name in zip(path, nearest, strict=True)),
    )
    return await _answer(db, inside, [_COLUMNS[depth + 1].nulls_first(), Location.id])


def _no_deeper_than(depth: LocationDepth) -> sa.ColumnElement[bool]:
    deeper = _COLUMNS[_LEVELS.index(depth) + 1 :]
    return sa.and_(sa.true(), *(column.is_(None) for column in deeper))


def _distance(level: str, name: str) -> Any:
    """How many letters a location's name at that level is away; a missing one is all of them."""
    known = sa.func.lower(sa.func.coalesce(getattr(Location, level), ""))
    return sa.func.levenshtein(
        sa.func.left(known, _LONGEST), sa.func.left(sa.func.lower(name), _LONGEST)
    )


async def _answer(
    db: AsyncSession, condition: Any, order: list[Any], limit: int | None = None
) -> LocationListResponse:
    query = sa.select(Location.id, *_COLUMNS).where(condition).order_by(*order).limit(limit)
    rows = (await db.execute(query)).mappings().all()
    return LocationListResponse.model_validate({"locations": rows})
