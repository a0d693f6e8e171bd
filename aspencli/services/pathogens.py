"""List pathogens from the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from db.models import Pathogen
from db.sessions import ReadSession


def list_pathogens(session: ReadSession) -> Iterator[dict[str, Any]]:
    """Return every pathogen, ordered by ID."""
    statement = sa.select(Pathogen.id, Pathogen.slug, Pathogen.name).order_by(Pathogen.id)
    return (dict(row) for row in session.execute(statement).mappings())
