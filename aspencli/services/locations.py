"""Locations read from the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aspencli.shapes import LocationQuery
from db.places import listed_places, nearest_places
from db.sessions import ReadSession

_Row = dict[str, Any]


def list_locations(session: ReadSession, deepest: str) -> Iterator[_Row]:
    """Return the locations down to the given level, ordered by ID."""
    return (dict(row) for row in session.execute(listed_places(deepest)).mappings())


def search_locations(session: ReadSession, query: LocationQuery) -> Iterator[_Row]:
    """Return the locations closest in spelling, as the API does."""
    typed = {level: str(name) for level, name in query.items()}
    return (dict(row) for row in session.execute(nearest_places(typed)).mappings())
