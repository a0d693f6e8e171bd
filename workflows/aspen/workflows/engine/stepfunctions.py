"""Jobs of a cloud deployment: Step Functions, with Batch, CloudWatch Logs, and the archive in S3.

An ID is the name of an execution. Needs the standard library and boto3 only, which the caller
loads; credentials, time limits, and messages about AWS are the caller's, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Protocol, TypeVar

from aspen.workflows.engine import EngineError, Job, State
from aspen.workflows.engine.causes import find_cause
from aspen.workflows.engine.evidence import (
    Attempt,
    Evidence,
    merged,
    read_attempt,
    read_history,
)
from aspen.workflows.engine.executions import (
    APPS,
    SCHEDULED,
    App,
    Deployment,
    Description,
    Execution,
    attempt_number,
    clean,
    described,
    moment,
    name_parts,
    read_app,
    retry_name,
    workflow_kind,
)

T = TypeVar("T")
_PAGE, _BATCH_PAGE, _PARAMETERS = 1_000, 100, 10
_LINES = 200
_PAUSE_S, _PATIENCE_S = 2.0, 60.0
_NOT_FOUND = frozenset(
    {
        *("ExecutionDoesNotExist", "ResourceNotFoundException", "NoSuchKey", "NoSuchBucket"),
        *("StateMachineDoesNotExist", "404"),
    }
)
_EXISTS = "ExecutionAlreadyExists"
_ONE_APP = {
    "tree": "nextstrain-ondemand-sfn",
    "lineages": "pangolin-ondemand-sfn",
    "qc": "lineage-qc-ondemand-sfn",
}
_STALE_LINEAGES = "pangolin-sfn"
_IMPORTS = {
    "SC2": ("gisaid-sfn", "upstream_ndjson_url", "upstream_aligned_url"),
    "MPX": ("genbank-mpx-sfn", "genbank_metadata_url", "genbank_alignment_url"),
}
"""The parameter of each pathogen's import, and its inputs for metadata and sequences."""


class Caller(Protocol):
    """A function that makes calls to AWS."""

    def __call__(self, what: str, service: str, work: Callable[[Any], T]) -> T:
        """Return the result of calls to a service, given its client; ``what`` is the purpose."""
        ...


class StepFunctionsEngine:
    """The engine of a cloud deployment.

    Args:
        call: Makes calls to AWS.
        deployment: The deployment's names.
    """

    def __init__(self, call: Caller, deployment: Deployment):
        self._call = call
        self.deployment = deployment

    # The deployment

    @cached_property
    def apps(self) -> Mapping[str, App]:
        """Return the parameters that exist, by name.

        Raises:
            EngineError: There is none.
        """
        path = self.deployment.parameters
        names = [path + name for name in APPS]
        found: dict[str, str] = {}
        for start in range(0, len(names), _PARAMETERS):
            some = names[start : start + _PARAMETERS]

            def get(client: Any, some: list[str] = some) -> Any:
                return client.get_parameters(Names=some)

            answer = self._call("read the parameters of the jobs", "ssm", get)
            found |= {one["Name"]: one["Value"] for one in answer["Parameters"]}
        if not found:
            raise EngineError(
                f"No jobs are deployed: there is no parameter below {path}.",
                "Check the stack's name, and the account and region: target check",
            )
        return {
            name: read_app(path + name, found[path + name]) for name in APPS if path + name in found
        }

    @cached_property
    def machine(self) -> str:
        """Return the ARN of the state machine, which all kinds of jobs share."""
        return next(iter(self.apps.values())).machine

    def arn(self, name: str) -> str:
        """Return the ARN of an execution."""
        if name.startswith("arn:"):
            return name
        return f"{self.machine.replace(':stateMachine:', ':execution:')}:{name}"

    @cached_property
    def queues(self) -> tuple[str, ...]:
        """Return the queues of Batch that the state machine submits jobs to."""

        def get(client: Any) -> str:
            return str(client.describe_state_machine(stateMachineArn=self.machine)["definition"])

        text = self._call("read the state machine", "stepfunctions", get)
        try:
            states = json.loads(text).get("States", {}).values()
        except (ValueError, AttributeError):
            return ()
        found = (state.get("Parameters", {}).get("JobQueue") for state in states)
        return tuple(dict.fromkeys(str(queue) for queue in found if queue))

    # Reading

    def executions(
        self,
        *,
        status: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> list[Execution]:
        """Return the executions of all stacks, the latest first, with the kinds that names tell.

        The number of requests grows with pages of 1,000, never with executions.
        """
        options = self._list_options(status, limit)
        found: list[Execution] = []
        what = "list the executions"
        for answer in self._pages(what, "stepfunctions", "list_executions", options):
            for one in answer["executions"]:
                started = moment(one.get("startDate"))
                if since is not None and started is not None and started < since:
                    return found
                found.append(_listed(one, started))
                if limit and len(found) == limit:
                    return found
        return found

    def _list_options(self, status: str | None, limit: int | None) -> dict[str, Any]:
        options: dict[str, Any] = {
            "stateMachineArn": self.machine,
            "maxResults": min(_PAGE, limit) if limit else _PAGE,
        }
        if status:
            options["statusFilter"] = status
        return options

    def _pages(
        self,
        what: str,
        service: str,
        method: str,
        options: Mapping[str, Any],
        tokens: tuple[str, str] = ("nextToken", "nextToken"),
    ) -> Iterator[Any]:
        """Yield the pages of a list; none if what is listed does not exist.

        Each page is a call of its own, since the caller limits the time of each.

        Args:
            what: The purpose.
            service: The name of the service.
            method: The method of its client.
            options: The arguments for the first page.
            tokens: The name of the token in an answer, and as an argument.
        """
        token: str | None = None
        while True:
            given = {**options, tokens[1]: token} if token else {**options}

            def get(client: Any, given: Mapping[str, Any] = given) -> Any:
                return getattr(client, method)(**given)

            answer = self._call(what, service, _or_none(get))
            if answer is None:
                return
            yield answer
            token = answer.get(tokens[0])
            if not token:
                return

    def describe(self, name: str) -> Description | None:
        """Return an execution by name or ARN, or None if Step Functions does not have it."""

        def get(client: Any) -> Any:
            return client.describe_execution(executionArn=self.arn(name))

        found = self._call("describe the execution", "stepfunctions", _or_none(get))
        return None if found is None else described(found)

    def history(self, arn: str) -> list[Mapping[str, Any]]:
        """Return the events of an execution; none if Step Functions does not have it."""
        options = {"executionArn": arn, "maxResults": _PAGE}
        what = "read the execution's history"
        pages = self._pages(what, "stepfunctions", "get_execution_history", options)
        return [event for page in pages for event in page["events"]]

    def jobs_since(self, moment: datetime) -> list[Attempt]:
        """Return Batch's jobs that were created since a time, a hundred for each request."""
        after = str(int(moment.timestamp() * 1000))
        return self._jobs({"name": "AFTER_CREATED_AT", "values": [after]})

    def jobs_named(self, name: str) -> list[Attempt]:
        """Return Batch's jobs of an execution, which have its name, the oldest first."""
        found = self._jobs({"name": "JOB_NAME", "values": [name]})
        return sorted(found, key=lambda job: job.created or _EPOCH)

    def _jobs(self, condition: Mapping[str, Any]) -> list[Attempt]:
        ids = []
        for queue in self.queues:
            options = {"jobQueue": queue, "filters": [condition]}
            for page in self._pages("list Batch's jobs", "batch", "list_jobs", options):
                ids += [job["jobId"] for job in page["jobSummaryList"]]
        return self.described_jobs(ids)

    def described_jobs(self, ids: Sequence[str]) -> list[Attempt]:
        """Return jobs by ID; those that Batch has forgotten are left out."""
        found: list[Attempt] = []
        for start in range(0, len(ids), _BATCH_PAGE):
            some = list(ids[start : start + _BATCH_PAGE])

            def get(client: Any, some: list[str] = some) -> Any:
                return client.describe_jobs(jobs=some)

            answer = self._call("describe Batch's jobs", "batch", get)
            found += [read_attempt(job) for job in answer["jobs"]]
        return found

    def lines(self, attempt: Attempt, most: int = _LINES) -> list[str] | None:
        """Return the last lines of an attempt's log, or None if the log does not exist."""
        if not attempt.stream:
            return None

        def get(client: Any) -> list[str]:
            answer = client.get_log_events(
                logGroupName=attempt.group or self.deployment.log_group,
                logStreamName=attempt.stream,
                limit=most,
                startFromHead=False,
            )
            return [str(event["message"]) for event in answer["events"]]

        return self._call("read the log", "logs", _or_none(get))

    def scheduled(self) -> dict[str, str]:
        """Return the kinds of executions that a schedule started, by ARN.

        Their names tell nothing, but all of a kind are archived in one folder.
        """
        found: dict[str, str] = {}
        for name in SCHEDULED:
            if (app := self.apps.get(name)) is not None:
                for key, _size, _when in self.objects(f"{app.output}/sfn-desc/"):
                    found[key.rpartition("/")[2]] = APPS[name]
        return found

    def own(self) -> set[str]:
        """Return what tells the executions of this stack: ARNs, and times that are in names."""
        marks: set[str] = set()
        for app in self.apps.values():
            for key, _size, _when in self.objects(f"{app.output}/"):
                parts = key.split("/")
                marks |= {parts[-1]} if "sfn-desc" in parts else set()
                marks |= {clean(part) for part in parts if part[:2] == "20"}
        return marks

    def objects(self, address: str) -> Iterator[tuple[str, int, datetime | None]]:
        """Yield the key, the size, and the time of each object whose address begins so."""
        bucket, prefix = split_address(address)
        options = {"Bucket": bucket, "Prefix": prefix}
        tokens = ("NextContinuationToken", "ContinuationToken")
        what = f"list the bucket {bucket}"
        for page in self._pages(what, "s3", "list_objects_v2", options, tokens):
            for one in page.get("Contents", ()):
                yield one["Key"], int(one["Size"]), moment(one.get("LastModified"))

    def document(self, address: str) -> Mapping[str, Any] | None:
        """Return an object that is JSON, or None if there is none."""
        bucket, key = split_address(address)

        def get(client: Any) -> bytes:
            return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())

        body = self._call(f"read from the bucket {bucket}", "s3", _or_none(get))
        if body is None:
            return None
        try:
            found = json.loads(body.decode() or "{}")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def archived(self, folder: str, wanted: Callable[[Description], bool]) -> Description | None:
        """Return the latest archived execution in a folder that is wanted, or None.

        Step Functions forgets an execution after 90 days; the bucket does not.

        Args:
            folder: The beginning of the addresses to look at.
            wanted: Returns True for the right one.
        """
        bucket, _ = split_address(folder)
        found: list[Description] = []
        for key, _size, _when in self.objects(folder):
            if "/sfn-desc/" in key:
                kept = self.document(f"s3://{bucket}/{key}")
                if kept and wanted(one := described(kept, archived=True)):
                    found.append(one)
        return max(found, key=lambda one: one.started or _EPOCH, default=None)

    # Causes

    def evidence(self, execution: Description, *, most: int = _LINES) -> Evidence:
        """Return everything that is known about an execution; what cannot be read is named."""
        reader = _EvidenceSources()
        attempts, failures = read_history(self._events(execution, reader))
        ids = [attempt.id for attempt in attempts]
        none: list[Attempt] = []
        jobs = reader.read("Batch", lambda: self.described_jobs(ids), none)
        if not ids and not execution.archived:
            jobs = reader.read("Batch", lambda: self.jobs_named(execution.name), none)
        attempts = merged(attempts, jobs)
        output: Mapping[str, Any] = {}
        if execution.output and execution.workflow:
            place = f"{execution.output}/{execution.output_name}/run_output.json"
            output = reader.read("output", lambda: self.document(place) or {}, output)
        last = attempts[-1] if attempts else None
        lines = None
        if last is not None:
            job = last
            lines = reader.read("log", lambda: self.lines(job, most), None)
        return Evidence(execution, attempts, failures, output, lines, reader.gaps)

    def _events(
        self, execution: Description, reader: _EvidenceSources
    ) -> Sequence[Mapping[str, Any]]:
        events: list[Mapping[str, Any]] = []
        if not execution.archived:
            events = reader.read("history", lambda: self.history(execution.arn), events)
        if not events and execution.output:
            place = f"{execution.output}/sfn-hist/{execution.arn}"
            kept = reader.read("archived history", lambda: self.document(place), None)
            events = list((kept or {}).get("events", ()))
        return events

    # The engine's interface

    def start(self, kind: str, parameters: Mapping[str, Any], job_id: str) -> str:
        """Start a job, unless one with this ID exists; return its ID.

        Raises:
            EngineError: It was not started.
        """
        return self.start_input(self.input(kind, parameters, job_id), job_id)

    def input(self, kind: str, parameters: Mapping[str, Any], job_id: str) -> dict[str, Any]:
        """Return the input that a job gets.

        Raises:
            EngineError: The deployment cannot run such a job.
        """
        parts = name_parts(job_id)
        suffix = f"/{parts.at if parts else job_id}"
        if kind == "qc":
            return self._app(_ONE_APP[kind]).input(_quality_run(parameters), suffix)
        if kind == "lineages":
            if parameters.get("run_type") in {"refresh-stale", "force-all"}:
                return self._app(_STALE_LINEAGES).input({}, suffix)
            samples = list(parameters.get("samples") or ())
            return self._app(_ONE_APP[kind]).input({"samples": samples}, suffix)
        if kind == "import-repository":
            return self._import_input(parameters, suffix)
        raise EngineError(
            f"Jobs of the kind {kind} cannot be started on a cloud deployment.",
            "Trees are started with: phylo-runs create"
            if kind == "tree"
            else "Its import jobs load lineages and locations together with a repository.",
        )

    def _import_input(self, parameters: Mapping[str, Any], suffix: str) -> dict[str, Any]:
        """Return the input of the scheduled import, with the files that the parameters name."""
        slug = str(parameters.get("pathogen", ""))
        if slug not in _IMPORTS:
            raise EngineError(
                f"No workflow imports the public repository of {slug!r}.",
                f"Choose from {', '.join(_IMPORTS)}.",
            )
        app, metadata, sequences = _IMPORTS[slug]
        wanted = {
            metadata: parameters.get("metadata"),
            sequences: parameters.get("sequences"),
        }
        values = {name: one for name, one in wanted.items() if one}
        found = self._app(app).scheduled_input
        run = {**found["Input"]["Run"], **values}
        return {
            **found,
            "Input": {**found["Input"], "Run": run},
            "OutputPrefix": f"{found['OutputPrefix']}{suffix}",
        }

    def start_input(self, given: Mapping[str, Any], name: str) -> str:
        """Start an execution with an input, unless one of this name exists; return the name."""

        def start(client: Any) -> None:
            client.start_execution(stateMachineArn=self.machine, name=name, input=json.dumps(given))

        self._call("start the execution", "stepfunctions", _or_none(start, {_EXISTS}))
        return name

    def jobs(self, *, kind: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Yield the jobs, the latest first."""
        count = 0
        for execution in self.executions():
            if kind is None or execution.kind == kind:
                yield job_of(execution)
                count += 1
                if limit and count == limit:
                    return

    def state(self, job_id: str) -> Job | None:
        """Return a job with the cause of its failure, or None if AWS does not know it."""
        execution = self.describe(job_id)
        if execution is None:
            return None
        job = job_of(execution)
        if execution.state is State.DONE:
            return job
        evidence = self.evidence(execution)
        last = evidence.last
        cause = find_cause(evidence)
        return replace(
            job,
            state=State.QUEUED if cause.name in {"queued", "never-starts"} else job.state,
            step=last.state if last else "",
            attempts=max(1, len(evidence.attempts)),
            reason=cause.reason if job.state.ended else "",
        )

    def cancel(self, job_id: str, why: str) -> None:
        """Stop a job, and wait until Step Functions says that it ended.

        Raises:
            EngineError: It has not ended within a minute.
        """
        arn = self.arn(job_id)

        def stop(client: Any) -> None:
            client.stop_execution(executionArn=arn, cause=why)

        self._call("stop the execution", "stepfunctions", stop)
        name = arn.rpartition(":")[2]
        for job in self.jobs_named(name):
            if job.status not in {"SUCCEEDED", "FAILED"}:
                self._terminate(job.id, why)
        deadline = time.monotonic() + _PATIENCE_S
        while (found := self.describe(arn)) is not None and not found.state.ended:
            if time.monotonic() > deadline:
                raise EngineError(
                    f"The execution {name} was told to stop, but has not ended.",
                    "Check it again in a minute: jobs show.",
                )
            time.sleep(_PAUSE_S)

    def _terminate(self, job: str, why: str) -> None:
        def end(client: Any) -> None:
            client.terminate_job(jobId=job, reason=why)

        self._call("end Batch's job", "batch", end)

    def attempts(self, job_id: str) -> list[Description]:
        """Return an execution and those that were started to repeat it, the oldest first."""
        first = self.describe(job_id)
        if first is None:
            return []
        number = attempt_number(first.name) + 1
        found = [first]
        while (one := self.describe(retry_name(first.name, number))) is not None:
            found.append(one)
            number += 1
        return found

    def retry(self, job_id: str) -> str:
        """Start a job that ended again, with the same input, and return the new ID.

        The name of the next attempt is the same for everyone, and Step Functions accepts each name
        once, so two operators cannot start two.

        Raises:
            EngineError: It does not exist, has not ended, or succeeded.
        """
        attempts = self.attempts(job_id)
        if not attempts:
            raise EngineError(f"No execution is named {job_id}.", "List the jobs: jobs list")
        last = attempts[-1]
        if not last.state.ended:
            raise EngineError(f"The execution {last.name} has not ended.", "Wait, or cancel it.")
        if last.state is State.DONE:
            raise EngineError(f"The execution {last.name} succeeded.", "There is nothing to retry.")
        number = attempt_number(last.name) + 1
        given = {**last.input, "OutputPrefix": _next_output(last.output, number)}
        return self.start_input(given, retry_name(last.name, number))

    def logs(self, job_id: str, *, step: str | None = None, follow: bool = False) -> Iterator[str]:
        """Yield the lines of a job's log, of all attempts or of one, named by its state.

        Raises:
            EngineError: The job is not known, or has no such attempt.
        """
        execution = self.describe(job_id)
        if execution is None:
            raise EngineError(f"No execution is named {job_id}.", "List the jobs: jobs list")
        yield from self.logs_of(execution, step=step, follow=follow)

    def logs_of(
        self, execution: Description, *, step: str | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Yield the lines of an execution's log; see `logs`."""
        read: dict[str, str | None] = {}
        while True:
            found = self.describe(execution.arn) if follow else None
            has_ended = not follow or found is None or found.state.ended
            attempts = self.evidence(execution, most=1).attempts
            chosen = [one for one in attempts if step is None or one.state == step]
            if step is not None and has_ended and not chosen:
                there = ", ".join(one.state for one in attempts) or "none"
                raise EngineError(f"The job has no attempt {step}.", f"Attempts: {there}.")
            for attempt in chosen:
                yield from self._new_lines(attempt, read)
            if has_ended:
                return
            time.sleep(_PAUSE_S)

    def _new_lines(self, attempt: Attempt, read: dict[str, str | None]) -> Iterator[str]:
        """Yield the lines that were added since the last time."""
        while attempt.stream:
            token = read.get(attempt.stream)

            def get(client: Any, token: str | None = token) -> Any:
                options = {"nextToken": token} if token else {}
                return client.get_log_events(
                    logGroupName=attempt.group or self.deployment.log_group,
                    logStreamName=attempt.stream,
                    startFromHead=True,
                    **options,
                )

            answer = self._call("read the log", "logs", _or_none(get))
            if answer is None:
                return
            yield from (str(event["message"]) for event in answer["events"])
            following = answer.get("nextForwardToken")
            read[attempt.stream] = following
            if not answer["events"] or following == token:
                return

    def rules(self) -> list[Mapping[str, Any]]:
        """Return the rules that start jobs by schedule."""
        options = {"NamePrefix": self.deployment.rules}
        tokens = ("NextToken", "NextToken")
        pages = self._pages("list the schedules", "events", "list_rules", options, tokens)
        return [rule for page in pages for rule in page["Rules"]]

    def _app(self, name: str) -> App:
        try:
            return self.apps[name]
        except KeyError:
            raise EngineError(
                f"No such job is deployed: {self.deployment.parameters}{name} does not exist.",
                "Check the stack's name, and the account and region: target check",
            ) from None


_EPOCH = datetime.fromtimestamp(0, UTC)


class _EvidenceSources:
    """A reader that records what could not be read, and continues with the other sources.

    Attributes:
        gaps: What could not be read, and why.
    """

    def __init__(self) -> None:
        self.gaps: list[str] = []

    def read(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """Return what a function reads, or ``otherwise`` if it fails."""
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - one source that fails hides no other
            message = getattr(error, "message", None) or str(error)
            self.gaps.append(f"{what}: {message}")
            return otherwise


def _quality_run(parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = ("pathogen_slug", "run_type", "sample_ids")
    run = {**dict.fromkeys(names), **parameters}
    run["pathogen_slug"] = parameters.get("pathogen_slug") or parameters.get("pathogen")
    run["sample_ids"] = list(parameters.get("sample_ids") or ())
    return {name: run[name] for name in names}


def job_of(execution: Execution) -> Job:
    """Return an execution as a job."""
    parameters: Mapping[str, Any] = {}
    if isinstance(execution, Description):
        parameters = execution.run
    return Job(
        id=execution.name,
        kind=execution.kind,
        state=execution.state,
        parameters=parameters,
        created=execution.started,
        started=execution.started,
        ended=execution.ended,
    )


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the key of an address such as ``s3://bucket/key``."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    return bucket, key


def kind_of(job: Attempt) -> str | None:
    """Return the kind of a job of Batch, which was given the address of its workflow."""
    return workflow_kind(job.environment.get("WDL_WORKFLOW_URI", ""))


def archive_folders(app: App, group: str, start: datetime) -> tuple[str, ...]:
    """Return where the archive of a tree run's execution is: by group and by the day of its start.

    The job can start after midnight, and the service's clock may not be in UTC.
    """
    days = {(start + timedelta(days=n)).date().isoformat() for n in (-1, 0, 1)}
    return tuple(f"{app.output}/{group}/{day}" for day in sorted(days))


def _next_output(output: str, number: int) -> str:
    base, mark, last = output.rpartition("-retry-")
    return f"{base if mark and last.isdigit() else output}-retry-{number}"


def _listed(one: Mapping[str, Any], started: datetime | None) -> Execution:
    parts = name_parts(str(one["name"]))
    return Execution(
        arn=str(one["executionArn"]),
        name=str(one["name"]),
        status=str(one["status"]),
        started=started,
        ended=moment(one.get("stopDate")),
        kind=parts.kind if parts else "",
    )


def _or_none(
    work: Callable[[Any], T], codes: frozenset[str] | set[str] = _NOT_FOUND
) -> Callable[[Any], T | None]:
    """Return a function that returns None where AWS answers that there is no such thing."""

    def attempt(client: Any) -> T | None:
        from botocore.exceptions import ClientError

        try:
            return work(client)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in codes:
                return None
            raise

    return attempt
