"""The two names of a sample, each unique within the group that submitted it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.errors import ApiError

NAMES = ("private_identifier", "public_identifier")
"""The columns of the names."""

_HELD = """
SELECT s.id, s.submitting_group_id, s.{column}
  FROM unnest(CAST(:owners AS integer[]), CAST(:names AS varchar[])) AS n (owner, name)
  JOIN aspen.samples s ON s.submitting_group_id = n.owner AND s.{column} = n.name
"""


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
    told: list[dict[str, Any]] = [vars(clash) for clash in clashes]
    return ApiError(400, "All private and public identifiers must be unique", clashes=told)


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
