"""Private and public identifiers of samples: repository prefixes, generation, and uniqueness.

Each identifier is unique within the group that submitted the sample.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.errors import ApiError
from aspen.database.models import Pathogen, PathogenRepoConfig, PublicRepository, Sample

GISAID, GENBANK = "GISAID", "GenBank"
NOWHERE = "Unknown"
"""The country in generated identifiers of samples without a location."""

NAMES = ("private_identifier", "public_identifier")
"""The columns of the names."""

_HELD = """
SELECT s.id, s.submitting_group_id, s.{column}
  FROM unnest(CAST(:owners AS integer[]), CAST(:names AS varchar[])) AS n (owner, name)
  JOIN aspen.samples s ON s.submitting_group_id = n.owner AND s.{column} = n.name
"""


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


class Claim(NamedTuple):
    """The current and the new name of a sample.

    Attributes:
        id: The sample's ID.
        owner: The ID of its group.
        before: The current name.
        after: The new name.
    """

    id: int
    owner: int
    before: str
    after: str

    @property
    def is_new(self) -> bool:
        """Return True if the name changes."""
        return self.after != self.before


@dataclass(frozen=True)
class Clash:
    """A name that samples cannot have.

    Attributes:
        field: The column of the name, one of `NAMES`.
        value: The name.
        ids: The samples that claim it.
        held_by: The sample that has it and is not giving it up.
    """

    field: str
    value: str
    ids: list[int]
    held_by: int | None = None


def not_unique(clashes: Sequence[Clash]) -> ApiError:
    """Return the error that lists clashes."""
    details: list[dict[str, Any]] = [vars(clash) for clash in clashes]
    return ApiError(400, "All private and public identifiers must be unique", clashes=details)


def repeated(claims: Sequence[Sequence[Claim]]) -> Iterator[Clash]:
    """Yield the clashes between samples of a request, given the claims for each of `NAMES`."""
    for column, wanted in zip(NAMES, claims, strict=True):
        if len({(claim.owner, claim.after) for claim in wanted}) == len(wanted):
            continue
        claimants: dict[tuple[int, str], list[int]] = {}
        for claim in wanted:
            claimants.setdefault((claim.owner, claim.after), []).append(claim.id)
        for (_, name), ids in claimants.items():
            if len(ids) > 1:
                yield Clash(column, name, ids)


async def holders(db: AsyncSession, claims: Sequence[Sequence[Claim]]) -> list[Clash]:
    """Return the clashes with samples outside a request, given the claims for each of `NAMES`."""
    found = []
    for column, wanted in zip(NAMES, claims, strict=True):
        within = {(claim.owner, claim.before) for claim in wanted}
        new = {(c.owner, c.after): c.id for c in wanted if c.is_new}
        outside = {key: claimant for key, claimant in new.items() if key not in within}
        if not outside:
            continue
        query = sa.text(_HELD.format(column=column))
        values = {"owners": [key[0] for key in outside], "names": [key[1] for key in outside]}
        for holder, owner, name in await db.execute(query, values):
            found.append(Clash(column, name, [outside[owner, name]], holder))
    return found
