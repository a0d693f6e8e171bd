"""Bulk replacement of samples: all or none.

Any number of samples is locked, checked, and written in a few statements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.arrays import integers
from aspen.api.authz import Access, Action
from aspen.api.errors import ApiError
from aspen.api.samples.listing import read_written
from aspen.api.samples.names import holders, not_unique, repeated
from aspen.api.samples.naming import made_up, repository_prefix
from aspen.api.samples.writing import COLUMNS, LOCATION, Change, claims_of, write
from aspen.api.schemas.samples import UpdateSamplesBaseRequest
from aspen.database.models import Group, Location, Pathogen, Sample, UploadedPathogenGenome

_UNIQUE_VIOLATION = "23505"
# Tables, not models: the ORM would process each row again.
_SAMPLE, _GROUP = Sample.__table__, Group.__table__
_UPLOADED = UploadedPathogenGenome.__table__


_Row = Sequence[Any]
"""The sample's ID, its group's ID and prefix, its sequence's ID, and the values of `COLUMNS`."""


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
