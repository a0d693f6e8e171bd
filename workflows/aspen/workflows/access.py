"""The database, as steps use it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.sessions import Reader
from aspen.database.settings import Limits
from aspen.workflows.steps import StepError, Workspace

# The engine limits the time of a step. Others lock these tables for moments only.
_LIMITS = Limits(statement_ms=0, lock_ms=120_000)
_PATHOGEN = "SELECT id, nextclade_dataset_name FROM aspen.pathogens WHERE slug = :slug"
_SLUGS = "SELECT string_agg(slug, ', ' ORDER BY slug) FROM aspen.pathogens"


@contextmanager
def opened(workspace: Workspace) -> Iterator[Database]:
    """Open the database of a step; `Database.begin` writes."""
    name = f"aspen job {workspace.folder.name} {workspace.step}"
    database = Database(workspace.surroundings.database, application_name=name, limits=_LIMITS)
    try:
        yield database
    finally:
        database.dispose()


def find_pathogen(reader: Reader, slug: str) -> tuple[int, str | None]:
    """Return the ID of a pathogen, and the name of its Nextclade dataset if it has one.

    Raises:
        StepError: There is no such pathogen.
    """
    found = reader.execute(sa.text(_PATHOGEN), {"slug": slug}).one_or_none()
    if found is None:
        known = reader.execute(sa.text(_SLUGS)).scalar()
        raise StepError(f"There is no pathogen {slug!r} (known: {known}).")
    return found[0], found[1]
