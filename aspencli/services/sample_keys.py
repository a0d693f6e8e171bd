"""Which samples an operator means, straight from the database."""

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
    """The sample that each key names, in the order of the keys, each sample once.

    Args:
        session: Where to look.
        keys: Ids, private and public identifiers.
        group: Id, name or prefix of the group to look in; None means all.
        by: What the keys are; None means any.

    Raises:
        NotFoundError: Some key names no sample, or there is no such group.
        BadInputError: Some key names several.
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
    # By way of the groups, since the identifiers' indexes begin with the group.
    statement = (
        sa.select(column, Sample.id, Group.name)
        .join(Group, Group.id == Sample.submitting_group_id)
        .where(column.in_(wanted), Group.id == group_id if group_id is not None else sa.true())
        .order_by(Sample.id)
    )
    for value, sample_id, group in session.execute(statement):
        yield Match(str(value), sample_id, kind, group)
