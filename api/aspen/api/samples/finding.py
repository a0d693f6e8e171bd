"""Lookup of samples by name: identifiers, strains, and accession numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.arrays import batches, texts
from aspen.api.authz import Access, Action, Condition
from aspen.api.samples.naming import prefixes
from aspen.database.models import Pathogen, PublicRepositoryMetadata, Sample


def named(access: Access, pathogen: Pathogen) -> Condition:
    """Return a filter on `Sample` for the pathogen's samples that any of the ``names`` refers to.

    A private identifier matches only for users who may see it, even if they may see the sample by
    its public one: the live service confuses the two and reveals to outsiders which private
    identifiers exist.

    ``names`` is a parameter of the statement.
    """
    given = texts("names")
    by_public = sa.and_(access.samples(Action.READ), Sample.public_identifier == sa.any_(given))
    by_private = sa.and_(
        access.samples(Action.READ_PRIVATE), Sample.private_identifier == sa.any_(given)
    )
    return sa.and_(Sample.pathogen_id == pathogen.id, sa.or_(by_public, by_private))


async def unknown_names(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> list[str]:
    """Return the names that match neither a sample that the user may see nor a public strain.

    Returns:
        The names in the given order, without duplicates.
    """
    missing = dict.fromkeys(names)
    for found in (
        await sample_names(db, access, pathogen, names),
        await strains(db, pathogen, names),
    ):
        missing = {name: None for name in missing if name not in found}
    return list(missing)


async def sample_names(
    db: AsyncSession, access: Access, pathogen: Pathogen, names: Sequence[str]
) -> dict[str, int]:
    """Return the ID of the sample that each identifier refers to, if the user may see it."""
    of_pathogen = Sample.pathogen_id == pathogen.id
    found: dict[str, int] = {}
    for column, action in (
        (Sample.private_identifier, Action.READ_PRIVATE),
        (Sample.public_identifier, Action.READ),
    ):
        query = sa.select(column, Sample.id).where(
            of_pathogen, access.samples(action), column == sa.any_(texts("names"))
        )
        for some in batches(names):
            rows = await db.execute(query, {"names": some})
            found.update((name, number) for name, number in rows)
    return found


async def strains(db: AsyncSession, pathogen: Pathogen, names: Sequence[str]) -> dict[str, str]:
    """Return the strain in a public repository that each name refers to.

    Strains match with or without the repository's prefix, and by GISAID accession number
    (``EPI_ISL_...``).
    """
    beginnings = [f"{prefix}/" for prefix in await prefixes(db, pathogen)]
    source = PublicRepositoryMetadata
    found: dict[str, str] = {}
    columns: tuple[Any, ...] = (source.isl, source.strain)
    for some in batches(names):
        spelt: dict[str, list[str]] = {}
        for name in some:
            for spelling in {name, *map(name.removeprefix, beginnings)}:
                spelt.setdefault(spelling, []).append(name)
        for column in columns:
            query = sa.select(column, source.strain).where(
                source.pathogen_id == pathogen.id, column == sa.any_(texts("names"))
            )
            for spelling, strain in await db.execute(query, {"names": [*spelt]}):
                found.update((name, strain) for name in spelt[spelling])
    return found
