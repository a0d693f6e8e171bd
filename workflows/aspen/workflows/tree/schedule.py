"""Scheduled runs: a recent overview for each group, without anyone asking for it.

A group's run covers the last twelve weeks at its own location. If nothing was collected there and
then, longer periods are tried, and then larger places up to the country.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from aspen.database.models import TreeType, WorkflowStatus, WorkflowType
from aspen.database.sessions import Reader, WriteSession

PATHOGEN = "SC2"
TREE_TYPE = TreeType.OVERVIEW
USER = "hello@czgenepi.org"
"""The address of the user in whose name scheduled runs start, where there is such a user."""
PERIODS = ("12 weeks", "6 months", "12 months", "24 months")
"""The periods that are tried, in this order, at each place."""

_NAME = "{} Contextual Recency-Focused Build"
_JSON = JSONB(none_as_null=True)
_LEVELS = ("region", "country", "division", "location")
_WIDEST = "country"
_LOCK = 7_160_437  # any number that is used for nothing else; other locks have two keys
_GROUPS = """
SELECT g.id, g.name, g.tree_parameters, l.region, l.country, l.division, l.location,
       g.default_tree_location_id
  FROM aspen.groups g JOIN aspen.locations l ON l.id = g.default_tree_location_id
 ORDER BY g.id
"""
_TODAY = """
SELECT r.group_id, min(r.workflow_id)
  FROM aspen.phylo_runs r JOIN aspen.workflows w ON w.id = r.workflow_id
  JOIN aspen.groups g ON g.id = r.group_id
 WHERE r.name = replace(:name, '{}', g.name) AND r.tree_type = :kind AND r.pathogen_id = :pathogen
   AND w.start_datetime >= :today AND w.start_datetime < :tomorrow
 GROUP BY r.group_id
"""
# GenBank takes precedence, as it does when a run is started through the API.
_DUMP = """
SELECT d.entity_id, d.public_repository_id, p.id AS pathogen_id
  FROM aspen.aligned_repository_data d
  JOIN aspen.pathogens p ON p.id = d.pathogen_id
  JOIN aspen.public_repositories r ON r.id = d.public_repository_id
  JOIN aspen.entities e ON e.id = d.entity_id
  JOIN aspen.workflows w ON w.id = e.producing_workflow_id
 WHERE p.slug = :slug
 ORDER BY r.name = 'GenBank' DESC, r.id, w.end_datetime DESC NULLS LAST, d.entity_id DESC LIMIT 1
"""
_WIDER = """
SELECT min(id) FROM aspen.locations
 WHERE region IS NOT DISTINCT FROM :region AND country IS NOT DISTINCT FROM :country
   AND division IS NOT DISTINCT FROM :division AND location IS NULL
"""
_OWN = """
SELECT EXISTS (SELECT FROM aspen.samples
 WHERE pathogen_id = :pathogen AND submitting_group_id = :group
   AND collection_date BETWEEN :first AND :last)
"""
_PUBLIC = """
SELECT EXISTS (SELECT FROM aspen.public_repository_metadata
 WHERE pathogen_id = :pathogen AND public_repository_id = :repository
   AND region IS NOT DISTINCT FROM :region AND country = :country
   AND (CAST(:division AS varchar) IS NULL OR division = :division)
   AND (CAST(:location AS varchar) IS NULL OR location = :location)
   AND date >= :first AND date < :after)
"""
_WORKFLOW = """
INSERT INTO aspen.workflows (workflow_type, workflow_status, start_datetime, software_versions,
                             user_id)
VALUES (:type, :status, :now, '{}', (SELECT id FROM aspen.users WHERE email = :user)) RETURNING id
"""
_RUN = """
INSERT INTO aspen.phylo_runs (workflow_id, group_id, pathogen_id, contextual_repository_id,
                              name, tree_type, template_args, gisaid_ids)
VALUES (:run, :group, :pathogen, :repository, :name, :kind, :arguments, '[]')
"""
_INPUT = "INSERT INTO aspen.workflow_inputs (entity_id, workflow_id) VALUES (:dump, :run)"


@dataclass(frozen=True)
class Planned:
    """The plan of the schedule for one group on one day.

    Attributes:
        name: The name of its run.
        place: The place of its tree, by its names from the largest down; None if there is no run.
        period: The period, such as ``12 weeks``.
        template_args: The arguments of the run.
        skipped: The reason why there is no run; empty if there is one.
        run_id: The scheduled run of today, if there is one already.
    """

    group_id: int
    group: str
    name: str
    place: tuple[str, ...] = ()
    period: str = ""
    template_args: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""
    run_id: int | None = None

    @property
    def is_new(self) -> bool:
        """Return True if a run is to be created."""
        return not self.skipped and self.run_id is None


@dataclass(frozen=True)
class _Source:
    """The data that runs compare with, by the IDs of their rows."""

    dump: int
    repository: int
    pathogen: int


def planned(reader: Reader, today: date, *, pathogen: str = PATHOGEN) -> list[Planned]:
    """Return what the schedule does on a day, group by group; this changes nothing."""
    source = _source(reader, pathogen)
    groups = reader.execute(sa.text(_GROUPS)).mappings().all()
    if source is None:
        reason = f"There are no aligned data of a public repository for {pathogen}."
        return [_skipped(group, reason) for group in groups]
    values = {
        "name": _NAME,
        "kind": TREE_TYPE.value,
        "pathogen": source.pathogen,
        "today": today,
        "tomorrow": today + timedelta(days=1),
    }
    there = dict(map(tuple, reader.execute(sa.text(_TODAY), values)))
    return [_planned(reader, group, source, today, there.get(group["id"])) for group in groups]


def create(session: WriteSession, now: datetime, *, pathogen: str = PATHOGEN) -> list[Planned]:
    """Add the runs of a day that are missing; return all of the day's plans, with their runs.

    Call it in one transaction, and enqueue the runs after it is committed. Two calls at the same
    time add each run once.

    Args:
        session: The session, whose transaction the caller commits.
        now: The time, in UTC and without a zone, as the columns are.
        pathogen: The slug.
    """
    session.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    source = _source(session, pathogen)
    found = planned(session, now.date(), pathogen=pathogen)
    if source is None:
        return found
    return [_created(session, one, source, now) if one.is_new else one for one in found]


def _source(reader: Reader, pathogen: str) -> _Source | None:
    row = reader.execute(sa.text(_DUMP), {"slug": pathogen}).one_or_none()
    return _Source(*row) if row else None


def _skipped(group: sa.RowMapping, reason: str) -> Planned:
    return Planned(group["id"], group["name"], _NAME.format(group["name"]), skipped=reason)


def _planned(
    reader: Reader, group: sa.RowMapping, source: _Source, today: date, run: int | None
) -> Planned:
    days = (group["tree_parameters"] or {}).get("schedule_expression")
    if days is not None and today.weekday() not in days:
        return _skipped(group, f"Its schedule does not include {today:%A}.")
    if run is not None:
        return Planned(group["id"], group["name"], _NAME.format(group["name"]), run_id=run)
    for location, place in _places(reader, group):
        for period in PERIODS:
            first = _beginning(today, period)
            if _has_samples(reader, group["id"], source, place, first, today):
                return Planned(
                    group_id=group["id"],
                    group=group["name"],
                    name=_NAME.format(group["name"]),
                    place=tuple(name for level in _LEVELS if (name := place[level])),
                    period=period,
                    template_args={
                        "location_id": location,
                        "filter_start_date": first.isoformat(),
                        "filter_end_date": today.isoformat(),
                    },
                )
    return _skipped(group, f"No samples within {PERIODS[-1]}, up to the whole country.")


def _places(reader: Reader, group: sa.RowMapping) -> Iterator[tuple[int, Mapping[str, str | None]]]:
    """Yield the group's location and the larger ones that contain it, up to the country."""
    place: dict[str, str | None] = {level: group[level] for level in _LEVELS}
    yield group["default_tree_location_id"], dict(place)
    for level in reversed(_LEVELS[_LEVELS.index(_WIDEST) + 1 :]):
        if not place[level]:
            continue
        place[level] = None
        wider = reader.scalar(sa.text(_WIDER), place)
        if wider is not None:  # not every place is a row of its own
            yield int(wider), dict(place)


def _has_samples(
    reader: Reader,
    group: int,
    source: _Source,
    place: Mapping[str, str | None],
    first: date,
    last: date,
) -> bool:
    period = {"first": first, "last": last, "after": last + timedelta(days=1)}
    values = {**period, **place, "pathogen": source.pathogen, "repository": source.repository}
    own = {**period, "pathogen": source.pathogen, "group": group}
    return bool(reader.scalar(sa.text(_OWN), own) or reader.scalar(sa.text(_PUBLIC), values))


def _beginning(today: date, period: str) -> date:
    """Return the first day of a period that ends today."""
    number, unit = period.split()
    if unit == "weeks":
        return today - timedelta(weeks=int(number))
    months = today.year * 12 + today.month - 1 - int(number)
    first = date(months // 12, months % 12 + 1, 1)
    # The 31st of a month that has fewer days is its last one.
    following = (first + timedelta(days=31)).replace(day=1)
    return min(first + timedelta(days=today.day - 1), following - timedelta(days=1))


def _created(session: Session, one: Planned, source: _Source, now: datetime) -> Planned:
    values = {
        "type": WorkflowType.PHYLO_RUN.value,
        "status": WorkflowStatus.STARTED.value,
        "now": now,
        "user": USER,
    }
    run = session.scalar(sa.text(_WORKFLOW), values)
    statement = sa.text(_RUN).bindparams(sa.bindparam("arguments", type_=_JSON))
    session.execute(
        statement,
        {
            "run": run,
            "group": one.group_id,
            "pathogen": source.pathogen,
            "repository": source.repository,
            "name": one.name,
            "kind": TREE_TYPE.value,
            "arguments": dict(one.template_args),
        },
    )
    session.execute(sa.text(_INPUT), {"dump": source.dump, "run": run})
    return Planned(
        one.group_id, one.group, one.name, one.place, one.period, one.template_args, run_id=run
    )


def created(plans: Sequence[Planned]) -> list[int]:
    """Return the runs of a day's plans, to enqueue; one that is enqueued already stays as it is."""
    return [one.run_id for one in plans if one.run_id is not None]
