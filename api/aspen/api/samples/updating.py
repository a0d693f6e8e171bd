"""Bulk replacement of samples: all or none.

Any number of samples is locked, checked, and written in a few statements. Each gets whole columns
as arrays, since a statement is limited to 32,767 separate parameters.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.authz import Access, Action
from aspen.api.database import integers
from aspen.api.errors import ApiError
from aspen.api.samples.listing import read_written
from aspen.api.samples.naming import UNIQUE_VIOLATION, lock_countries, made_up, repository_prefix
from aspen.api.schemas.samples import UpdateSamplesBaseRequest
from aspen.database.errors import sqlstate
from aspen.database.models import Group, Pathogen, Sample, UploadedPathogenGenome

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

_HELD = """
SELECT s.id, s.submitting_group_id, s.{column}
  FROM unnest(CAST(:owners AS integer[]), CAST(:names AS varchar[])) AS n (owner, name)
  JOIN aspen.samples s ON s.submitting_group_id = n.owner AND s.{column} = n.name
"""

_NAMES = ("private_identifier", "public_identifier")
"""The columns of the names, each unique within the group that submitted the sample."""
_COLUMNS = {
    **dict.fromkeys(_NAMES, "varchar"),
    "private": "boolean",
    "collection_date": "date",
    "location_id": "integer",
}
"""The columns of a sample that can be changed, and their types; `_NAMES` first."""
_LOCATION = list(_COLUMNS).index("location_id")

_Values = tuple[str, str, bool, date | None, int | None]
"""The values of `_COLUMNS`. A plain tuple: a named one takes ten times as long to create."""
_Row = Sequence[Any]
"""The sample's ID, its group's ID and prefix, its sequence's ID, and the values of `_COLUMNS`."""


class _Change(NamedTuple):
    """A change to a sample."""

    id: int
    owner: int  # the ID of the group that submitted it
    before: _Values
    after: _Values
    genome: int | None  # the ID of its sequence, if it has one
    sequencing_date: date | None  # the new one


@dataclass(frozen=True)
class _Clash:
    """A name that samples cannot have; clients get the fields as they are."""

    field: str
    value: str
    ids: list[int]  # the samples that are to have it
    held_by: int | None = None  # the sample that has it and is not giving it up


async def update(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    wanted: Sequence[UpdateSamplesBaseRequest],
) -> list[bytes]:
    """Replace samples, and return them as JSON in pieces; the caller commits.

    Of several new values for the same sample, the last ones count. The pathogen is used only for
    the prefix of generated public identifiers.

    Raises:
        ApiError: 404 or 400 with the IDs of the invalid samples; nothing was written.
    """
    rows = {one.id: one for one in wanted}
    _check_dated(rows.values())
    changes = await _planned(db, access, pathogen, rows)
    _check_sequenced(changes)
    if clashes := list(_repeated(changes)):
        raise _not_unique([*clashes, *await _holders(db, changes)])
    await _write_unique(db, changes)
    return await read_written(db, rows)


async def _write_unique(db: AsyncSession, changes: Sequence[_Change]) -> None:
    try:
        await _write(db, changes)
    except IntegrityError as error:
        # Checking first would slow down every request for the few that fail.
        if sqlstate(error) != UNIQUE_VIOLATION:
            raise
        await db.rollback()
        raise _not_unique(await _holders(db, changes)) from error


async def _planned(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    rows: Mapping[int, UpdateSamplesBaseRequest],
) -> list[_Change]:
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
) -> _Change:
    number, owner, group, genome, *before = found
    location = wanted.collection_location or before[_LOCATION]
    public = wanted.public_identifier
    if public is None:
        public = made_up(prefix, countries.get(location), group, number)
    after = (wanted.private_identifier, public, wanted.private, wanted.collection_date, location)
    return _Change(number, owner, tuple(before), after, genome, wanted.sequencing_date)


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
            *(_SAMPLE.c[name] for name in _COLUMNS),
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
    countries = await lock_countries(db, given | held)
    if unknown := sorted(given - countries.keys()):
        ids = [row.id for row in rows.values() if row.collection_location in unknown]
        raise ApiError(400, "location is invalid", locations=unknown, ids=sorted(ids))
    return countries


def _check_dated(rows: Iterable[UpdateSamplesBaseRequest]) -> None:
    undated = sorted(row.id for row in rows if row.collection_date is None)
    if undated:
        raise ApiError(400, "collection_date is required", ids=undated)


def _check_sequenced(changes: Iterable[_Change]) -> None:
    """Check that samples with a sequencing date have a sequence, which is where it is stored."""
    lost = [one.id for one in changes if one.genome is None and one.sequencing_date]
    if lost:
        raise ApiError(400, "samples without a sequence have no sequencing_date", ids=lost)


async def _write(db: AsyncSession, changes: Sequence[_Change]) -> None:
    """Write the values that differ."""
    for place, column in enumerate(_NAMES):
        await _give_up(db, column, place, changes)
    changed = [one for one in changes if one.after != one.before]
    if changed:
        await _write_samples(db, changed)
    sequenced = [one for one in changes if one.genome is not None]
    await db.execute(
        _WRITE_SEQUENCED,
        {
            "genome": [one.genome for one in sequenced],
            "sequencing_date": [one.sequencing_date for one in sequenced],
        },
    )


async def _give_up(db: AsyncSession, column: str, place: int, changes: Iterable[_Change]) -> None:
    renamed = [one for one in changes if one.after[place] != one.before[place]]
    holders = {(one.owner, one.before[place]): one.id for one in renamed}
    taken = [holders.get((one.owner, one.after[place])) for one in renamed]
    if giving_up := [holder for holder in taken if holder is not None]:
        statement = sa.text(_GIVE_UP.format(column)).bindparams(integers("ids"))
        await db.execute(statement, {"ids": giving_up, "token": f"{uuid.uuid4()} "})


async def _write_samples(db: AsyncSession, changed: Sequence[_Change]) -> None:
    befores = zip(*[one.before for one in changed], strict=True)
    afters = zip(*[one.after for one in changed], strict=True)
    values: dict[str, Sequence[object]] = {
        column: after
        for column, before, after in zip(_COLUMNS, befores, afters, strict=True)
        if after != before
    }
    statement = _WRITE.format(
        changes=", ".join(f"{column} = n.{column}" for column in values),
        arrays=", ".join(f"CAST(:{column} AS {_COLUMNS[column]}[])" for column in values),
        columns=", ".join(values),
    )
    await db.execute(sa.text(statement), {"id": [one.id for one in changed], **values})


def _not_unique(clashes: Sequence[_Clash]) -> ApiError:
    details: list[dict[str, Any]] = [vars(clash) for clash in clashes]
    return ApiError(400, "All private and public identifiers must be unique", clashes=details)


def _repeated(changes: Sequence[_Change]) -> Iterator[_Clash]:
    """Yield the clashes between samples of the request."""
    for place, column in enumerate(_NAMES):
        wanted = [(one.owner, one.after[place]) for one in changes]
        if len({*wanted}) == len(wanted):
            continue
        claimants: dict[tuple[int, object], list[int]] = {}
        for one, key in zip(changes, wanted, strict=True):
            claimants.setdefault(key, []).append(one.id)
        for (_, name), ids in claimants.items():
            if len(ids) > 1:
                yield _Clash(column, str(name), ids)


async def _holders(db: AsyncSession, changes: Sequence[_Change]) -> list[_Clash]:
    """Return the clashes with samples outside the request."""
    found = []
    for place, column in enumerate(_NAMES):
        within = {(one.owner, one.before[place]) for one in changes}
        wanted = {(one.owner, one.after[place]): one.id for one in changes}
        outside = {key: claimant for key, claimant in wanted.items() if key not in within}
        if not outside:
            continue
        query = sa.text(_HELD.format(column=column))
        values = {"owners": [key[0] for key in outside], "names": [key[1] for key in outside]}
        for holder, owner, name in await db.execute(query, values):
            found.append(_Clash(column, name, [outside[owner, name]], holder))
    return found
