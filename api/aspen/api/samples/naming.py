"""Public identifiers: their prefixes, and generated ones for samples that were given none."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.errors import ApiError
from aspen.database.models import Pathogen, PathogenRepoConfig, PublicRepository, Sample

GISAID, GENBANK = "GISAID", "GenBank"
NOWHERE = "Unknown"
"""The country in generated identifiers of samples without a location."""


async def repository_prefix(
    db: AsyncSession, pathogen: Pathogen, repository: str | None = None
) -> str:
    """Return the prefix of a pathogen's public identifiers in a repository, without a slash.

    Args:
        db: A session.
        pathogen: The pathogen.
        repository: The repository's name; None for the pathogen's first one, which is GISAID
            if that has the pathogen.

    Raises:
        ApiError: 400 if the repository does not have the pathogen.
    """
    query = _configured(PathogenRepoConfig.prefix, pathogen)
    if repository is not None:
        query = query.where(PublicRepository.name == repository)
    prefix: str | None = await db.scalar(query)
    if prefix is None:
        raise ApiError(
            400, "no prefix found for given pathogen_slug and public_repository combination"
        )
    return prefix


async def default_repository(db: AsyncSession, pathogen: Pathogen) -> str:
    """Return the name of the pathogen's first repository: GISAID if that has the pathogen."""
    return await db.scalar(_configured(PublicRepository.name, pathogen)) or GISAID


def _configured(column: Any, pathogen: Pathogen) -> sa.Select[Any]:
    return (
        sa.select(column)
        .select_from(PathogenRepoConfig)
        .join(PublicRepository, PublicRepository.id == PathogenRepoConfig.public_repository_id)
        .where(PathogenRepoConfig.pathogen_id == pathogen.id)
        .order_by(PublicRepository.id)
        .limit(1)
    )


async def prefixes(db: AsyncSession, pathogen: Pathogen) -> list[str]:
    """Return the prefixes of a pathogen's public identifiers in all repositories."""
    query = sa.select(PathogenRepoConfig.prefix).where(
        PathogenRepoConfig.pathogen_id == pathogen.id
    )
    return list(await db.scalars(query))


async def public_names(
    db: AsyncSession, pathogen: Pathogen, repository: str
) -> sa.ColumnElement[str]:
    """Return the public identifier of `Sample` with the prefix of a repository.

    Raises:
        ApiError: 400 if the repository does not have the pathogen.
    """
    prefix = await repository_prefix(db, pathogen, repository)
    known = "|".join(re.escape(each) for each in await prefixes(db, pathogen))
    bare = sa.func.regexp_replace(Sample.public_identifier, f"^({known})/", "")
    return sa.func.concat(prefix, "/", bare)


def dated(repository: str) -> str:
    """Return the prefix of file names for a repository, such as ``20230131_GISAID``."""
    return f"{datetime.now(UTC):%Y%m%d}_{repository}"


def fasta_filename(repository: str) -> str:
    """Return the name of the FASTA file; the repository's form refers to it."""
    return f"{dated(repository)}_sequences.fasta"


def made_up(prefix: str, country: str | None, group_prefix: str, sample_id: int) -> str:
    """Return a generated public identifier, such as ``hCoV-19/USA/CZI-4/2026``."""
    year = datetime.now(UTC).year
    return f"{prefix}/{country or NOWHERE}/{group_prefix}-{sample_id}/{year}"
