"""Jobs of the deployment on this machine: its engine and rows of its database, seen as one."""

from __future__ import annotations

import datetime as dt
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from aspen.workflows.engine import Engine, EngineError, Job
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.jobs.cloud import not_found
from aspencli.jobs.models import (
    COMPLETED,
    FAILED,
    GRACE,
    STARTED,
    JobFilter,
    JobListing,
    JobView,
    Reason,
    RunRow,
    Settlement,
    job_id_of,
    run_id_of,
    state_of,
)

INSTALL = "Install what runs jobs: pip install 'aspencli[workflows]', or: make workflows"
ELSEWHERE = (
    "Jobs run in the deployment on this machine, and this database is another one. Unset the "
    "target's database_url, then run: aspencli local up"
)
_LIBRARY, _SCHEDULE = "dbos", "aspen.workflows.tree.schedule"
_LINES = 20


def is_installed() -> bool:
    """Return True if what runs jobs is installed."""
    return find_spec(_LIBRARY) is not None


@dataclass
class LocalJobs:
    """The jobs of the deployment on this machine.

    Args:
        engine: The engine; None if there is none.
        missing: What to do if there is none.
    """

    engine: Engine | None
    missing: str = INSTALL

    def require_engine(self) -> Engine:
        """Return the engine.

        Raises:
            NotFoundError: There is none.
        """
        if self.engine is None:
            raise NotFoundError("Nothing runs jobs for this target.", hint=self.missing)
        return self.engine

    # Lists

    def listing(
        self, rows: Sequence[RunRow] | None, wanted: JobFilter, now: dt.datetime
    ) -> JobListing:
        """Return the jobs, the latest first."""
        notes = [] if self.engine else [f"Only runs in the database are shown. {self.missing}"]
        jobs: dict[str, Job] = {}
        if self.engine is not None:
            limit = None if wanted.is_selective else wanted.limit
            jobs = {job.id: job for job in self.engine.jobs(kind=wanted.kind, limit=limit)}
        views = [self._view(row, jobs.pop(job_id_of(row), None), now) for row in rows or ()]
        views += [self._view(None, job, now) for job in jobs.values()]
        views = [view for view in views if wanted.accepts(view)]
        views.sort(key=lambda view: view.started or _EARLIEST, reverse=True)
        return JobListing(views[: wanted.limit] if wanted.limit else views, notes)

    def _view(self, row: RunRow | None, job: Job | None, now: dt.datetime) -> JobView:
        step = ""
        if job is not None and job.step:
            step = f"{job.number} of {job.steps}: {job.step}" if job.steps else job.step
        state = job.state if job is not None else None
        pathogen = job.parameters.get("pathogen") if job is not None else None
        return JobView(
            state_of(row, state, now, is_known=self.engine is not None),
            row,
            job=job,
            step=step,
            kind=job.kind if job is not None else "",
            pathogen=str(pathogen) if pathogen else None,
        )

    # One job

    def find(self, key: str, find_row: Callable[[int], RunRow | None], now: dt.datetime) -> JobView:
        """Return a job by the ID of its row, or the engine's ID.

        Raises:
            NotFoundError: There is no such job.
        """
        number = run_id_of(key)
        row = find_row(number) if number is not None else None
        if row is not None:
            return self._view(row, self.engine.state(job_id_of(row)) if self.engine else None, now)
        job = self.engine.state(key) if self.engine is not None else None
        if job is None:
            raise not_found(key)
        return self._view(None, job, now)

    def why(self, view: JobView, now: dt.datetime) -> Reason:
        """Return the cause of a job's end."""
        row, job = view.row, view.job
        if job is None:
            return _without_job(row, now, "" if self.engine is not None else self.missing)
        facts: dict[str, Any] = {
            "job": job.id,
            "step": view.step or None,
            "attempts": job.attempts,
        }
        lines = self._last_lines(job)
        if not job.state.ended:
            name = "queued" if view.state.value == "queued" else "running"
            where = f"it is in step {view.step}" if view.step else "no step has begun yet"
            return Reason(name, f"The job has not ended; {where}.", facts=facts, lines=lines)
        if job.state.value == "done":
            if row is None or row.status == COMPLETED:
                return Reason("succeeded", "The job did not fail.", facts=facts)
            text = f"The job was done, but the run is {row.status} in the database."
            return Reason("not-saved", text, "Settle the row: aspencli jobs reconcile", facts)
        text = job.reason or "The job failed, and the engine gives no reason."
        name = "cancelled" if job.state.value == "cancelled" else "failed"
        advice = f"Start it again: aspencli jobs retry {view.key}"
        return Reason(name, text, advice, facts, lines)

    def _last_lines(self, job: Job) -> list[str] | None:
        assert self.engine is not None  # noqa: S101 - it knows the job
        try:
            found = list(self.engine.logs(job.id, step=job.step or None))
        except (EngineError, OSError):
            return None
        return found[-_LINES:]

    def logs(self, view: JobView, *, step: str | None, follow: bool) -> Iterator[str]:
        """Yield the lines of a job's log."""
        engine = self.require_engine()
        if view.job is None:
            raise NotFoundError(
                f"Job {view.key} has no log: it was never started.",
                hint=f"See why: aspencli jobs why {view.key}",
            )
        return engine.logs(view.job.id, step=step, follow=follow)

    # Writes

    def start(self, kind: str, parameters: Mapping[str, Any], prefix: str, now: dt.datetime) -> str:
        """Start a job, and return its ID."""
        moment = now.astimezone(dt.UTC).strftime("%Y%m%d-%H%M%S-%f")
        words = "-".join(filter(None, (prefix, kind, moment)))
        return self.require_engine().start(kind, parameters, words)

    def check_start(self, kind: str, parameters: Mapping[str, Any]) -> None:
        """Check that such a job can run here.

        Raises:
            BadInputError: Its parameters are not valid.
        """
        self.require_engine()
        from pydantic import ValidationError

        from aspen.workflows.jobs import PLANS, Kind

        try:
            PLANS[Kind(kind)].parameters.model_validate(dict(parameters))
        except ValidationError as error:
            flaws = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise BadInputError(
                f"Invalid parameters for a job of the kind {kind}.",
                details=flaws,
                hint="See: aspencli jobs start --help",
            ) from None

    def cancel(self, view: JobView, why: str) -> dt.datetime | None:
        """Stop a job, and return when it ended if it was stopped; None if it ended by itself."""
        assert view.job is not None  # noqa: S101 - the plan has one
        engine = self.require_engine()
        engine.cancel(view.job.id, why)
        job = engine.state(view.job.id)
        if job is not None and job.state.value == "done":
            return None
        return (job.ended if job else None) or dt.datetime.now(dt.UTC)

    def require_retry(self, view: JobView) -> Job:
        """Return the job that a retry repeats.

        Raises:
            ConflictError: There is none, or it has not ended.
        """
        self.require_engine()
        job = view.job
        if job is None:
            raise ConflictError(
                f"Job {view.key} was never started; nothing was written.",
                hint="Start the worker, which starts runs that wait: aspencli local up",
            )
        if not job.state.ended:
            raise ConflictError(
                f"Job {view.key} has not ended; nothing was written.",
                hint=f"Wait for it, or cancel it: aspencli jobs cancel {view.key}",
            )
        return job

    def retry(self, view: JobView) -> str:
        """Start a job that ended again, and return its ID."""
        return self.require_engine().retry(self.require_retry(view).id)

    # Rows that nothing will ever change

    def live_runs(self, rows: Sequence[RunRow]) -> set[int]:
        """Return the IDs of the rows with a job that has not ended."""
        engine = self.require_engine()
        found = {row.id: engine.state(job_id_of(row)) for row in rows}
        return {number for number, job in found.items() if job and not job.state.ended}

    def stuck(self, rows: Sequence[RunRow], now: dt.datetime) -> list[Settlement]:
        """Return how to settle the rows whose job has ended, or does not exist."""
        engine = self.require_engine()
        found = []
        for row in rows:
            job = engine.state(job_id_of(row)) if row.kind == "tree" else None
            if job is not None and not job.state.ended:
                continue
            if row.started is not None and now - row.started < GRACE:
                continue
            if job is None:
                found.append(Settlement(row, FAILED, now, "the engine has no job for it"))
                continue
            status = COMPLETED if job.state.value == "done" and row.tree is not None else FAILED
            reason = f"its job ended as {job.state.value}"
            found.append(Settlement(row, status, job.ended or now, reason))
        return found


def planned_trees(reader: Any, today: dt.date) -> list[dict[str, Any]] | None:
    """Return what the schedule does today, or None if there is no schedule here."""
    try:
        module = importlib.import_module(_SCHEDULE)
    except ImportError:
        return None
    return [
        {
            "name": one.name,
            "schedule": " ".join(filter(None, (today.isoformat(), one.period))),
            "enabled": not one.skipped,
            "group": one.group,
            "rule": None,
            "note": one.skipped or (f"run {one.run_id}" if one.run_id is not None else None),
        }
        for one in module.planned(reader, today)
    ]


_EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC)


def _without_job(row: RunRow | None, now: dt.datetime, missing: str) -> Reason:
    assert row is not None  # noqa: S101 - a job is one or the other
    if row.status == COMPLETED:
        return Reason("succeeded", "The run is COMPLETED in the database; nothing failed.")
    if missing:
        text = f"The run is {row.status} in the database; nothing runs jobs for this target."
        return Reason("unknown", text, missing)
    if row.status == STARTED:
        return Reason(
            "never-started",
            "The run waits for the worker, which starts runs once a minute."
            if row.started is not None and now - row.started < GRACE
            else "No job was ever started for this run: the worker has not run since.",
            "Start the worker: aspencli local up. Or settle the row: aspencli jobs reconcile",
        )
    return Reason("unknown", "The run is FAILED in the database, and the engine has no job for it.")
