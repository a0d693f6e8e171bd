"""Many samples replaced at once: all, or none.

Whatever their number, they are locked, checked and written in a few statements, each of which is
handed whole columns as arrays. (A list of parameters ends at 32,767.)
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from api.authz import Access, Action
from api.errors import ApiError
from api.samples.listing import written
from api.samples.names import NAMES, Claim, holders, not_unique, repeated
from api.samples.naming import made_up, repository_prefix
from api.schemas.samples import UpdateSamplesBaseRequest
from api.streaming import joined
from db.models import Group, Location, Pathogen, Sample, UploadedPathogenGenome

_UNIQUE_VIOLATION = "23505"
_UPLOADED = UploadedPathogenGenome.__table__

_WRITE = sa.text("""
UPDATE aspen.samples s
   SET private_identifier = n.private_identifier, public_identifier = n.public_identifier,
       private = n.private, collection_date = n.collection_date, location_id = n.location_id
  FROM unnest(CAST(:id AS integer[]), CAST(:private_identifier AS varchar[]),
              CAST(:public_identifier AS varchar[]), CAST(:private AS boolean[]),
              CAST(:collection_date AS date[]), CAST(:location_id AS integer[]))
       AS n (id, private_identifier, public_identifier, private, collection_date, location_id)
 WHERE s.id = n.id
   AND (s.private_identifier, s.public_identifier, s.private, s.collection_date, s.location_id)
       IS DISTINCT FROM
       (n.private_identifier, n.public_identifier, n.private, n.collection_date, n.location_id)
""")
_WRITE_SEQUENCED = sa.text("""
UPDATE aspen.pathogen_genomes g SET sequencing_date = n.sequencing_date
  FROM unnest(CAST(:genome AS integer[]), CAST(:sequencing_date AS date[]))
       AS n (genome, sequencing_date)
 WHERE g.entity_id = n.genome AND g.sequencing_date IS DISTINCT FROM n.sequencing_date
""")
# The unique constraints are checked row by row, so who holds a name that another sample takes has
# to give it up first. The control character keeps the name out of everybody's way.
_GIVE_UP = "UPDATE aspen.samples SET {} = chr(1) || :token || id WHERE id = ANY(:ids)"


@dataclass(frozen=True, slots=True)
class Change:
    """A sample as it is, and as it shall be.

    Attributes:
        owner: The id of the group that submitted it.
        before: Its names (`NAMES`) as they are.
        after: Its names as they shall be.
        location: Where it shall be from; None where that is not known.
        genome: The id of its sequence; None where it has none.
        wanted: What was asked for.
    """

    owner: int
    before: tuple[str, ...]
    after: tuple[str, ...]
    location: int | None
    genome: int | None
    wanted: UpdateSamplesBaseRequest

    @property
    def id(self) -> int:
        """The sample's id."""
        return self.wanted.id


async def update(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    wanted: Sequence[UpdateSamplesBaseRequest],
) -> bytes:
    """Replace samples; the caller commits.

    Args:
        db: A session that may write.
        access: Who asks.
        pathogen: Decides how made-up public identifiers begin, and nothing else.
        wanted: What the samples shall be; of several with the same id the last counts.

    Returns:
        The answer: the samples as they are now, as JSON.

    Raises:
        ApiError: 404 or 400, with the samples that are to blame; nothing was written.
    """
    rows = {one.id: one for one in wanted}
    _check_dated(rows.values())
    changes = await _planned(db, access, pathogen, rows)
    _check_sequenced(changes)
    claims = _claims(changes)
    if clashes := [*repeated(claims), *await holders(db, claims)]:
        raise not_unique(clashes)
    try:
        await _write(db, changes, claims)
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION:
            raise
        # Somebody was quicker.
        await db.rollback()
        raise not_unique(await holders(db, claims)) from error
    query = written().where(Sample.id == sa.any_(integers(rows)))
    return b'{"samples":[%b]}' % joined(list(await db.scalars(query)))


async def _planned(
    db: AsyncSession,
    access: Access,
    pathogen: Pathogen,
    rows: Mapping[int, UpdateSamplesBaseRequest],
) -> list[Change]:
    """What changes; the samples are locked."""
    found = await _locked(db, access, rows)
    if len(found) < len(rows):
        missing = sorted(rows.keys() - {row.id for row in found})
        raise ApiError(404, "some samples cannot be updated", ids=missing)
    countries = await _countries(db, rows, found)
    prefix = ""
    if any(row.public_identifier is None for row in rows.values()):
        prefix = await repository_prefix(db, pathogen)
    changes = []
    for row in found:
        wanted = rows[row.id]
        location = wanted.collection_location or row.location_id
        public = wanted.public_identifier
        if public is None:
            public = made_up(prefix, countries.get(location), row.prefix, row.id)
        changes.append(
            Change(
                row.submitting_group_id,
                (row.private_identifier, row.public_identifier),
                (wanted.private_identifier, public),
                location,
                row.pathogen_genome_id,
                wanted,
            )
        )
    return changes


async def _locked(
    db: AsyncSession, access: Access, ids: Iterable[int]
) -> Sequence[sa.Row[tuple[int, int, str, str, int | None, str, int | None]]]:
    """The samples of these ids that the user may change, in the order of the ids.

    Everybody locks them in that order, so that two requests wait for each other only one way.
    """
    query = (
        sa.select(
            Sample.id,
            Sample.submitting_group_id,
            Sample.private_identifier,
            Sample.public_identifier,
            Sample.location_id,
            Group.prefix,
            _UPLOADED.c.pathogen_genome_id,
        )
        .join(Group, Group.id == Sample.submitting_group_id)
        .outerjoin(_UPLOADED, _UPLOADED.c.sample_id == Sample.id)
        .where(access.samples(Action.WRITE), Sample.id == sa.any_(integers(ids)))
        .order_by(Sample.id)
        .with_for_update(of=Sample)
    )
    return (await db.execute(query)).all()


async def _countries(
    db: AsyncSession,
    rows: Mapping[int, UpdateSamplesBaseRequest],
    found: Iterable[sa.Row[tuple[int, int, str, str, int | None, str, int | None]]],
) -> dict[int | None, str | None]:
    """The country of each location that the samples shall have; the locations are there to stay."""
    given = {row.collection_location for row in rows.values() if row.collection_location}
    held = {row.location_id for row in found if row.location_id is not None}
    query = (
        sa.select(Location.id, sa.func.coalesce(Location.country, Location.region))
        .where(Location.id == sa.any_(integers(given | held)))
        .with_for_update(read=True, key_share=True)
    )
    countries: dict[int | None, str | None] = dict((await db.execute(query)).all())
    if unknown := sorted(given - countries.keys()):
        ids = [row.id for row in rows.values() if row.collection_location in unknown]
        raise ApiError(400, "location is invalid", locations=unknown, ids=sorted(ids))
    return countries


def _check_dated(rows: Iterable[UpdateSamplesBaseRequest]) -> None:
    undated = sorted(row.id for row in rows if row.collection_date is None)
    if undated:
        raise ApiError(400, "collection_date is required", ids=undated)


def _check_sequenced(changes: Iterable[Change]) -> None:
    """The date of sequencing is kept with the sequence; without one it would be lost."""
    lost = [one.id for one in changes if one.genome is None and one.wanted.sequencing_date]
    if lost:
        raise ApiError(400, "samples without a sequence have no sequencing_date", ids=lost)


def _claims(changes: Iterable[Change]) -> list[list[Claim]]:
    """Who shall have which name, for each of `NAMES`."""
    return [
        [Claim(one.id, one.owner, one.before[n], one.after[n]) for one in changes]
        for n in range(len(NAMES))
    ]


async def _write(
    db: AsyncSession, changes: Sequence[Change], claims: Sequence[Sequence[Claim]]
) -> None:
    for column, wanted in zip(NAMES, claims, strict=True):
        before = {(claim.owner, claim.before): claim.id for claim in wanted}
        taken = [before.get((claim.owner, claim.after)) for claim in wanted if claim.is_new]
        if giving_up := [holder for holder in taken if holder is not None]:
            statement = sa.text(_GIVE_UP.format(column)).bindparams(
                sa.bindparam("ids", giving_up, ARRAY(sa.Integer)), token=f"{uuid.uuid4()} "
            )
            await db.execute(statement)
    await db.execute(
        _WRITE,
        {
            "id": [one.id for one in changes],
            "private_identifier": [one.after[0] for one in changes],
            "public_identifier": [one.after[1] for one in changes],
            "private": [one.wanted.private for one in changes],
            "collection_date": [one.wanted.collection_date for one in changes],
            "location_id": [one.location for one in changes],
        },
    )
    sequenced = [one for one in changes if one.genome is not None]
    dates: list[date | None] = [one.wanted.sequencing_date for one in sequenced]
    await db.execute(
        _WRITE_SEQUENCED,
        {"genome": [one.genome for one in sequenced], "sequencing_date": dates},
    )


def integers(ids: Iterable[int]) -> sa.BindParameter[Sequence[int]]:
    """One parameter, however many they are."""
    return sa.literal(list(ids), ARRAY(sa.Integer))
