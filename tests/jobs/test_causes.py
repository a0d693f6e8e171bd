"""``jobs why`` names the actual cause of every planted accident."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.jobs.conftest import NOW, Operator
from tests.jobs.lab import History

HANDLER = json.dumps(
    {"errorMessage": "'error'", "errorType": "KeyError", "stackTrace": ["stage_io.py", "line 47"]}
)
TASK = {"error": "States.TaskFailed", "cause": "the handler's words"}
HANDLED = {"error": "KeyError", "cause": HANDLER}
Plant = Callable[[Operator], tuple[str, dict[str, Any]]]


class Accident:
    """A run whose execution ended in some way."""

    def __init__(self, operator: Operator, age: dt.timedelta = dt.timedelta(hours=5)):
        self.operator, self.lab = operator, operator.cloud
        self.started = NOW - age
        self.run = operator.add_run("STARTED", self.started)
        self.history = History(self.started)
        self.arn = self.start()

    def start(self) -> str:
        return self.lab.tree(
            self.run,
            self.operator.prefix(),
            self.started + dt.timedelta(seconds=1),
            group=self.operator.group(),
        )

    def attempt(self, state: str, **said: Any) -> dict[str, Any]:
        job = self.lab.job(self.arn, state, **said)
        self.history.attempt(state, job)
        return job

    def end(self, status: str = "FAILED", **said: Any) -> int:
        found = self.lab._execution(self.arn)
        found.status, found.stop_date = status, NOW
        found.error, found.cause = said.get("error"), said.get("cause")
        events = self.history.events
        found.get_execution_history = lambda _role: events
        return self.run


ACCIDENTS: dict[str, tuple[Callable[[Operator], int], str, str]] = {}


def accident(cause: str, says: str) -> Callable[[Callable[[Operator], int]], None]:
    def add(plant: Callable[[Operator], int]) -> None:
        ACCIDENTS[plant.__name__] = (plant, cause, says)

    return add


@accident("out-of-memory", r"more memory than it was given.*OutOfMemoryError")
def out_of_memory(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt(
        "RunSPOT",
        reason="Essential container in task exited",
        container="OutOfMemoryError: Container killed due to memory usage",
        code=137,
    )
    return it.end(**HANDLED)


@accident("machine-lost", r"taken away during RunEC2.*Before that, RunSPOT failed: Host EC2")
def both_machines_lost(operator: Operator) -> int:
    it = Accident(operator)
    for state in ("RunSPOT", "RunEC2"):
        it.attempt(state, reason=f"Host EC2 (instance i-{state}) terminated.", lines=None)
    return it.end(**HANDLED)


@accident("exit-code", r"RunEC2 with exit code 1.*Snakemake cannot continue")
def spot_lost_then_script_failed(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Host EC2 (instance i-0a) terminated.")
    it.attempt(
        "RunEC2",
        reason="Essential container in task exited",
        code=1,
        lines=["Building DAG of jobs...", "Snakemake cannot continue"],
    )
    return it.end(**HANDLED)


@accident("attempt-time-limit", r"time limit of 15 hours")
def attempt_takes_too_long(operator: Operator) -> int:
    it = Accident(operator, dt.timedelta(hours=20))
    it.attempt("RunSPOT", reason="Job attempt duration exceeded timeout", lines=["aligning"])
    return it.end(**TASK)


@accident("time-limit", r"time limit of 72 hours")
def execution_takes_too_long(operator: Operator) -> int:
    it = Accident(operator, dt.timedelta(hours=73))
    job = it.lab.job(it.arn, status="RUNNABLE")
    it.history.enter("RunSPOT").submitted(job)
    return it.end("TIMED_OUT")


@accident("image-missing", r"could not be pulled.*CannotPullContainerError")
def image_missing(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt(
        "RunSPOT",
        reason="Task failed to start",
        container="CannotPullContainerError: manifest for swipe:rev-9 not found",
        lines=None,
    )
    return it.end(**HANDLED)


@accident("docker-timeout", r"Docker did not start the container in time")
def docker_timeout(operator: Operator) -> int:
    it = Accident(operator)
    said = "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s"
    it.attempt("RunSPOT", reason="Task failed to start", container=said, lines=None)
    return it.end(**HANDLED)


@accident("container-not-started", r"could not be started.*CannotStartContainerError")
def container_not_started(operator: Operator) -> int:
    it = Accident(operator)
    said = "CannotStartContainerError: Error response from daemon: exec: no such file"
    it.attempt("RunSPOT", reason="Task failed to start", container=said, code=127)
    return it.end(**TASK)


@accident("resources-missing", r"was not available.*ResourceInitializationError")
def secret_missing(operator: Operator) -> int:
    it = Accident(operator)
    said = "ResourceInitializationError: unable to retrieve secret from asm"
    it.attempt("RunSPOT", reason=said, lines=None)
    return it.end(**TASK)


@accident("disk-full", r"disk is full: OSError: \[Errno 28\] No space left on device")
def disk_full(operator: Operator) -> int:
    it = Accident(operator)
    lines = ["writing", "OSError: [Errno 28] No space left on device", "termination check"]
    it.attempt("RunSPOT", reason="Essential container in task exited", code=1, lines=lines)
    return it.end(**HANDLED)


@accident("input-refused", r"refused its input: check JSON input; missing required input: s3_file")
def input_refused(operator: Operator) -> int:
    it = Accident(operator)
    lines = ["miniwdl 1.4", "check JSON input; missing required input: s3_filestem"]
    it.attempt("RunSPOT", reason="Essential container in task exited", code=2, lines=lines)
    return it.end(**HANDLED)


@accident("access-denied", r"denied the job.*AccessDenied")
def access_denied(operator: Operator) -> int:
    it = Accident(operator)
    lines = ["fatal: An error occurred (AccessDenied) when calling the GetObject operation"]
    it.attempt("RunSPOT", reason="Essential container in task exited", code=1, lines=lines)
    return it.end(**HANDLED)


@accident("database-unreachable", r"could not reach the database: .*OperationalError")
def database_unreachable(operator: Operator) -> int:
    it = Accident(operator)
    lines = ["psycopg2.OperationalError: could not translate host name"]
    it.attempt("RunSPOT", reason="Essential container in task exited", code=1, lines=lines)
    return it.end(**HANDLED)


@accident("exit-code", r"exit code 1\. Its log does not exist")
def log_stream_missing(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Essential container in task exited", code=1, lines=None)
    return it.end(**HANDLED)


@accident("killed", r"killed \(exit code 137\)")
def killed(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Essential container in task exited", code=137, lines=["align"])
    return it.end(**HANDLED)


@accident("batch-refused", r"did not accept the job in RunSPOT: .*DISABLED")
def queue_disabled(operator: Operator) -> int:
    it = Accident(operator)
    said = "Job queue aspen-SPOT is in DISABLED state (Service: AWSBatch; Status Code: 400)"
    it.history.enter("RunSPOT").refused("Batch.AWSBatchException", said)
    it.history.enter("RunSPOTReadOutput").lambda_failed("KeyError", "'error'")
    return it.end(**HANDLED)


@accident("state-failed", r"PreprocessInput failed with Lambda.ServiceException: .*unavailable")
def preprocessing_failed(operator: Operator) -> int:
    it = Accident(operator)
    failed = it.history.enter("PreprocessInput")
    failed.lambda_failed("Lambda.ServiceException", "Service unavailable")
    return it.end(error="Lambda.ServiceException", cause="Service unavailable")


@accident("cancelled", r"stopped by hand: wrong samples")
def stopped_by_hand(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Terminated", lines=["align"])
    return it.end("ABORTED", cause="wrong samples")


@accident("batch", r"Batch ended the job: Terminated by ops: cost")
def job_terminated(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Terminated by ops: cost", lines=["align"])
    return it.end(**HANDLED)


@accident("workflow-error", r"failed with RuntimeError: No aligned dump")
def workflow_error(operator: Operator) -> int:
    it = Accident(operator)
    it.attempt("RunSPOT", reason="Essential container in task exited", code=1)
    output = it.lab.client("stepfunctions").describe_execution(executionArn=it.arn)["input"]
    prefix = json.loads(output)["OutputPrefix"].removeprefix("s3://genepi-batch/")
    failure = {"wdl_error_message": True, "error": "RuntimeError", "cause": "No aligned dump"}
    it.lab.put(f"{prefix}/nextstrain-ondemand.wdl-0/run_output.json", json.dumps(failure))
    return it.end(**TASK)


@accident("input-too-large", r"more data than Step Functions accepts")
def input_too_large(operator: Operator) -> int:
    it = Accident(operator)
    return it.end(error="States.DataLimitExceeded", cause="the state has 300,000 bytes")


@accident("no-output", r"KeyError: 'error'.*no longer knows")
def everything_forgotten(operator: Operator) -> int:
    it = Accident(operator)
    return it.end(**HANDLED)


@accident("never-started", r"No job was ever started")
def never_started(operator: Operator) -> int:
    return operator.add_run("STARTED", NOW - dt.timedelta(hours=2))


@accident("out-of-memory", r"more memory")
def archived_after_90_days(operator: Operator) -> int:
    it = Accident(operator, dt.timedelta(days=120))
    it.attempt(
        "RunSPOT",
        reason="Essential container in task exited",
        container="OutOfMemoryError: Container killed due to memory usage",
        code=137,
        lines=None,
    )
    run = it.end(**HANDLED)
    it.lab.archive(it.arn)
    it.lab.forget(it.arn)
    return run


@accident("never-starts", r"waits for a machine that Batch can never provide")
def machine_impossible(operator: Operator) -> int:
    it = Accident(operator)
    said = "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - vCPUs exceed the maximum"
    job = it.lab.job(it.arn, status="RUNNABLE", reason=said)
    it.history.enter("RunSPOT").submitted(job)
    return it.end("RUNNING")


@pytest.mark.parametrize("name", ACCIDENTS)
def test_why_names_cause_of(name: str, operator: Operator) -> None:
    plant, cause, says = ACCIDENTS[name]
    run = plant(operator)
    (found,) = operator.json("jobs", "why", str(run))
    assert (found["id"], found["cause"]) == (str(run), cause), found
    assert re.search(says, found["reason"]), found["reason"]
    shown = operator("jobs", "why", str(run), "-o", "table")
    assert shown.code == 0, shown.err
    assert "Traceback" not in shown.out + shown.err


def test_at_least_twenty_causes_are_planted() -> None:
    assert len(ACCIDENTS) >= 20


def test_why_shows_end_of_log(operator: Operator) -> None:
    run = spot_and_script(operator)
    shown = operator("jobs", "why", str(run), "-o", "table")
    assert "The log ends with:" in shown.out
    assert "Snakemake cannot continue" in shown.out
    assert "exit_code" not in shown.out
    (found,) = operator.json("jobs", "why", str(run))
    assert found["exit_code"] == 1
    assert found["log"].endswith("Snakemake cannot continue")


def spot_and_script(operator: Operator) -> int:
    return ACCIDENTS["spot_lost_then_script_failed"][0](operator)


def test_missing_log_stream_hides_nothing(operator: Operator) -> None:
    run = ACCIDENTS["log_stream_missing"][0](operator)
    ended = operator("jobs", "why", str(run), "-o", "json")
    assert ended.code == 0, ended.err
    assert "does not exist" in ended.err
    (found,) = ended.json
    assert (found["exit_code"], found["log"]) == (1, None)


def test_why_of_unknown_job_exits_with_6(operator: Operator) -> None:
    for key in ("999999", "no-such-execution"):
        ended = operator("jobs", "why", key)
        assert (ended.code, ended.out) == (6, "")
        assert "No such job" in ended.err
