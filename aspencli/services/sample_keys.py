"""Find samples by ID or identifier in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from aspencli.services.checks import as_id
from aspencli.services.lookups import find_group
from aspencli.services.sample_fields import SampleKey
from aspencli.services.sample_matching import Match, settle_keys
from db.models import Group, Sample
from db.sessions import ReadSession


def match_samples(
    session: ReadSession, keys: Sequence[str], *, group: str | None, by: SampleKey | None
) -> list[Match]:
    """Return the sample that each key names, in the order of the keys, without duplicates.

    Args:
        session: The database session.
        keys: IDs, private identifiers, and public identifiers.
        group: ID, name, or prefix of the group to search; None for all.
        by: The kind of the keys; None for any.

    Raises:
        NotFoundError: A key matches no sample, or there is no such group.
        BadInputError: A key matches several samples.
    """
    group_id = find_group(session, group).id if group is not None else None
    kinds = [by] if by else list(SampleKey)
    found = [match for kind in kinds for match in _matches(session, kind, keys, group_id)]
    return settle_keys(keys, found, within=group)


def _matches(
    session: ReadSession, kind: SampleKey, keys: Sequence[str], group_id: int | None
) -> Iterable[Match]:
    column = getattr(Sample, kind.value)
    wanted: Sequence[Any] = keys
    if kind is SampleKey.ID:
        wanted = [id_ for id_ in map(as_id, keys) if id_ is not None]
    if not wanted:
        return
    # Joined through the groups, because the identifiers' indexes begin with the group.
    statement = (
        sa.select(column, Sample.id, Group.name)
        .join(Group, Group.id == Sample.submitting_group_id)
        .where(column.in_(wanted), Group.id == group_id if group_id is not None else sa.true())
        .order_by(Sample.id)
    )
    for value, sample_id, group in session.execute(statement):
        yield Match(str(value), sample_id, kind, group)
