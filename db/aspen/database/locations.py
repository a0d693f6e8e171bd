"""Queries on the table of locations, shared by the commands and the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from aspen.database.models import Location

LEVELS = ("region", "country", "division", "location")
"""The parts of a location, from largest to smallest."""
_COLUMNS = [getattr(Location, level) for level in LEVELS]
_NEAREST = 30
_LONGEST = 255  # the maximum length for PostgreSQL's levenshtein()


def listed_places(deepest: str) -> sa.Select[Any]:
    """Return a query for all locations no more specific than a level, ordered by ID."""
    return _places().where(_no_deeper_than(deepest)).order_by(Location.id)


def nearest_places(typed: Mapping[str, str]) -> sa.Select[Any]:
    """Return a query for the locations nearest to what was typed, by edit distance.

    A country or division comes with what is directly in it; a region alone, with locations.

    Args:
        typed: At least one name, by level; none of them empty.
    """
    distance = sum(_distance(level, name) for level, name in typed.items())
    depth = max(map(LEVELS.index, typed)) or LEVELS.index("location")
    path = _COLUMNS[: depth + 1]
    if depth == LEVELS.index("location"):
        order = [distance, *path, Location.id]
        return _places().where(path[-1].is_not(None)).order_by(*order).limit(_NEAREST)
    inner = LEVELS[depth + 1]
    nearest = (
        sa.select(*path)
        .where(path[-1].is_not(None))
        .order_by(distance, *path)
        .limit(1)
        .cte("nearest")
    )
    same = (column.is_not_distinct_from(nearest.c[column.name]) for column in path)
    return (
        _places()
        .join(nearest, sa.and_(*same))
        .where(_no_deeper_than(inner))
        .order_by(getattr(Location, inner).nulls_first(), Location.id)
    )


def _places() -> sa.Select[Any]:
    return sa.select(Location.id, *_COLUMNS)


def _no_deeper_than(level: str) -> sa.ColumnElement[bool]:
    deeper = _COLUMNS[LEVELS.index(level) + 1 :]
    return sa.and_(sa.true(), *(column.is_(None) for column in deeper))


def _distance(level: str, name: str) -> Any:
    """Return the edit distance of a location's name at a level; a missing name counts as empty."""
    known = sa.func.lower(sa.func.coalesce(getattr(Location, level), ""))
    return sa.func.levenshtein(
        sa.func.left(known, _LONGEST), sa.func.left(sa.func.lower(name), _LONGEST)
    )
