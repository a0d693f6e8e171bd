"""What is asked of the table of locations, by the commands and by the service alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from db.models import Location

LEVELS = ("region", "country", "division", "location")
"""The parts of a location, from the largest down."""
_COLUMNS = [getattr(Location, level) for level in LEVELS]
_NEAREST = 30
_LONGEST = 255  # what PostgreSQL's levenshtein() takes


def listed_places(deepest: str) -> sa.Select[Any]:
    """Every location that is no more exact than that level, in the order of their ids."""
    return _places().where(_no_deeper_than(deepest)).order_by(Location.id)


def nearest_places(typed: Mapping[str, str]) -> sa.Select[Any]:
    """The locations nearest to what was typed, by edit distance; the more exact, the fewer.

    A country or division comes with what lies directly in it; a region alone, with locations.

    Args:
        typed: At least one name, by its level; none of them empty.
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
    """How many letters a location's name at that level is away; a missing one is all of them."""
    known = sa.func.lower(sa.func.coalesce(getattr(Location, level), ""))
    return sa.func.levenshtein(
        sa.func.left(known, _LONGEST), sa.func.left(sa.func.lower(name), _LONGEST)
    )
