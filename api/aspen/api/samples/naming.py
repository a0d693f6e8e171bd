"""Identifiers of samples: their generation, repository prefixes, and lookup of samples by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action, Condition
from aspen.api.database import batches, integers, texts
from aspen.api.errors import ApiError
from aspen.database.models import (
    Location,
    Pathogen,
    PathogenRepoConfig,
    PublicRepository,
    PublicRepositoryMetadata,
    Sample,
)

GISAID, GENBANK = "GISAID", "GenBank"
UNIQUE_VIOLATION = "23505"


async def repository_prefix(
    db: AsyncSession, pathogen: Pathogen, repository: str | None = None
) -> str:
    """Return the prefix of a pathogen's public identifiers in a repository, without a slash.

    Without a repository's name, it is the pathogen's first one, GISAID if that has the pathogen.

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


def own_names(access: Access) -> sa.ColumnElement[str]:
    """Return the identifier of `Sample` in files: the private one if it is of the path's group."""
    own = Sample.submitting_group_id == access.group.id
    return sa.case((own, Sample.private_identifier), else_=Sample.public_identifier)


def dated(repository: str) -> str:
    """Return the prefix of file names for a repository, such as ``20230131_GISAID``."""
    return f"{datetime.now(UTC):%Y%m%d}_{repository}"


def fasta_filename(repository: str) -> str:
    """Return the name of the FASTA file; the repository's form refers to it."""
    return f"{dated(repository)}_sequences.fasta"


def made_up(prefix: str, country: str | None, group_prefix: str, sample_id: int) -> str:
    """Return a generated public identifier, such as ``hCoV-19/USA/CZI-4/2026``."""
    year = datetime.now(UTC).year
    return f"{prefix}/{country or 'Unknown'}/{group_prefix}-{sample_id}/{year}"


async def lock_countries(
    db: AsyncSession, locations: Iterable[int]
) -> dict[int | None, str | None]:
    """Return the country of each location that exists; lock the locations against deletion."""
    query = (
        sa.select(Location.id, sa.func.coalesce(Location.country, Location.region))
        .where(Location.id == sa.any_(integers("locations")))
        .with_for_update(read=True, key_share=True)
    )
    return dict((await db.execute(query, {"locations": [*locations]})).all())


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
    """Return the names, each once, that are of no sample that the user may see and no strain."""
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
