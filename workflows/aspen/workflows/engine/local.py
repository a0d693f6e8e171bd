"""The local engine, as commands use it: what is queued, what runs, and what became of it.

It reads DBOS's tables and the folders of jobs on this machine; only cancelling and retrying load
DBOS.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.workflows.engine import EngineError, Job, State
from aspen.workflows.engine.folder import JobFolder
from aspen.workflows.engine.queue import (
    APPLICATION,
    ENQUEUE,
    IS_READY,
    VERSION,
    WORKFLOW,
    queue_of,
    values,
)

if TYPE_CHECKING:
    from dbos import DBOSClient

_STATES = {
    "ENQUEUED": State.QUEUED,
    "DELAYED": State.QUEUED,
    "PENDING": State.RUNNING,
    "SUCCESS": State.DONE,
    "CANCELLED": State.CANCELLED,
}
"""The state for each of DBOS's; every other one is a failure."""
_CANCEL_S = 15.0
_LOOK_S = 0.2
_TREE = "tree"
_NO_WORKER = EngineError(
    "No worker has ever run in this deployment.",
    "Install aspencli[local,workflows], then run: aspencli local up",
)

# The documented tables of DBOS (its system database). A tree job that was cancelled at the last
# moment is done if its run is.
_JOBS = f"""
SELECT s.workflow_uuid AS id, s.status, i.inputs, s.created_at, s.started_at_epoch_ms AS started,
       s.completed_at AS ended, coalesce(o.error, s.error) AS error, s.serialization,
       ARRAY(SELECT p.function_name FROM dbos.operation_outputs p
              WHERE p.workflow_uuid = s.workflow_uuid ORDER BY p.function_id) AS steps,
       (SELECT w.workflow_status FROM aspen.workflows w
         WHERE w.id = CAST(substring(s.workflow_uuid FROM '^phylo-run-([0-9]{{1,9}})$') AS integer)
       ) AS run_status
  FROM dbos.workflow_status s
  LEFT JOIN dbos.workflow_input i USING (workflow_uuid)
  LEFT JOIN dbos.workflow_output o USING (workflow_uuid)
 WHERE s.name = '{WORKFLOW}'"""  # noqa: S608 - our own constant
_ORDER = " ORDER BY s.created_at DESC, s.workflow_uuid DESC"


class LocalEngine:
    """The engine of a deployment on this machine.

    Args:
        database: The address of its database, for psycopg2.
        folder: The folder of its worker's jobs.
    """

    def __init__(self, database: str, folder: Path):
        self._url = database
        self._folder = folder
        self._engine = sa.create_engine(database, poolclass=NullPool)

    def start(self, kind: str, parameters: Mapping[str, Any], job_id: str) -> str:
        """Enqueue a job, unless one with this ID exists; return its ID.

        Raises:
            EngineError: The kind or a parameter is invalid, or no worker has ever run.
        """
        from pydantic import ValidationError

        from aspen.workflows.jobs import Kind, plans

        try:
            given = plans()[Kind(kind)].parameters.model_validate(dict(parameters))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise EngineError(
                f"Invalid parameter {name} of a {kind} job: {first['msg']}"
            ) from error
        except (ValueError, KeyError) as error:
            kinds = ", ".join(plans())
            raise EngineError(f"Unknown kind of job: {kind!r}", f"Choose {kinds}.") from error
        job = values(kind, given.model_dump(mode="json"), job_id)
        with self._engine.begin() as connection:
            self._check(connection)
            connection.execute(sa.text(ENQUEUE), job)
        return job_id

    def jobs(self, *, kind: str | None = None, limit: int | None = None) -> Iterable[Job]:
        """Return the jobs, the latest first."""
        query = _JOBS
        given: dict[str, Any] = {}
        if kind is not None:
            query += " AND CAST(i.inputs AS json) #>> '{namedArgs,kind}' = :kind"
            given["kind"] = kind
        query += _ORDER
        if limit is not None:
            query += " LIMIT :limit"
            given["limit"] = limit
        with self._engine.connect() as connection:
            if not _is_ready(connection):
                return []
            return [self._job(row) for row in connection.execute(sa.text(query), given)]

    def state(self, job_id: str) -> Job | None:
        """Return a job, or None if there is none with this ID."""
        query = sa.text(f"{_JOBS} AND s.workflow_uuid = :job")
        with self._engine.connect() as connection:
            if not _is_ready(connection):
                return None
            row = connection.execute(query, {"job": job_id}).one_or_none()
        return None if row is None else self._job(row)

    def cancel(self, job_id: str, why: str) -> None:
        """End a job with all of its processes; its run, if it has one, is set to FAILED.

        Raises:
            EngineError: It does not exist, has ended already, or does not end.
        """
        found = self._known(job_id)
        if found.state.ended:
            raise EngineError(f"Job {job_id} has already ended ({found.state}).")
        folder = JobFolder(self._folder, job_id)
        folder.cancel(why)  # the worker kills its processes at once
        with self._client() as client:
            client.cancel_workflow(job_id)
        if not folder.wait_until_free(_CANCEL_S):
            raise EngineError(
                f"Job {job_id} did not end within {_CANCEL_S:.0f} s.",
                "Check the worker: aspencli local logs worker",
            )
        if (run := _run_of(found)) is not None:
            from aspen.workflows.engine.runs import fail_run

            with self._engine.begin() as connection:
                fail_run(connection, run)
        if (after := self.state(job_id)) and after.state is State.DONE:
            raise EngineError(f"Job {job_id} finished before it could be cancelled.")

    def retry(self, job_id: str) -> str:
        """Run a job that failed or was cancelled again, from its first step; return its ID.

        Raises:
            EngineError: It does not exist, has not ended, or is done.
        """
        found = self._retryable(job_id)
        folder = JobFolder(self._folder, job_id)
        folder.forget_cancellation()
        with self._client() as client:
            queue = queue_of(found.kind)
            client.rewind_workflow(job_id, queue_name=queue, application_version=VERSION)
        if (run := _run_of(found)) is not None:
            from aspen.workflows.engine.runs import restart_run

            with self._engine.begin() as connection:
                restart_run(connection, run)
        return job_id

    def _retryable(self, job_id: str) -> Job:
        found = self._known(job_id)
        if not found.state.ended:
            raise EngineError(f"Job {job_id} has not ended; it is {found.state}.")
        if found.state is State.DONE:
            raise EngineError(f"Job {job_id} is done already; there is nothing to retry.")
        if (run := _run_of(found)) is not None:
            from aspen.workflows.engine.runs import find_run

            with self._engine.connect() as connection:
                if find_run(connection, run) is None:
                    raise EngineError(f"Run {run} of job {job_id} was deleted.")
        return found

    def logs(self, job_id: str, *, step: str | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the lines of a job's logs, in the order of its steps.

        Raises:
            EngineError: The job does not exist.
        """
        self._known(job_id)
        folder = JobFolder(self._folder, job_id)
        read: dict[str, int] = {}
        while True:
            has_ended = not follow or self._known(job_id).state.ended
            for log in folder.logs():
                if step is None or log.stem == step:
                    yield from _fresh(log, read)
            if has_ended:
                return
            time.sleep(_LOOK_S)

    def _known(self, job_id: str) -> Job:
        found = self.state(job_id)
        if found is None:
            raise EngineError(f"No such job: {job_id}", "List the jobs: aspencli jobs list")
        return found

    def _job(self, row: sa.Row[Any]) -> Job:
        given = json.loads(row.inputs or "{}").get("namedArgs", {})
        kind = str(given.get("kind", ""))
        names = _step_names(kind)
        state = _STATES.get(row.status, State.FAILED)
        if state is State.CANCELLED and row.run_status == "COMPLETED":
            state = State.DONE
        number = _begun(row.steps, names, state)
        folder = JobFolder(self._folder, row.id)
        return Job(
            id=row.id,
            kind=kind,
            state=state,
            parameters=given.get("parameters", {}),
            created=_moment(row.created_at),
            started=_moment(row.started),
            ended=_moment(row.ended) if state.ended else None,
            step=names[number - 1] if number else "",
            number=number,
            steps=len(names),
            reason=_reason(state, row, folder),
            attempts=max(1, folder.attempts),
        )

    def _check(self, connection: sa.Connection) -> None:
        if not _is_ready(connection):
            raise _NO_WORKER

    @contextmanager
    def _client(self) -> Iterator[DBOSClient]:
        from dbos import DBOSClient

        url = sa.make_url(self._url).set(drivername="postgresql+psycopg")
        client = DBOSClient(
            system_database_url=url.render_as_string(hide_password=False),
            application_name=APPLICATION,
            retry_connection_errors=False,
        )
        try:
            yield client
        finally:
            client.destroy()


def _is_ready(connection: sa.Connection) -> bool:
    return bool(connection.scalar(sa.text(IS_READY)))


def _step_names(kind: str) -> tuple[str, ...]:
    from aspen.workflows.jobs import Kind, plans

    # Another version may have had other kinds.
    plan = plans().get(Kind(kind)) if kind in set(Kind) else None
    return tuple(step.name for step in plan.steps) if plan else ()


def _begun(recorded: Sequence[str], names: Sequence[str], state: State) -> int:
    """Return the number of a job's steps that have begun."""
    number = sum(name in names for name in recorded)
    # A step is recorded when it has ended.
    if state in {State.RUNNING, State.CANCELLED} and "begin" in recorded and number < len(names):
        number += 1
    return number


def _run_of(job: Job) -> int | None:
    run = job.parameters.get("run_id")
    return run if job.kind == _TREE and isinstance(run, int) else None


def _reason(state: State, row: sa.Row[Any], folder: JobFolder) -> str:
    if state is State.CANCELLED:
        why = folder.cancelled
        return f"cancelled: {why}" if why else "cancelled"
    if state is not State.FAILED:
        return ""
    try:
        return str(json.loads(row.error)["message"])
    except (TypeError, ValueError, KeyError):
        return str(row.status).lower().replace("_", " ")


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _fresh(log: Path, read: dict[str, int]) -> Iterator[str]:
    """Yield the complete lines of a log since the last call."""
    try:
        with log.open("rb") as file:
            file.seek(read.get(log.name, 0))
            whole, newline, _ = file.read().rpartition(b"\n")
    except OSError:
        return
    read[log.name] = read.get(log.name, 0) + len(whole) + len(newline)
    if newline:
        yield from whole.decode(errors="replace").split("\n")
