"""Locations and pathogens, read from the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspen.database.locations import listed_places, nearest_places
from aspen.database.models import Pathogen
from aspencli.remote.types import LocationQuery

_Row = dict[str, Any]


def list_locations(session: ReadSession, deepest: str) -> Iterator[_Row]:
    """Return the locations down to the given level, ordered by ID."""
    return (dict(row) for row in session.execute(listed_places(deepest)).mappings())


def search_locations(session: ReadSession, query: LocationQuery) -> Iterator[_Row]:
    """Return the locations closest in spelling, as the API does."""
    typed = {level: str(name) for level, name in query.items()}
    return (dict(row) for row in session.execute(nearest_places(typed)).mappings())


def list_pathogens(session: ReadSession) -> Iterator[dict[str, Any]]:
    """Return every pathogen, ordered by ID."""
    statement = sa.select(Pathogen.id, Pathogen.slug, Pathogen.name).order_by(Pathogen.id)
    return (dict(row) for row in session.execute(statement).mappings())
