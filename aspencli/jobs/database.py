"""Rows of jobs in the database: read, and settled. Times are stored in UTC without a zone."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from aspen.database.tables import ENTITIES, GROUPS, PATHOGENS, PHYLO_RUNS, SAMPLES, USERS, WORKFLOWS
from aspen.workflows.engine.executions import clean
from aspencli.errors import BadInputError, NotFoundError
from aspencli.jobs.models import STARTED, RunRow, Settlement
from aspencli.text import as_id

if TYPE_CHECKING:
    from aspen.database.sessions import Reader, WriteSession

_TREE = "PHYLO_RUN"
_SHOWN = 20


def list_runs(
    reader: Reader,
    *,
    since: dt.datetime | None = None,
    status: str | None = None,
    limit: int | None = None,
) -> list[RunRow]:
    """Return the rows, the latest first, with one query."""
    query = _QUERY
    if since is not None:
        query = query.where(WORKFLOWS.c.start_datetime >= _stored(since))
    if status is not None:
        query = query.where(WORKFLOWS.c.workflow_status == status)
    query = query.order_by(WORKFLOWS.c.start_datetime.desc().nulls_last(), WORKFLOWS.c.id.desc())
    return [_row(found) for found in reader.execute(query.limit(limit)).mappings()]


def group_names(reader: Reader) -> dict[str, str]:
    """Return the name of each group by its prefix, as names of executions have it."""
    found = reader.execute(sa.select(GROUPS.c.prefix, GROUPS.c.name))
    return {clean(group.prefix): group.name for group in found if group.prefix}


def find_run(reader: Reader, number: int) -> RunRow | None:
    """Return the row with an ID, or None."""
    found = reader.execute(_QUERY.where(WORKFLOWS.c.id == number)).mappings().one_or_none()
    return None if found is None else _row(found)


def lock_run(session: WriteSession, number: int) -> RunRow | None:
    """Lock the row with an ID, and return it as it is now, or None."""
    _lock(session, [number])
    return find_run(session, number)


def settle(session: WriteSession, wanted: Iterable[Settlement]) -> list[int]:
    """Set the status and the end of rows that are still as planned; return their IDs."""
    wanted = list(wanted)
    _lock(session, [each.row.id for each in wanted])
    done = []
    for each in wanted:
        changed = session.execute(
            sa.update(WORKFLOWS)
            .where(
                WORKFLOWS.c.id == each.row.id,
                WORKFLOWS.c.workflow_status == STARTED,
                # A run that was started again since has a job.
                WORKFLOWS.c.start_datetime.is_not_distinct_from(_stored(each.row.started)),
            )
            .values(workflow_status=each.status, end_datetime=_stored(each.ended))
            .returning(WORKFLOWS.c.id)
        ).all()
        done += [row.id for row in changed]
    return done


def set_status(session: WriteSession, number: int, status: str, ended: dt.datetime | None) -> None:
    """Set the status and the end of a row."""
    session.execute(
        sa.update(WORKFLOWS)
        .where(WORKFLOWS.c.id == number)
        .values(workflow_status=status, end_datetime=_stored(ended))
    )


def find_samples(
    reader: Reader, keys: Sequence[str], group_id: int | None, pathogen_id: int
) -> list[sa.Row[Any]]:
    """Return the IDs and public identifiers of samples, named by either, in the order given.

    Raises:
        NotFoundError: Some do not exist.
        BadInputError: Several samples match a key.
    """
    found: dict[str, dict[int, Any]] = defaultdict(dict)
    for sample in reader.execute(_samples_named(keys, group_id, pathogen_id)):
        for key in (sample.private_identifier, sample.public_identifier, str(sample.id)):
            found[key][sample.id] = sample
    _require_one_each(keys, found)
    return list({id_: sample for key in keys for id_, sample in found[key].items()}.values())


def _samples_named(keys: Sequence[str], group_id: int | None, pathogen_id: int) -> sa.Select[Any]:
    columns = SAMPLES.c
    query = sa.select(columns.id, columns.public_identifier).where(
        columns.pathogen_id == pathogen_id,
        sa.or_(
            columns.id.in_([number for key in keys if (number := as_id(key)) is not None]),
            columns.public_identifier.in_(keys),
            columns.private_identifier.in_(keys),
        ),
    )
    query = query.add_columns(columns.private_identifier)
    if group_id is not None:
        query = query.where(columns.submitting_group_id == group_id)
    return query.order_by(columns.id)


def _require_one_each(keys: Sequence[str], found: Mapping[str, Mapping[int, Any]]) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
        raise NotFoundError(
            f"No such sample: {', '.join(missing[:_SHOWN])}{more}",
            hint="List the samples: aspencli samples list",
        )
    if unclear := [key for key in keys if len(found[key]) > 1]:
        raise BadInputError(
            f"Several samples match {', '.join(unclear[:_SHOWN])}.",
            hint="Choose the group with --group, or use the ids of samples.",
        )


def _lock(session: WriteSession, ids: Sequence[int]) -> None:
    session.execute(
        sa.select(WORKFLOWS.c.id)
        .where(WORKFLOWS.c.id.in_(ids))
        .order_by(WORKFLOWS.c.id)
        .with_for_update()
    )


_TREES = (
    sa.select(sa.func.min(ENTITIES.c.id))
    .where(
        ENTITIES.c.producing_workflow_id == WORKFLOWS.c.id, ENTITIES.c.entity_type == "PHYLO_TREE"
    )
    .correlate(WORKFLOWS)
    .scalar_subquery()
)
_QUERY = (
    sa.select(
        WORKFLOWS.c.id,
        WORKFLOWS.c.workflow_type,
        WORKFLOWS.c.workflow_status,
        WORKFLOWS.c.start_datetime,
        WORKFLOWS.c.end_datetime,
        PHYLO_RUNS.c.name,
        PHYLO_RUNS.c.tree_type,
        GROUPS.c.id.label("group_id"),
        GROUPS.c.name.label("group"),
        GROUPS.c.prefix,
        GROUPS.c.location,
        GROUPS.c.division,
        PATHOGENS.c.slug.label("pathogen"),
        USERS.c.name.label("user"),
        _TREES.label("tree"),
    )
    .select_from(WORKFLOWS)
    .outerjoin(PHYLO_RUNS, PHYLO_RUNS.c.workflow_id == WORKFLOWS.c.id)
    .outerjoin(GROUPS, GROUPS.c.id == PHYLO_RUNS.c.group_id)
    .outerjoin(PATHOGENS, PATHOGENS.c.id == PHYLO_RUNS.c.pathogen_id)
    .outerjoin(USERS, USERS.c.id == WORKFLOWS.c.user_id)
)


def _row(found: Any) -> RunRow:
    return RunRow(
        id=found["id"],
        kind="tree" if found["workflow_type"] == _TREE else "import-repository",
        status=found["workflow_status"],
        started=_utc(found["start_datetime"]),
        ended=_utc(found["end_datetime"]),
        **{
            name: found[name]
            for name in (
                *("name", "tree_type", "group_id", "group", "prefix", "location", "division"),
                *("pathogen", "user", "tree"),
            )
        },
    )


def _utc(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.replace(tzinfo=dt.UTC)


def _stored(moment: dt.datetime | None) -> dt.datetime | None:
    return None if moment is None else moment.astimezone(dt.UTC).replace(tzinfo=None)
