"""Bulk replacement of samples: all or none.

Any number of samples is locked, checked, and written in a few statements. Each gets whole columns
as arrays, since a statement is limited to 32,767 separate parameters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.arrays import integers
from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.api.samples.listing import read_written
from aspen.api.samples.naming import (
    NAMES,
    Claim,
    holders,
    made_up,
    not_unique,
    repeated,
    repository_prefix,
)
from aspen.api.schemas.samples import UpdateSamplesBaseRequest
from aspen.database.models import Group, Location, Pathogen, Sample, UploadedPathogenGenome

_UNIQUE_VIOLATION = "23505"
# Tables, not models: the ORM would process each row again.
_SAMPLE, _GROUP = Sample.__table__, Group.__table__
_UPLOADED = UploadedPathogenGenome.__table__

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

_Row = Sequence[Any]
"""The sample's ID, its group's ID and prefix, its sequence's ID, and the values of `COLUMNS`."""


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


async def update(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    wanted: Sequence[UpdateSamplesBaseRequest],
) -> list[bytes]:
    """Replace samples; the caller commits.

    Args:
        db: A writable session.
        access: The user's permissions.
        pathogen: The pathogen, used only for the prefix of generated public identifiers.
        wanted: The new values; of several with the same ID, the last one counts.

    Returns:
        The updated samples as JSON in pieces.

    Raises:
        ApiError: 404 or 400 with the IDs of the invalid samples; nothing was written.
    """
    rows = {one.id: one for one in wanted}
    _check_dated(rows.values())
    changes = await _planned(db, access, pathogen, rows)
    _check_sequenced(changes)
    claims = claims_of(changes)
    if clashes := list(repeated(claims)):
        raise not_unique([*clashes, *await holders(db, claims)])
    try:
        await write(db, changes, claims)
    except IntegrityError as error:
        # Checking first would slow down every request for the few that fail.
        if getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION:
            raise
        await db.rollback()
        raise not_unique(await holders(db, claims)) from error
    return await read_written(db, rows)


async def _planned(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    rows: Mapping[int, UpdateSamplesBaseRequest],
) -> list[Change]:
    """Lock the samples and return their changes."""
    found = await _locked(db, access, rows)
    if len(found) < len(rows):
        missing = sorted(rows.keys() - {row[0] for row in found})
        raise ApiError(404, "some samples cannot be updated", ids=missing)
    countries = await _countries(db, rows, found)
    prefix = ""
    if any(row.public_identifier is None for row in rows.values()):
        prefix = await repository_prefix(db, pathogen)
    return [_change(row, rows[row[0]], prefix, countries) for row in found]


def _change(
    found: _Row,
    wanted: UpdateSamplesBaseRequest,
    prefix: str,
    countries: Mapping[int | None, str | None],
) -> Change:
    number, owner, group, genome, *before = found
    location = wanted.collection_location or before[LOCATION]
    public = wanted.public_identifier
    if public is None:
        public = made_up(prefix, countries.get(location), group, number)
    after = (wanted.private_identifier, public, wanted.private, wanted.collection_date, location)
    return Change(number, owner, tuple(before), after, genome, wanted.sequencing_date)


async def _locked(db: AsyncSession, access: Access, ids: Iterable[int]) -> Sequence[_Row]:
    """Lock and return the samples that the user may change, in order of ID.

    All requests lock in that order, so that two of them cannot deadlock.
    """
    those = sa.any_(integers("ids"))
    uploaded = sa.and_(_UPLOADED.c.sample_id == _SAMPLE.c.id, _UPLOADED.c.sample_id == those)
    query = (
        sa.select(
            _SAMPLE.c.id,
            _SAMPLE.c.submitting_group_id,
            _GROUP.c.prefix,
            _UPLOADED.c.pathogen_genome_id,
            *(_SAMPLE.c[name] for name in COLUMNS),
        )
        .join(_GROUP, _GROUP.c.id == _SAMPLE.c.submitting_group_id)
        .outerjoin(_UPLOADED, uploaded)
        .where(access.samples(Action.WRITE), _SAMPLE.c.id == those)
        .order_by(_SAMPLE.c.id)
        .with_for_update(of=_SAMPLE)
    )
    # Run on the connection: a session would pass even table rows through the ORM.
    return (await (await db.connection()).execute(query, {"ids": [*ids]})).all()


async def _countries(
    db: AsyncSession,
    rows: Mapping[int, UpdateSamplesBaseRequest],
    found: Iterable[_Row],
) -> dict[int | None, str | None]:
    """Return the country of each location of the samples; lock the locations against deletion."""
    given = {row.collection_location for row in rows.values()} - {0}
    held = {row[-1] for row in found} - {None}
    query = (
        sa.select(Location.id, sa.func.coalesce(Location.country, Location.region))
        .where(Location.id == sa.any_(integers("locations")))
        .with_for_update(read=True, key_share=True)
    )
    countries: dict[int | None, str | None] = dict(
        (await db.execute(query, {"locations": [*(given | held)]})).all()
    )
    if unknown := sorted(given - countries.keys()):
        ids = [row.id for row in rows.values() if row.collection_location in unknown]
        raise ApiError(400, "location is invalid", locations=unknown, ids=sorted(ids))
    return countries


def _check_dated(rows: Iterable[UpdateSamplesBaseRequest]) -> None:
    undated = sorted(row.id for row in rows if row.collection_date is None)
    if undated:
        raise ApiError(400, "collection_date is required", ids=undated)


def _check_sequenced(changes: Iterable[Change]) -> None:
    """Check that samples with a sequencing date have a sequence, which is where it is stored."""
    lost = [one.id for one in changes if one.genome is None and one.sequencing_date]
    if lost:
        raise ApiError(400, "samples without a sequence have no sequencing_date", ids=lost)


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
