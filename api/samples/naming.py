"""Public identifiers: how they begin, and how one is made for a sample that was given none."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import ApiError
from db.models import Pathogen, PathogenRepoConfig, PublicRepository

NOWHERE = "Unknown"
"""Stands for the country in identifiers of samples that have no location."""


async def repository_prefix(
    db: AsyncSession, pathogen: Pathogen, repository: str | None = None
) -> str:
    """How public identifiers of a pathogen begin in a repository, without a slash at the end.

    Args:
        db: A session.
        pathogen: The pathogen.
        repository: The repository's name; None takes the pathogen's first one, which is GISAID
            wherever that has it.

    Raises:
        ApiError: 400, when the repository does not have the pathogen.
    """
    query = (
        sa.select(PathogenRepoConfig.prefix)
        .join(PublicRepository, PublicRepository.id == PathogenRepoConfig.public_repository_id)
        .where(PathogenRepoConfig.pathogen_id == pathogen.id)
        .order_by(PublicRepository.id)
        .limit(1)
    )
    if repository is not None:
        query = query.where(PublicRepository.name == repository)
    prefix = await db.scalar(query)
    if prefix is None:
        raise ApiError(
            400, "no prefix found for given pathogen_slug and public_repository combination"
        )
    return prefix


async def prefixes(db: AsyncSession, pathogen: Pathogen) -> list[str]:
    """How public identifiers of a pathogen begin in any repository."""
    query = sa.select(PathogenRepoConfig.prefix).where(
        PathogenRepoConfig.pathogen_id == pathogen.id
    )
    return list(await db.scalars(query))


def made_up(prefix: str, country: str | None, group_prefix: str, sample_id: int) -> str:
    """A public identifier for a sample, as ``hCoV-19/USA/CZI-4/2026``."""
    year = datetime.now(UTC).year
    return f"{prefix}/{country or NOWHERE}/{group_prefix}-{sample_id}/{year}"
