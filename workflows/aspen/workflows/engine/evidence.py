"""Evidence of an execution's end: its history, and the attempts that Batch made.

The history outlives Batch, which forgets a job after about a week: when an attempt ends, its event
has Batch's whole description of the job. Only the standard library is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aspen.workflows.engine.executions import Description, moment

WAITING = frozenset({"SUBMITTED", "PENDING", "RUNNABLE", "STARTING"})
"""The states of Batch's jobs that have no machine yet."""
_FAILURES = ("taskFailed", "taskTimedOut", "taskSubmitFailed", "taskStartFailed")
_LAMBDA_FAILURES = (
    *("lambdaFunctionFailed", "lambdaFunctionTimedOut"),
    *("lambdaFunctionStartFailed", "lambdaFunctionScheduleFailed"),
)


@dataclass(frozen=True)
class Attempt:
    """One job of Batch.

    Attributes:
        state: The state of the state machine that submitted it, such as ``RunSPOT``.
        status: Batch's status.
        reason: Batch's reason for the status.
        container: The reason that the container gave, such as ``OutOfMemoryError``.
        exit_code: The exit code of the container; None if it did not exit.
        group: The log group.
        stream: The log stream, which may not exist; empty if there is none.
        environment: The variables that the container was given.
    """

    id: str
    state: str = ""
    status: str = ""
    reason: str = ""
    container: str = ""
    exit_code: int | None = None
    group: str = ""
    stream: str = ""
    created: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    name: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_waiting(self) -> bool:
        """Return True if no machine has begun it."""
        return self.status in WAITING


@dataclass(frozen=True)
class Failure:
    """A state that failed, as the history has it."""

    state: str
    error: str
    cause: str


@dataclass(frozen=True)
class Evidence:
    """Everything that is known about an execution.

    Attributes:
        attempts: The jobs of Batch, the last one last.
        failures: The states that failed, the last one last.
        output: The output of the workflow: after a failure, ``error`` and ``cause``.
        lines: The end of the last attempt's log; None if there is no such log.
        gaps: What could not be read, and why.
    """

    execution: Description
    attempts: Sequence[Attempt] = ()
    failures: Sequence[Failure] = ()
    output: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] | None = None
    gaps: Sequence[str] = ()

    @property
    def last(self) -> Attempt | None:
        """Return the last attempt."""
        return self.attempts[-1] if self.attempts else None


def read_attempt(job: Mapping[str, Any], state: str = "") -> Attempt:
    """Return an attempt from Batch's description of a job, in either spelling of its keys."""
    job = _lower(job)
    container = job.get("container") or {}
    tries = job.get("attempts") or []
    last = (tries[-1].get("container") or {}) if tries else {}
    options = (container.get("logConfiguration") or {}).get("options") or {}
    environment = _environment(container)
    code = container.get("exitCode", last.get("exitCode"))
    return Attempt(
        id=str(job.get("jobId", "")),
        state=state or environment.get("SFN_CURRENT_STATE", ""),
        status=str(job.get("status", "")),
        reason=str(
            job.get("statusReason") or (tries[-1].get("statusReason") if tries else "") or ""
        ),
        container=str(container.get("reason") or last.get("reason") or ""),
        exit_code=None if code is None else int(code),
        group=str(options.get("awslogs-group") or ""),
        stream=str(container.get("logStreamName") or last.get("logStreamName") or ""),
        created=_millis(job.get("createdAt")),
        started=_millis(job.get("startedAt")),
        ended=_millis(job.get("stoppedAt")),
        name=str(job.get("jobName", "")),
        environment=environment,
    )


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(one.get("name")): str(one.get("value")) for one in container.get("environment") or ()
    }


def read_history(
    events: Iterable[Mapping[str, Any]],
) -> tuple[list[Attempt], list[Failure]]:
    """Return the attempts and the failed states of a history, in their order."""
    known: dict[int, Mapping[str, Any]] = {}
    attempts: dict[str, Attempt] = {}
    failures: list[Failure] = []
    for event in events:
        known[int(event.get("id", 0))] = event
        details = _details(event)
        if details is None:
            continue
        state = _state(event, known)
        if event.get("type") == "TaskSubmitted":
            job = _parsed(details.get("output"))
            if found := _job_id(job):
                attempts[found] = Attempt(found, state)
            continue
        if _is_failure(event):
            cause = str(details.get("cause") or "")
            job = _parsed(cause)
            if found := _job_id(job):
                attempts[found] = read_attempt(job, state)
                cause = attempts[found].reason
            failures.append(Failure(state, str(details.get("error") or ""), cause))
    return list(attempts.values()), failures


def ended(events: Iterable[Mapping[str, Any]]) -> datetime | None:
    """Return the time of the last event."""
    times = [moment(event.get("timestamp")) for event in events]
    return max((time for time in times if time), default=None)


def merged(attempts: Iterable[Attempt], jobs: Iterable[Attempt]) -> list[Attempt]:
    """Return the attempts of a history, with what Batch itself still knows about them."""
    known = {job.id: job for job in jobs}
    found = []
    for attempt in attempts:
        job = known.pop(attempt.id, None)
        if job is None:
            found.append(attempt)
            continue
        found.append(
            replace(
                job,
                state=attempt.state or job.state,
                reason=job.reason or attempt.reason,
                container=job.container or attempt.container,
                exit_code=attempt.exit_code if job.exit_code is None else job.exit_code,
                stream=job.stream or attempt.stream,
            )
        )
    return [*found, *sorted(known.values(), key=lambda job: job.created or _EPOCH)]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _details(event: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for key, value in event.items():
        if key.endswith("EventDetails") and isinstance(value, Mapping):
            return value
    return None


def _is_failure(event: Mapping[str, Any]) -> bool:
    return any(
        f"{name}EventDetails" in event for name in (*_FAILURES, *_LAMBDA_FAILURES, "activityFailed")
    )


def _state(event: Mapping[str, Any], known: Mapping[int, Mapping[str, Any]]) -> str:
    """Return the state that an event belongs to: that of the last one entered before it."""
    seen: Mapping[str, Any] | None = event
    for _ in range(len(known) + 1):
        if seen is None:
            return ""
        entered = seen.get("stateEnteredEventDetails")
        if isinstance(entered, Mapping):
            return str(entered.get("name", ""))
        seen = known.get(int(seen.get("previousEventId", 0)))
    return ""


def _parsed(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "null")
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _job_id(job: Mapping[str, Any]) -> str:
    return str(job.get("JobId") or job.get("jobId") or "")


def _lower(value: Any) -> Any:
    """Return a document with keys that begin in lower case, as Batch's own answers have them."""
    if isinstance(value, Mapping):
        return {key[:1].lower() + key[1:]: _lower(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_lower(one) for one in value]
    return value


def _millis(value: Any) -> datetime | None:
    if not isinstance(value, (int, float)) or not value:
        return None
    return datetime.fromtimestamp(value / 1000, UTC)
