"""List the trees that UShER can place samples in, from the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from aspen.database.engine import ReadSession
from aspen.database.models import UsherOption
from aspencli.reference.lookups import find_pathogen


def list_usher_trees(session: ReadSession, slug: str) -> Iterator[dict[str, Any]]:
    """Return the pathogen's trees in the order of the API, with the default choice first.

    Raises:
        NotFoundError: The pathogen does not exist.
    """
    statement = (
        sa.select(UsherOption.id, UsherOption.description, UsherOption.value, UsherOption.priority)
        .where(UsherOption.pathogen_id == find_pathogen(session, slug).id)
        .order_by(UsherOption.priority.nulls_last(), UsherOption.id)
    )
    return (dict(row) for row in session.execute(statement).mappings())
