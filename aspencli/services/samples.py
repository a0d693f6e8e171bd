"""List any number of samples from the database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from aspencli.services.lookups import PLACE, find_group, find_pathogen
from aspencli.services.sample_fields import SampleSort
from aspencli.services.sample_rows import SampleQuery, SampleRow, nothing_behind
from db.models import Group, Location, Pathogen, Sample, User
from db.sessions import ReadSession

_BATCH = 2_000  # rows fetched at a time; the rest stays on the server


class SampleList:
    """The samples that match a query.

    Args:
        session: The database session; it must stay open while rows are read.
        query: The filter and the order.

    Raises:
        NotFoundError: The group, the pathogen, or the sample to continue after does not exist.
        BadInputError: The dates are in the wrong order, or the group is ambiguous.
    """

    def __init__(self, session: ReadSession, query: SampleQuery):
        self._session = session
        self._query = query
        self._conditions = [*_conditions(session, query), *_behind(session, query)]

    def rows(self, limit: int | None = None) -> Iterator[SampleRow]:
        """Yield the rows in constant memory; all of them if there is no limit."""
        statement = (
            sa.select(
                Sample.id,
                Sample.private_identifier,
                Sample.public_identifier,
                Group.name,
                Pathogen.slug,
                Sample.collection_date,
                PLACE,
                Sample.private,
                User.name,
            )
            .join(Sample.submitting_group)
            .join(Sample.pathogen)
            .join(Sample.uploaded_by)
            .outerjoin(Location, Location.id == Sample.location_id)
            .where(*self._conditions)
            .order_by(*_order(self._query))
            .limit(limit)
        )
        for row in self._session.execute(statement, execution_options={"yield_per": _BATCH}):
            yield SampleRow(*row)

    def count(self) -> int:
        """Return the total number of matches."""
        statement = sa.select(sa.func.count()).select_from(Sample).where(*self._conditions)
        return self._session.scalar(statement) or 0


def _conditions(session: ReadSession, query: SampleQuery) -> Iterator[sa.ColumnElement[bool]]:
    query.check()
    first, last = query.collected_after, query.collected_before
    if query.group is not None:
        yield Sample.submitting_group_id == find_group(session, query.group).id
    if query.pathogen is not None:
        yield Sample.pathogen_id == find_pathogen(session, query.pathogen).id
    if query.private is not None:
        yield Sample.private.is_(query.private)
    if first:
        yield Sample.collection_date >= first
    if last:
        yield Sample.collection_date <= last
    if query.location is not None:
        places = sa.select(Location.id).where(_holds(PLACE, query.location))
        yield Sample.location_id.in_(places)
    if query.search is not None:
        yield sa.or_(
            _holds(Sample.private_identifier, query.search),
            _holds(Sample.public_identifier, query.search),
        )


def _holds(text: sa.ColumnElement[Any] | Any, part: str) -> sa.ColumnElement[bool]:
    return sa.type_coerce(text, sa.String).icontains(part, autoescape=True)


def _behind(session: ReadSession, query: SampleQuery) -> Iterator[sa.ColumnElement[bool]]:
    """Yield a keyset condition, so that concurrent changes neither skip nor repeat rows."""
    if query.after is None:
        return
    column = getattr(Sample, query.sort.value)
    place = session.execute(sa.select(column, Sample.id).where(Sample.id == query.after)).first()
    if place is None:
        raise nothing_behind(query.after)
    here = sa.tuple_(column, Sample.id)
    there = sa.tuple_(*(sa.literal(value) for value in place))
    yield here < there if query.reverse else here > there


def _order(query: SampleQuery) -> list[sa.ColumnElement[Any]]:
    keys = [getattr(Sample, query.sort.value)]
    if query.sort is not SampleSort.ID:
        keys.append(Sample.id)
    return [key.desc() if query.reverse else key.asc() for key in keys]
