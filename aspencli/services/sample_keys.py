"""Which samples an operator means: by id, private or public identifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from aspencli.errors import BadInputError, NotFoundError
from aspencli.services.checks import as_id
from aspencli.services.lookups import find_group
from aspencli.services.sample_fields import SampleKey
from db.models import Group, Sample
from db.sessions import ReadSession


@dataclass(frozen=True)
class Match:
    """A sample that a key names.

    Attributes:
        key: What was asked for.
        by: What of the sample it is.
        group: The name of the sample's group.
    """

    key: str
    sample_id: int
    by: SampleKey
    group: str


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
    found: defaultdict[str, dict[int, Match]] = defaultdict(dict)
    for kind in [by] if by else list(SampleKey):
        for match in _matches(session, kind, keys, group_id):
            found[match.key].setdefault(match.sample_id, match)
    _demand_found([key for key in keys if key not in found], within=group)
    _demand_single([match for each in found.values() if len(each) > 1 for match in each.values()])
    named: dict[int, Match] = {}
    for key in keys:
        match = next(iter(found[key].values()))
        named.setdefault(match.sample_id, match)
    return list(named.values())


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


def _demand_found(missing: list[str], *, within: str | None) -> None:
    if missing:
        place = f" in group {within}" if within is not None else ""
        raise NotFoundError(
            f"there is no sample {', '.join(repr(key) for key in dict.fromkeys(missing))}{place}",
            hint="Look for a part of it: aspencli samples list --search TEXT",
        )


def _demand_single(ambiguous: list[Match]) -> None:
    if ambiguous:
        raise BadInputError(
            "several samples go by that name; nothing is shown",
            hint="Add --group, or --by id, private_identifier or public_identifier.",
            details=[
                f"{match.key!r} is the {match.by.value} of sample {match.sample_id}"
                f" (group {match.group})"
                for match in ambiguous
            ],
        )
