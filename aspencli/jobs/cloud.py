"""Jobs of a cloud target: executions of Step Functions and rows of the database, seen as one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from aspen.workflows.engine import EngineError, State
from aspen.workflows.engine.causes import find_cause
from aspen.workflows.engine.evidence import Attempt, Evidence
from aspen.workflows.engine.executions import (
    Deployment,
    Description,
    Execution,
    execution_name,
    name_parts,
)
from aspen.workflows.engine.stepfunctions import (
    StepFunctionsEngine,
    archive_folders,
    kind_of,
    split_address,
)
from aspencli.config import Target
from aspencli.errors import AspenError, BadInputError, ConflictError, NotFoundError
from aspencli.jobs.matching import SKEW, candidates, match, match_imports
from aspencli.jobs.models import (
    COMPLETED,
    FAILED,
    GRACE,
    LIMIT,
    JobFilter,
    JobListing,
    JobView,
    Reason,
    RunRow,
    Settlement,
    run_id_of,
    state_of,
)

if TYPE_CHECKING:
    from aspencli.deployments.aws import Aws

T = TypeVar("T")
_SUFFIX = "/genepi-config"
_DESCRIBED = 25  # the most executions to compare with one row
_KEPT = dt.timedelta(days=90)  # Step Functions forgets older ones
_BUCKET = "S3_db_bucket"
_LINES = 20
_NO_JOB = (
    "No job was ever started for this run: its row exists, but no execution does. The start "
    "failed after the row was written."
)


def deployment_of(target: Target) -> Deployment:
    """Return the names of a target in AWS.

    Raises:
        BadInputError: They cannot be told from its settings.
    """
    secret = target.secret_name or ""
    if not secret.endswith(_SUFFIX):
        raise BadInputError(
            f"Cannot find the jobs of {target.label}: its stage is not known.",
            hint=f"Set secret_name under [targets.{target.name}] in the config file to "
            f"STAGE{_SUFFIX}.",
        )
    return Deployment(secret.removesuffix(_SUFFIX), target.stack)


@dataclass
class CloudJobs:
    """The jobs of a cloud target.

    Args:
        target: The target.
        aws: Its AWS account.
    """

    target: Target
    aws: Aws

    def __post_init__(self) -> None:
        self.deployment = deployment_of(self.target)
        self.engine = StepFunctionsEngine(self.aws.use, self.deployment)
        self._descriptions: dict[str, Description | None] = {}

    def require_engine(self) -> StepFunctionsEngine:
        """Return the engine, which is always there."""
        return self.engine

    # Lists

    def listing(
        self, rows: Sequence[RunRow] | None, wanted: JobFilter, now: dt.datetime
    ) -> JobListing:
        """Return the jobs, the latest first; the number of requests grows with pages only.

        Args:
            rows: The rows of the database; None if it cannot be read.
            wanted: The jobs to show.
            now: The time.
        """
        notes: list[str] = []
        # With a limit, older executions cannot be among the latest, unless a filter skips some.
        limit = None if wanted.is_selective or self.deployment.stack else wanted.limit
        found = told(
            lambda: self.engine.executions(since=_before(wanted.since), limit=limit), notes
        )
        is_known = found is not None
        executions = self._of_stack(found or [], rows or (), notes)
        executions = self._with_kinds(executions, notes)
        jobs = self._running_jobs(executions, notes)
        every = self._views(rows or (), executions, jobs, now, is_known=is_known)
        views = [_named(view, wanted.names) for view in every]
        views = [view for view in views if wanted.accepts(view)]
        views.sort(key=lambda view: view.started or _EARLIEST, reverse=True)
        return JobListing(views[: wanted.limit] if wanted.limit else views, notes)

    def _views(
        self,
        rows: Sequence[RunRow],
        executions: Sequence[Execution],
        jobs: Mapping[str, Attempt] | None,
        now: dt.datetime,
        *,
        is_known: bool,
    ) -> Iterator[JobView]:
        """Yield a job for each row, and for each execution that is of none of them."""
        matched = match(rows, executions)
        imports = match_imports(rows, executions)
        taken = {one.arn for one in matched.values()}
        # Repeated attempts are one job with the first.
        names = {(p.prefix, p.at) for one in matched.values() if (p := name_parts(one.name))}
        for row in rows:
            if row.id not in imports:
                yield self._view(row, matched.get(row.id), jobs, now, is_known=is_known)
        for execution in executions:
            parts = name_parts(execution.name)
            if execution.arn in taken or (parts and (parts.prefix, parts.at) in names):
                continue
            yield self._view(None, execution, jobs, now)

    def _of_stack(
        self, executions: list[Execution], rows: Sequence[RunRow], notes: list[str]
    ) -> list[Execution]:
        """Return the executions of the target's own stack.

        Only remote development has several in one state machine.
        """
        if not self.deployment.stack or not executions:
            return executions
        marks = told(self.engine.own, notes) or set()
        began = min((one.started for one in executions if one.started), default=None)
        own, unsure = [], []
        jobs: dict[str, Attempt] | None = None
        for one in executions:
            parts = name_parts(one.name)
            if one.arn in marks or (parts is not None and parts.at in marks):
                own.append(one)
            elif not one.state.ended:
                if jobs is None and began is not None:
                    jobs = self._jobs_by_arn(began, notes)
                job = (jobs or {}).get(one.arn)
                if job is not None:
                    prefix = job.environment.get("REMOTE_DEV_PREFIX", "")
                    own += [one] if prefix == self.deployment.prefix else []
                else:
                    unsure.append(one)
        matched = {one.arn for one in match(rows, unsure).values()}
        return [*own, *(one for one in unsure if one.arn in matched)]

    def _with_kinds(self, executions: list[Execution], notes: list[str]) -> list[Execution]:
        """Return the executions with the kinds of those whose names do not tell it."""
        if all(one.kind for one in executions):
            return executions
        kinds = told(self.engine.scheduled, notes) or {}
        return [
            one if one.kind else replace(one, kind=kinds.get(one.arn, "")) for one in executions
        ]

    def _running_jobs(
        self, executions: Sequence[Execution], notes: list[str]
    ) -> dict[str, Attempt] | None:
        running = [one.started for one in executions if not one.state.ended and one.started]
        return self._jobs_by_arn(min(running), notes) if running else None

    def _jobs_by_arn(self, since: dt.datetime, notes: list[str]) -> dict[str, Attempt] | None:
        """Return the latest of Batch's jobs for each execution that was started since a time.

        None if Batch cannot be asked.
        """
        found = told(lambda: self.engine.jobs_since(since - SKEW), notes)
        if found is None or not self.engine.queues:
            return None
        found.sort(key=lambda job: job.created or _EARLIEST)
        return {self._arn_of(job): job for job in found}

    def _arn_of(self, job: Attempt) -> str:
        return job.environment.get("SFN_EXECUTION_ID") or self.engine.arn(job.name)

    def _view(
        self,
        row: RunRow | None,
        execution: Execution | None,
        jobs: Mapping[str, Attempt] | None,
        now: dt.datetime,
        *,
        is_known: bool = True,
    ) -> JobView:
        job = jobs.get(execution.arn) if jobs and execution is not None else None
        state = execution.state if execution is not None else None
        runs = state is not None and not state.ended
        waits = runs and jobs is not None and (job is None or job.is_waiting)
        return JobView(
            state_of(row, state, now, is_known=is_known, waits=waits),
            row,
            execution,
            step=job.state if job is not None and runs else "",
            kind=(execution.kind if execution else "") or (kind_of(job) if job else "") or "",
        )

    # One job

    def find(self, key: str, find_row: Callable[[int], RunRow | None], now: dt.datetime) -> JobView:
        """Return a job by the ID of its row, or the name or ARN of its execution.

        Raises:
            NotFoundError: There is no such job.
        """
        number = run_id_of(key)
        if number is not None:
            row = find_row(number)
            if row is None:
                raise not_found(key)
            execution = self.execution_of(row, now)
            return self._found(row, execution, now)
        if key.startswith("arn:"):
            key = key.rpartition(":")[2]
        execution = self.engine.describe(key)
        if execution is None or not execution.belongs_to(self.deployment):
            raise not_found(key)
        number = execution.workflow_id
        return self._found(find_row(number) if number is not None else None, execution, now)

    def _found(
        self, row: RunRow | None, execution: Description | None, now: dt.datetime
    ) -> JobView:
        jobs: dict[str, Attempt] | None = None
        if execution is not None and not execution.state.ended and self.engine.queues:
            found = self.engine.jobs_named(execution.name)
            jobs = {execution.arn: found[-1]} if found else {}
        return self._view(row, execution, jobs, now)

    def execution_of(
        self, row: RunRow, now: dt.datetime, known: Sequence[Execution] | None = None
    ) -> Description | None:
        """Return the execution of a row: the last one whose input has its ID, or None.

        Args:
            row: The row.
            now: The time.
            known: All executions since the row's start, if they were listed already.
        """
        if row.started is None:
            return None
        if row.started > now - _KEPT - LIMIT:
            if known is None:
                known = self.engine.executions(since=row.started - SKEW)
            for one in candidates(row, known)[:_DESCRIBED]:
                if one.arn not in self._descriptions:
                    self._descriptions[one.arn] = self.engine.describe(one.arn)
                found = self._descriptions[one.arn]
                if found is not None and self._is_of(found, row):
                    attempts = self.engine.attempts(found.name)
                    return attempts[-1] if attempts else found
        return self._archived(row)

    def _archived(self, row: RunRow) -> Description | None:
        app = self.engine.apps.get("nextstrain-ondemand-sfn")
        if app is None or row.started is None or row.group is None:
            return None
        for folder in archive_folders(app, row.group, row.started):
            found = self.engine.archived(folder, lambda one: self._is_of(one, row))
            if found is not None:
                return found
        return None

    def _is_of(self, execution: Description, row: RunRow) -> bool:
        return execution.workflow_id == row.id and execution.belongs_to(self.deployment)

    def why(self, view: JobView, now: dt.datetime) -> Reason:
        """Return the cause of a job's end, from everything that AWS still knows."""
        execution, row = view.execution, view.row
        if not isinstance(execution, Description):
            assert row is not None  # noqa: S101 - a job is one or the other
            return _without_execution(row, now)
        evidence = self.engine.evidence(execution)
        cause = find_cause(evidence)
        name, text, advice = cause.name, cause.reason, cause.next
        if name == "succeeded" and row is not None and row.status != COMPLETED:
            name = "not-saved"
            text = f"The execution succeeded, but the run is {row.status} in the database."
            advice = "Check if the database was restored from a backup; then: jobs reconcile"
        return Reason(
            name,
            text,
            advice,
            _facts(execution, evidence),
            None if evidence.lines is None else list(evidence.lines)[-_LINES:],
            _notes(execution, evidence),
        )

    def logs(self, view: JobView, *, step: str | None, follow: bool) -> Iterator[str]:
        """Yield the lines of a job's log.

        Raises:
            NotFoundError: The job has no execution.
        """
        if not isinstance(view.execution, Description):
            raise NotFoundError(
                f"Job {view.key} has no log: no execution was found.",
                hint=f"See why: aspencli jobs why {view.key}",
            )
        return self.engine.logs_of(view.execution, step=step, follow=follow)

    def outputs(self, view: JobView) -> Iterator[tuple[str, str, int, dt.datetime | None]]:
        """Yield the bucket, key, size, and time of each object of a job."""
        if view.row is not None and view.row.kind == "tree":
            bucket = self.aws.secret.require(_BUCKET)
            yield from self._objects(f"s3://{bucket}/phylo_run/{view.row.filestem}/{view.row.id}/")
        if isinstance(view.execution, Description) and view.execution.output:
            yield from self._objects(f"{view.execution.output}/")

    def _objects(self, address: str) -> Iterator[tuple[str, str, int, dt.datetime | None]]:
        bucket, _ = split_address(address)
        for key, size, when in self.engine.objects(address):
            yield bucket, key, size, when

    # Writes

    def start(self, kind: str, parameters: Mapping[str, Any], prefix: str, now: dt.datetime) -> str:
        """Start a job, and return the name of its execution."""
        return self.engine.start(kind, parameters, self.new_name(kind, parameters, prefix, now))

    def new_name(
        self, kind: str, parameters: Mapping[str, Any], prefix: str, now: dt.datetime
    ) -> str:
        """Return the name of a new execution of a kind."""
        slug = str(parameters.get("pathogen", ""))
        words = {
            "qc": f"ondemand-{slug}-lineage-qc",
            "lineages": "ondemand-pangolin",
        }.get(kind, f"ondemand-{slug}-{kind}")
        start = f"{prefix}-{words}" if prefix else words
        ending = now.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return execution_name(start, ending)

    def check_start(self, kind: str, parameters: Mapping[str, Any]) -> None:
        """Check that the deployment can run such a job.

        Raises:
            EngineError: It cannot.
        """
        self.engine.input(kind, parameters, "check")

    def cancel(self, view: JobView, why: str) -> dt.datetime | None:
        """Stop a job, and return when it ended if it was stopped; None if it ended by itself."""
        assert view.execution is not None  # noqa: S101 - the plan has one
        self.engine.cancel(view.execution.name, why)
        found = self.engine.describe(view.execution.name)
        if found is None or found.state is State.DONE:
            return None
        return found.ended or dt.datetime.now(dt.UTC)

    def require_retry(self, view: JobView) -> Execution:
        """Return the execution that a retry repeats.

        Raises:
            ConflictError: There is none, or it has not ended.
        """
        execution = view.execution
        if not isinstance(execution, Description) or not execution.input:
            raise ConflictError(
                f"Job {view.key} has no execution to repeat; nothing was written.",
                hint="Start a new one: aspencli phylo-runs create --help",
            )
        if not execution.state.ended:
            raise ConflictError(
                f"Job {view.key} has not ended; nothing was written.",
                hint=f"Wait for it, or cancel it: aspencli jobs cancel {view.key}",
            )
        return execution

    def retry(self, view: JobView) -> str:
        """Start a job that ended again, and return the name of its execution."""
        execution = self.require_retry(view)
        if isinstance(execution, Description) and execution.archived:
            raise ConflictError(
                f"Step Functions no longer has the execution of job {view.key}; nothing was "
                "written.",
                hint="Start a new one: aspencli phylo-runs create --help",
            )
        return self.engine.retry(execution.name)

    # Rows that nothing will ever change

    def stuck(self, rows: Sequence[RunRow], now: dt.datetime) -> list[Settlement]:
        """Return how to settle the rows whose job has ended, or does not exist.

        Args:
            rows: All rows that are STARTED.
            now: The time.
        """
        live = self.live_runs(rows)
        gone = [
            row
            for row in rows
            if row.id not in live and not (row.started and now - row.started < GRACE)
        ]
        if not gone:
            return []
        began = min((row.started for row in gone if row.started), default=now)
        known = self.engine.executions(since=max(began, now - _KEPT - LIMIT) - SKEW)
        return [self._settlement(row, known, now) for row in gone]

    def live_runs(self, rows: Sequence[RunRow]) -> set[int]:
        """Return the IDs of the rows with a job that runs, as the inputs of running jobs say."""
        running = self.engine.executions(status="RUNNING")
        found: set[int] = set()
        imports = False
        for one in running:
            if one.kind in {"qc", "lineages"}:
                continue
            description = self.engine.describe(one.arn)
            if description is None or not description.belongs_to(self.deployment):
                continue
            if description.workflow_id is not None:
                found.add(description.workflow_id)
            imports = imports or description.kind == "import-repository"
        if imports:
            found |= {row.id for row in rows if row.kind != "tree"}
        return found

    def _settlement(self, row: RunRow, known: Sequence[Execution], now: dt.datetime) -> Settlement:
        execution = self.execution_of(row, now, known) if row.kind == "tree" else None
        if execution is None:
            too_old = row.started is None or now - row.started > LIMIT
            reason = (
                "no execution exists, and none can run for more than 72 hours"
                if too_old
                else "no execution exists"
            )
            return Settlement(row, FAILED, now, reason)
        status = FAILED
        if execution.state is State.DONE and row.tree is not None:
            status = COMPLETED
        ended = execution.ended or now
        return Settlement(row, status, ended, f"its execution ended as {execution.status}")

    def schedule(self) -> list[dict[str, Any]]:
        """Return the schedules as rows of a result."""
        start = self.deployment.rules
        return [
            {
                "name": str(rule["Name"]).removeprefix(start),
                "schedule": str(rule.get("ScheduleExpression", "")),
                "enabled": rule.get("State") == "ENABLED",
                "group": None,
                "rule": str(rule["Name"]),
                "note": None,
            }
            for rule in self.engine.rules()
        ]


_EARLIEST = dt.datetime.min.replace(tzinfo=dt.UTC)


def not_found(key: str) -> NotFoundError:
    """Return the error for a job that does not exist."""
    return NotFoundError(f"No such job: {key!r}", hint="List the jobs: aspencli jobs list")


def told(read: Callable[[], T], notes: list[str]) -> T | None:
    """Return what is read, or None after a note of why it cannot be read."""
    try:
        return read()
    except AspenError as error:
        hint = f" {error.hint}" if error.hint else ""
        notes.append(f"{error.message}{hint}")
    except EngineError as error:
        notes.append(f"{error} {error.hint}".strip())
    return None


def _before(since: dt.datetime | None) -> dt.datetime | None:
    return None if since is None else since - SKEW


def _named(view: JobView, groups: Mapping[str, str]) -> JobView:
    """Return a view with the group and pathogen that the execution's name tells."""
    if view.row is not None or view.execution is None:
        return view
    parts = name_parts(view.execution.name)
    if parts is None:
        return view
    group = groups.get(parts.prefix, parts.prefix or None)
    return replace(view, group=group, pathogen=parts.slug or None)


def _facts(execution: Description, evidence: Evidence) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "execution": execution.name,
        "execution_status": execution.status,
        "error": execution.error or None,
        "failed_state": evidence.failures[0].state if evidence.failures else None,
    }
    if (last := evidence.last) is not None:
        facts |= {
            "attempt": last.state or None,
            "batch_job": last.id,
            "batch_reason": last.reason or None,
            "container_reason": last.container or None,
            "exit_code": last.exit_code,
            "log_stream": last.stream or None,
        }
    return facts


def _notes(execution: Description, evidence: Evidence) -> list[str]:
    notes = list(evidence.gaps)
    if execution.archived:
        notes.append("Step Functions no longer has the execution; its archive was read.")
    last = evidence.last
    if last is not None and last.stream and evidence.lines is None:
        notes.append(f"The log stream {last.stream} does not exist.")
    return notes


def _without_execution(row: RunRow, now: dt.datetime) -> Reason:
    if row.status == COMPLETED:
        return Reason("succeeded", "The run is COMPLETED in the database; nothing failed.")
    is_old = row.started is not None and now - row.started > _KEPT
    if row.status == FAILED:
        return Reason(
            "unknown",
            "The run is FAILED in the database, and no execution of it exists: "
            + (
                "Step Functions keeps executions for 90 days, and the bucket has no archive of it."
                if is_old
                else "none was started, or it belongs to another stack."
            ),
            "Start a new run: aspencli phylo-runs create --help",
        )
    if row.started is not None and now - row.started < GRACE:
        return Reason(
            "starting",
            "The row was written a moment ago, and its job may not have been started yet.",
            "Look again in a few minutes.",
        )
    return Reason("never-started", _NO_JOB, "Settle the row: aspencli jobs reconcile")
