"""The actual cause of a failed execution, in words for people, with what to do next.

The error of the execution itself is often that of its error handler, which hides the cause
(``KeyError: 'error'``). So the attempts of Batch come first, then the workflow's own output, then
the states that failed, and the error of the execution last. Only the standard library is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aspen.workflows.engine.evidence import Attempt, Evidence, Failure

HOURS, ATTEMPT_HOURS = 72, 15
"""The time limits of an execution, and of an attempt of Batch."""
_HANDLER = re.compile(r"KeyError.*'error'|^'error'$", re.S)
_RETRY = "Start it again: jobs retry."
_SPOT = f"A spot machine can be taken away at any time. {_RETRY}"
_DOCKER = f"The machine was overloaded or its disk slow. {_RETRY}"
_MEMORY = (
    "Raise RunSPOTMemory and RunEC2Memory in the parameter, or use fewer samples; then start it "
    "again: jobs retry."
)
_LOGS = "Read the whole log: jobs logs."
_NOISE = re.compile(r"termination check$|^\s*$")
_KILLED = 137  # 128 + SIGKILL
_LONGEST = 500
_LAMBDA_STATES = frozenset({"PreprocessInput", "RunReadOutput"})


@dataclass(frozen=True)
class Cause:
    """The cause of a failure.

    Attributes:
        name: A short name for programs, such as ``out-of-memory``.
        reason: What happened.
        next: What to do next; empty if there is nothing to do.
    """

    name: str
    reason: str
    next: str = ""


def find_cause(evidence: Evidence) -> Cause:
    """Return the cause of an execution's end, or what it waits for if it has not ended."""
    execution = evidence.execution
    if execution.status in {"RUNNING", "PENDING_REDRIVE"}:
        return _running(evidence)
    if execution.status == "SUCCEEDED":
        return Cause("succeeded", "The job did not fail.")
    if execution.status == "ABORTED":
        said = f": {_cut(execution.cause)}" if execution.cause else "; no reason was given"
        return Cause("cancelled", f"The execution was stopped by hand{said}.".replace("..", "."))
    if execution.status == "TIMED_OUT" or execution.error == "States.Timeout":
        return _timed_out(evidence)
    return _failed(evidence)


def _failed(evidence: Evidence) -> Cause:
    if (last := evidence.last) is not None and (cause := _of_attempt(last, evidence)):
        return cause
    if cause := _of_output(evidence) or _of_states(evidence.failures):
        return cause
    return _of_error(evidence)


def _running(evidence: Evidence) -> Cause:
    last = evidence.last
    if last is None:
        return Cause("running", "The job has not ended; no machine was requested for it yet.")
    if last.is_waiting:
        if "MISCONFIGURATION" in last.reason:
            return Cause(
                "never-starts",
                f"The job waits for a machine that Batch can never provide: {_cut(last.reason)}.",
                "Correct the compute environment or the job's memory and vCPU, then cancel the job "
                "and start it again.",
            )
        said = f" ({_cut(last.reason)})" if last.reason else ""
        return Cause("queued", f"The job waits for a machine{said}.", "Wait.")
    return Cause("running", f"The job has not ended; it is in {last.state or 'its only step'}.")


def _timed_out(evidence: Evidence) -> Cause:
    last = evidence.last
    where = ""
    if last is not None:
        waited = "was still waiting for a machine" if last.is_waiting else "was running"
        where = f" {last.state or 'The last attempt'} {waited if not last.ended else 'had ended'}."
    return Cause(
        "time-limit",
        f"The execution reached its time limit of {HOURS} hours.{where}",
        "Check if machines are available, or use fewer samples; then start it again: jobs retry.",
    )


_Test = Callable[[Attempt], bool]


def _said(pattern: str) -> _Test:
    compiled = re.compile(pattern, re.I)
    return lambda attempt: bool(
        compiled.search(attempt.reason) or compiled.search(attempt.container)
    )


_OF_ATTEMPT: tuple[tuple[_Test, str, str, str], ...] = (
    (
        _said(r"Host EC2 \(instance .*\) terminated"),
        "machine-lost",
        "The machine was taken away during {state} ({reason}).",
        _SPOT,
    ),
    (
        _said(r"attempt duration exceeded timeout"),
        "attempt-time-limit",
        f"The attempt {{state}} reached its time limit of {ATTEMPT_HOURS} hours.",
        "Use fewer samples, or have the limit raised; then start it again: jobs retry.",
    ),
    (
        _said(r"OutOfMemory"),
        "out-of-memory",
        "The job used more memory than it was given, and was killed ({reason}).",
        _MEMORY,
    ),
    (
        _said(r"CannotPullContainer|manifest unknown|image .*not found"),
        "image-missing",
        "The container's image could not be pulled ({reason}).",
        "Check the image's tag and the registry, then start it again: jobs retry.",
    ),
    (
        _said(r"DockerTimeout|Could not transition to created"),
        "docker-timeout",
        "Docker did not start the container in time ({reason}).",
        _DOCKER,
    ),
    (
        _said(r"CannotStartContainer|CannotCreateContainer|CannotInspectContainer"),
        "container-not-started",
        "The container could not be started ({reason}).",
        "Check the job definition and the image, then start it again: jobs retry.",
    ),
    (
        _said(r"ResourceInitializationError|unable to retrieve secret"),
        "resources-missing",
        "Something that the container needs was not available ({reason}).",
        "Check the secret and the job's role, then start it again: jobs retry.",
    ),
    (
        _said(r"job definition .*(not exist|INACTIVE)|no longer active"),
        "job-definition-missing",
        "Batch's job definition cannot be used ({reason}).",
        "Deploy the stack again, then start the job again: jobs retry.",
    ),
)
_OF_LINES: tuple[tuple[str, str, str, str], ...] = (
    (
        r"No space left on device|disk quota exceeded",
        "disk-full",
        "The machine's disk is full: {line}",
        "Use fewer samples, or a larger disk; then start it again: jobs retry.",
    ),
    (
        r"missing required input|unknown input|check JSON input|unexpected input",
        "input-refused",
        "The workflow refused its input: {line}",
        "Compare the input (jobs show) with the inputs that the workflow declares.",
    ),
    (
        r"AccessDenied|403 Forbidden|not authorized to perform",
        "access-denied",
        "AWS denied the job something that it needs: {line}",
        "Check the role of the job, then start it again: jobs retry.",
    ),
    (
        r"OperationalError|could not connect to server|connection to server .* failed",
        "database-unreachable",
        "The job could not reach the database: {line}",
        "Check the database (db status), then start it again: jobs retry.",
    ),
    (
        r"MemoryError|Cannot allocate memory|Out of memory",
        "out-of-memory",
        "The job ran out of memory: {line}",
        _MEMORY,
    ),
    (
        r"SPOT INSTANCE HAS BEEN SCHEDULED FOR TERMINATION",
        "machine-lost",
        "The spot machine was taken away: {line}",
        _SPOT,
    ),
)
_ORDINARY = re.compile(r"Essential container in task exited", re.I)


def _of_attempt(last: Attempt, evidence: Evidence) -> Cause | None:
    facts = {
        "state": last.state or "the attempt",
        "reason": _cut(last.container or last.reason),
    }
    for test, name, reason, advice in _OF_ATTEMPT:
        if test(last):
            return Cause(name, reason.format(**facts) + _before(evidence), advice)
    if last.status == "SUCCEEDED":
        return None
    return _of_lines(evidence) or _of_output(evidence) or _of_exit(last, evidence)


def _of_lines(evidence: Evidence) -> Cause | None:
    lines = _useful(evidence.lines)
    for pattern, name, reason, advice in _OF_LINES:
        if line := next((one for one in reversed(lines) if re.search(pattern, one, re.I)), None):
            return Cause(name, _sentence(reason.format(line=_cut(line))), advice)
    return None


def _of_exit(last: Attempt, evidence: Evidence) -> Cause | None:
    lines = _useful(evidence.lines)
    if last.exit_code == _KILLED:
        return Cause(
            "killed",
            "The job was killed (exit code 137), most likely for using too much memory.",
            "Raise RunSPOTMemory and RunEC2Memory in the parameter; then start it again: "
            "jobs retry.",
        )
    if last.exit_code:
        said = f" Its log ends with: {_sentence(_cut(lines[-1]))}" if lines else ""
        if evidence.lines is None:
            said = " Its log does not exist."
        return Cause(
            "exit-code",
            f"The job failed in {last.state or 'Batch'} with exit code {last.exit_code}.{said}",
            _LOGS if lines else _RETRY,
        )
    if last.reason and not _ORDINARY.search(last.reason):
        return Cause("batch", _sentence(f"Batch ended the job: {_cut(last.reason)}"), _RETRY)
    return None


def _before(evidence: Evidence) -> str:
    """Return a sentence about the attempt before the last one, if that failed too."""
    earlier = evidence.attempts[:-1]
    if not earlier or not (earlier[-1].reason or earlier[-1].container):
        return ""
    said = _cut(earlier[-1].container or earlier[-1].reason).rstrip(".")
    return f" Before that, {earlier[-1].state or 'an attempt'} failed: {said}."


def _of_output(evidence: Evidence) -> Cause | None:
    """Return the error that the workflow itself wrote, which has no handler in between."""
    error = evidence.output.get("error")
    if not error:
        return None
    cause = evidence.output.get("cause") or evidence.output.get("message") or ""
    if isinstance(cause, dict):
        cause = cause.get("message") or cause.get("error") or json.dumps(cause)
    said = f": {_cut(str(cause))}" if cause else ""
    reason = f"The workflow failed with {error}{said}"
    if re.search(r"input", str(error), re.I):
        return Cause(
            "input-refused",
            _sentence(reason),
            "Compare the input (jobs show) with the inputs that the workflow declares.",
        )
    return Cause("workflow-error", _sentence(reason), _LOGS)


def _of_states(failures: Sequence[Failure]) -> Cause | None:
    """Return the cause that the first failed state gives; later ones only follow from it."""
    return next(filter(None, map(_of_state, failures)), None)


def _of_state(failure: Failure) -> Cause | None:
    text = f"{failure.error} {failure.cause}"
    said = _cut(_message(failure.cause)) or failure.error
    if failure.error.startswith("Batch."):
        return Cause(
            "batch-refused",
            _sentence(f"Batch did not accept the job in {failure.state}: {said}"),
            "Check the job queue and the job definition, then start it again: jobs retry.",
        )
    if _HANDLER.search(text):
        return None
    if "DataLimitExceeded" in text:
        return Cause(
            "input-too-large",
            f"The state {failure.state} has more data than Step Functions accepts (256 KB).",
            "Use fewer samples for each job.",
        )
    if failure.error.startswith(("Lambda.", "States.")) or failure.state in _LAMBDA_STATES:
        return Cause(
            "state-failed",
            _sentence(f"The state {failure.state} failed with {failure.error}: {said}"),
            _RETRY,
        )
    return None


def _of_error(evidence: Evidence) -> Cause:
    execution = evidence.execution
    text = f"{execution.error} {_message(execution.cause)}"
    if _HANDLER.search(text.strip()) or _HANDLER.search(_message(execution.cause)):
        return Cause(
            "no-output",
            "The job ended before it wrote any output, so its error handler failed with "
            "KeyError: 'error'. Batch no longer knows the job, so the reason is not known.",
            _RETRY,
        )
    said = _cut(_message(execution.cause))
    if execution.error == "States.DataLimitExceeded":
        return Cause(
            "input-too-large",
            "The execution has more data than Step Functions accepts (256 KB).",
            "Use fewer samples for each job.",
        )
    if execution.error or said:
        joined = ": ".join(filter(None, (execution.error, said)))
        return Cause("error", _sentence(f"The execution failed with {joined}"), _LOGS)
    return Cause("unknown", "The execution failed, and AWS gives no reason.", _LOGS)


def _message(cause: str) -> str:
    """Return the message of a cause, which is JSON if a Lambda function raised an error."""
    try:
        found = json.loads(cause)
    except ValueError:
        return cause
    if isinstance(found, dict) and "errorMessage" in found:
        kind = found.get("errorType")
        return f"{kind}: {found['errorMessage']}" if kind else str(found["errorMessage"])
    return cause


def _useful(lines: Sequence[str] | None) -> list[str]:
    return [line.strip() for line in lines or () if not _NOISE.search(line)]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _cut(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
