"""What changes of samples, and how it is written: few statements, however many samples.

Each statement is handed whole columns as arrays. (A list of parameters ends at 32,767.)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import date
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from api.arrays import integers
from api.samples.names import NAMES, Claim

# That the ids are told twice has them looked up by the index; else a table of a hundred thousand
# rows is read from its beginning for ten thousand of them.
# Only what differs: to hand over and to compare a column takes as long as to write it.
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
# The unique constraints are checked row by row, so who holds a name that another sample takes has
# to give it up first. The control character keeps the name out of everybody's way.
_GIVE_UP = "UPDATE aspen.samples SET {} = chr(1) || :token || id WHERE id = ANY(:ids)"


COLUMNS = {
    **dict.fromkeys(NAMES, "varchar"),
    "private": "boolean",
    "collection_date": "date",
    "location_id": "integer",
}
"""What can be changed of a sample, and its types; `NAMES` first."""
LOCATION = list(COLUMNS).index("location_id")

Values = tuple[str, str, bool, date | None, int | None]
"""The values of `COLUMNS`. A plain tuple: one with names takes ten times as long to be made."""


class Change(NamedTuple):
    """A sample as it is, and as it shall be.

    Attributes:
        id: The sample's id.
        owner: The id of the group that submitted it.
        before: What it is.
        after: What it shall be.
        genome: The id of its sequence; None where it has none.
        sequencing_date: When that shall have been sequenced.
    """

    id: int
    owner: int
    before: Values
    after: Values
    genome: int | None
    sequencing_date: date | None


def claims_of(changes: Sequence[Change]) -> list[list[Claim]]:
    """Who shall have which name, for each of `NAMES`; none where nobody's is another."""
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
    """Write what differs.

    Args:
        db: A session that may write; the samples are locked.
        changes: The changes.
        claims: Their names (`claims_of`).

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
