"""The list of samples, read without the models."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from aspen.database.cancel import cancellable, read_ahead
from aspen.database.tables import GROUPS, LOCATIONS, PATHOGENS, PLACE, SAMPLES, USERS, holds
from aspencli.reference.database import find_group, find_pathogen
from aspencli.samples.models import SampleQuery, SampleRow, SampleSort, nothing_behind

if TYPE_CHECKING:
    from aspen.database.sessions import Reader

BATCH = 1_000
"""Rows fetched at a time; the rest stays on the server."""
_SAMPLE = SAMPLES.c


class SampleList:
    """The samples that match a query; the reader must stay open while rows are read.

    Raises:
        NotFoundError: The group, the pathogen, or the sample to continue after does not exist.
        BadInputError: The dates are in the wrong order, or the group is ambiguous.
    """

    def __init__(self, reader: Reader, query: SampleQuery):
        self._reader = reader
        self._query = query
        self._conditions = [*_conditions(reader, query), *_behind(reader, query)]
        self._found: int | None = None

    def rows(self, limit: int | None = None) -> Generator[Any, None, None]:
        """Yield the rows in constant memory; all of them if there is no limit.

        They are `SampleRow` or rows of the driver, which have the same fields.
        """
        statement = self._statement(limit)
        # Not through a session, whose handling of each column takes 2 s for a million rows.
        reader = self._reader
        connection = reader if isinstance(reader, sa.Connection) else reader.connection()
        if limit is None or limit > BATCH:
            found = cancellable(
                connection,
                lambda: connection.execute(statement, execution_options={"yield_per": BATCH}),
            )
            with closing(read_ahead(connection, found.partitions())) as parts:
                for part in parts:
                    yield from part
            return
        # For a few rows, the round trips of a server-side cursor and of a count would take longer.
        counted = statement.add_columns(self._total.correlate(None).scalar_subquery())
        for *fields, total in cancellable(connection, lambda: connection.execute(counted).all()):
            self._found = total
            yield SampleRow(*fields)

    def _statement(self, limit: int | None) -> sa.Select[Any]:
        return (
            sa.select(
                _SAMPLE.id,
                _SAMPLE.private_identifier,
                _SAMPLE.public_identifier,
                GROUPS.c.name.label("group"),
                PATHOGENS.c.slug.label("pathogen"),
                _SAMPLE.collection_date,
                PLACE.label("location"),
                _SAMPLE.private,
                USERS.c.name.label("uploaded_by"),
            )
            .select_from(SAMPLES)
            .join(GROUPS, GROUPS.c.id == _SAMPLE.submitting_group_id)
            .join(PATHOGENS, PATHOGENS.c.id == _SAMPLE.pathogen_id)
            .join(USERS, USERS.c.id == _SAMPLE.uploaded_by_id)
            .outerjoin(LOCATIONS, LOCATIONS.c.id == _SAMPLE.location_id)
            .where(*self._conditions)
            .order_by(*_order(self._query))
            .limit(limit)
        )

    def count(self) -> int:
        """Return the total number of matches."""
        found = self._found
        return self._reader.scalar(self._total) or 0 if found is None else found

    @property
    def _total(self) -> sa.Select[Any]:
        return sa.select(sa.func.count()).select_from(SAMPLES).where(*self._conditions)


def _conditions(reader: Reader, query: SampleQuery) -> Iterator[sa.ColumnElement[bool]]:
    query.check()
    first, last = query.collected_after, query.collected_before
    if query.group is not None:
        yield _SAMPLE.submitting_group_id == find_group(reader, query.group).id
    if query.pathogen is not None:
        yield _SAMPLE.pathogen_id == find_pathogen(reader, query.pathogen).id
    if query.private is not None:
        yield _SAMPLE.private.is_(query.private)
    if first:
        yield _SAMPLE.collection_date >= first
    if last:
        yield _SAMPLE.collection_date <= last
    if query.location is not None:
        places = sa.select(LOCATIONS.c.id).where(holds(PLACE, query.location))
        yield _SAMPLE.location_id.in_(places)
    if query.search is not None:
        yield sa.or_(
            holds(_SAMPLE.private_identifier, query.search),
            holds(_SAMPLE.public_identifier, query.search),
        )


def _behind(reader: Reader, query: SampleQuery) -> Iterator[sa.ColumnElement[bool]]:
    """Yield a keyset condition, so that concurrent changes neither skip nor repeat rows."""
    if query.after is None:
        return
    column = _SAMPLE[query.sort.value]
    place = reader.execute(sa.select(column, _SAMPLE.id).where(_SAMPLE.id == query.after)).first()
    if place is None:
        raise nothing_behind(query.after)
    here = sa.tuple_(column, _SAMPLE.id)
    there = sa.tuple_(*(sa.literal(value) for value in place))
    yield here < there if query.reverse else here > there


def _order(query: SampleQuery) -> list[sa.ColumnElement[Any]]:
    keys: list[sa.ColumnElement[Any]] = [_SAMPLE[query.sort.value]]
    if query.sort is not SampleSort.ID:
        keys.append(_SAMPLE.id)
    return [key.desc() if query.reverse else key.asc() for key in keys]
