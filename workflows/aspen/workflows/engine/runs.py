"""The rows of tree runs, which show how far a job is to readers that know nothing of the engine."""

from __future__ import annotations

import sqlalchemy as sa

_STALE_DAYS = 7
_ID = "phylo-run-"

# The place is that of the live service's objects; see `aspen.workflows.store.TreeKeys`.
_FIND = sa.text("""
SELECT w.workflow_status AS status, p.slug AS pathogen,
       coalesce(nullif(g.location, ''), nullif(g.division, ''), g.prefix) || '/' || r.tree_type
           AS filestem
  FROM aspen.phylo_runs r
  JOIN aspen.workflows w ON w.id = r.workflow_id
  JOIN aspen.groups g ON g.id = r.group_id
  JOIN aspen.pathogens p ON p.id = r.pathogen_id
 WHERE r.workflow_id = :run""")
_FAIL = sa.text("""
UPDATE aspen.workflows
   SET workflow_status = 'FAILED', end_datetime = statement_timestamp() AT TIME ZONE 'UTC'
 WHERE id = :run AND workflow_status = 'STARTED'""")
_RESTART = sa.text("""
UPDATE aspen.workflows SET workflow_status = 'STARTED', end_datetime = NULL
 WHERE id = :run AND workflow_status = 'FAILED'""")
# A run that was started long ago, such as one in a copy of another database, is no longer wanted.
_MISSED = sa.text(f"""
SELECT r.workflow_id
  FROM aspen.phylo_runs r JOIN aspen.workflows w ON w.id = r.workflow_id
 WHERE w.workflow_status = 'STARTED'
   AND w.start_datetime > (statement_timestamp() AT TIME ZONE 'UTC') - interval '{_STALE_DAYS} days'
   AND NOT EXISTS (
       SELECT FROM dbos.workflow_status s WHERE s.workflow_uuid = '{_ID}' || r.workflow_id)
 ORDER BY r.workflow_id""")  # noqa: S608 - our own constants
_ENDED = sa.text(f"""
SELECT r.workflow_id
  FROM aspen.phylo_runs r
  JOIN aspen.workflows w ON w.id = r.workflow_id
  JOIN dbos.workflow_status s ON s.workflow_uuid = '{_ID}' || r.workflow_id
 WHERE w.workflow_status = 'STARTED' AND s.status NOT IN ('ENQUEUED', 'DELAYED', 'PENDING')
 ORDER BY r.workflow_id""")  # noqa: S608 - same


def find_run(connection: sa.Connection, run: int) -> sa.Row[tuple[str, str, str]] | None:
    """Return the status, pathogen, and filestem of a run; None if it does not exist."""
    return connection.execute(_FIND, {"run": run}).one_or_none()


def fail_run(connection: sa.Connection, run: int) -> bool:
    """Set a run that is in progress to FAILED; return False if it is not."""
    return connection.execute(_FAIL, {"run": run}).rowcount == 1


def restart_run(connection: sa.Connection, run: int) -> None:
    """Set a run that failed back to STARTED, so that it cannot be deleted while its job runs."""
    connection.execute(_RESTART, {"run": run})


def missed_runs(connection: sa.Connection) -> list[int]:
    """Return the runs that were committed within a week but have no job."""
    return list(connection.scalars(_MISSED))


def ended_runs(connection: sa.Connection) -> list[int]:
    """Return the runs that seem to be in progress although their job has ended."""
    return list(connection.scalars(_ENDED))
