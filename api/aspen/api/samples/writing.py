"""Changes to samples, written in a few statements for any number of samples.

Each statement gets whole columns as arrays, since it is limited to 32,767 separate parameters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.arrays import integers
from aspen.api.samples.names import NAMES, Claim

# The second condition on the IDs makes PostgreSQL use the index; otherwise, it scans a table of
# 100,000 rows to find 10,000 of them.
# Only changed columns are passed: passing and comparing a column takes as long as writing it.
_WRITE = """
UPDATE aspen.samples s SET {changes}
  FROM unnest(CAST(:id AS integer[]), {arrays}) AS n (id, {columns})
 WHERE s.id = n.id AND s.id = ANY(:id)
"""
_WRITE_SEQUENCED = sa.text("""
UPDATE aspen.pathogen_genomes g SET sequencing_date = n.sequencing_date
  FROM unnest(CAST(:genome AS integer[]), CAST(:sequencing_date AS date[]))
       AS n (genome, sequencing_date)
 WHERE g.entity_id = n.genome AND g.entity_id = ANY(:genome)
   AND g.sequencing_date IS DISTINCT FROM n.sequencing_date
""")
# Unique constraints are checked row by row, so a sample must first give up a name that another
# one takes. The control character keeps the temporary name from clashing with real ones.
_GIVE_UP = "UPDATE aspen.samples SET {} = chr(1) || :token || id WHERE id = ANY(:ids)"


COLUMNS = {
    **dict.fromkeys(NAMES, "varchar"),
    "private": "boolean",
    "collection_date": "date",
    "location_id": "integer",
}
"""The columns of a sample that can be changed, and their types; `NAMES` first."""
LOCATION = list(COLUMNS).index("location_id")

Values = tuple[str, str, bool, date | None, int | None]
"""The values of `COLUMNS`. A plain tuple: a named one takes ten times as long to create."""


class Change(NamedTuple):
    """A change to a sample.

    Attributes:
        id: The sample's ID.
        owner: The ID of the group that submitted it.
        before: The current values.
        after: The new values.
        genome: The ID of its sequence; None if it has none.
        sequencing_date: The new sequencing date.
    """

    id: int
    owner: int
    before: Values
    after: Values
    genome: int | None
    sequencing_date: date | None


def claims_of(changes: Sequence[Change]) -> list[list[Claim]]:
    """Return the claims for each of `NAMES`, which are empty if no sample's name changes."""
    return [_claims(changes, name) for name in range(len(NAMES))]


def _claims(changes: Sequence[Change], name: int) -> list[Claim]:
    befores = [one.before[name] for one in changes]
    afters = [one.after[name] for one in changes]
    if befores == afters:
        return []
    return [
        Claim(one.id, one.owner, str(before), str(after))
        for one, before, after in zip(changes, befores, afters, strict=True)
    ]


async def write(
    db: AsyncSession, changes: Sequence[Change], claims: Sequence[Sequence[Claim]]
) -> None:
    """Write the values that differ.

    Args:
        db: A writable session in which the samples are locked.
        changes: The changes.
        claims: The claims of the changes (`claims_of`).

    Raises:
        IntegrityError: Another sample has one of the names.
    """
    for column, wanted in zip(NAMES, claims, strict=True):
        await _give_up(db, column, wanted)
    changed = [one for one in changes if one.after != one.before]
    if changed:
        await _write(db, changed)
    sequenced = [one for one in changes if one.genome is not None]
    await db.execute(
        _WRITE_SEQUENCED,
        {
            "genome": [one.genome for one in sequenced],
            "sequencing_date": [one.sequencing_date for one in sequenced],
        },
    )


async def _give_up(db: AsyncSession, column: str, claims: Iterable[Claim]) -> None:
    new = [claim for claim in claims if claim.is_new]
    before = {(claim.owner, claim.before): claim.id for claim in new}
    taken = [before.get((claim.owner, claim.after)) for claim in new]
    if giving_up := [holder for holder in taken if holder is not None]:
        statement = sa.text(_GIVE_UP.format(column)).bindparams(integers("ids"))
        await db.execute(statement, {"ids": giving_up, "token": f"{uuid.uuid4()} "})


async def _write(db: AsyncSession, changed: Sequence[Change]) -> None:
    befores = zip(*[one.before for one in changed], strict=True)
    afters = zip(*[one.after for one in changed], strict=True)
    values: dict[str, Sequence[object]] = {
        column: after
        for column, before, after in zip(COLUMNS, befores, afters, strict=True)
        if after != before
    }
    statement = _WRITE.format(
        changes=", ".join(f"{column} = n.{column}" for column in values),
        arrays=", ".join(f"CAST(:{column} AS {COLUMNS[column]}[])" for column in values),
        columns=", ".join(values),
    )
    await db.execute(sa.text(statement), {"id": [one.id for one in changed], **values})
