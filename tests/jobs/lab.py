"""A cloud deployment's jobs on moto's server, with the accidents that moto cannot cause itself.

Everything is created and read through AWS's own API. Only what no client can cause is put into
moto's memory: how an execution ends, its history, and what Batch says about a job.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boto3
import httpx
import sqlalchemy as sa
from moto.backends import get_backend
from moto.batch.models import BatchBackend, JobDefinition, JobQueue
from moto.batch.models import Job as MotoJob

from aspen.database.engine import Database
from aspen.workflows.engine.executions import APPS, Deployment

REGION, ACCOUNT = "us-west-2", "123456789012"
STAGE = "gestaging"
COMMS, FILES = "genepi-batch", "genepi-db-data"
QUEUES = ("aspen-SPOT", "aspen-EC2")
DEFINITION = f"genepi-{STAGE}-{STAGE}stack-swipe"
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": REGION,
}
ROLE = f"arn:aws:iam::{ACCOUNT}:role/jobs"
Events = list[dict[str, Any]]
_RUN = sa.text("""
WITH made AS (
    INSERT INTO aspen.workflows
        (workflow_type, workflow_status, start_datetime, end_datetime, software_versions)
    VALUES (:type, :status, :started, :ended, '{}') RETURNING id
), run AS (
    INSERT INTO aspen.phylo_runs
        (workflow_id, group_id, name, tree_type, pathogen_id, contextual_repository_id)
    SELECT id, :group_id, :name, 'OVERVIEW', (SELECT id FROM aspen.pathogens WHERE slug = 'SC2'),
        (SELECT min(id) FROM aspen.public_repositories)
    FROM made WHERE :type = 'PHYLO_RUN'
)
SELECT id FROM made
""")


class PlantedJob(MotoJob):
    """A job of Batch whose description was planted."""

    def __init__(
        self,
        planted: dict[str, Any],
        name: str,
        definition: JobDefinition,
        queue: JobQueue,
        backend: BatchBackend,
    ):
        self.planted = planted
        status = planted["status"]
        super().__init__(
            name,
            definition,
            queue,
            backend,
            backend.logs_backend,
            container_overrides=None,
            eks_properties_override=None,
            depends_on=None,
            parameters=None,
            all_jobs={},
            timeout=None,
            array_properties={},
            provided_job_id=planted["jobId"],
        )
        planted["status"] = status

    def __new__(cls, *_given: Any) -> PlantedJob:
        # Moto's own keeps track of objects by their class, which is not this one.
        found: PlantedJob = object.__new__(cls)
        return found

    @property
    def status(self) -> str | None:
        return str(self.planted["status"])

    @status.setter
    def status(self, value: str) -> None:
        self.planted["status"] = value

    def describe_short(self) -> dict[str, Any]:
        found: dict[str, Any] = super().describe_short()
        return {**found, "createdAt": self.planted["createdAt"]}

    def describe(self) -> dict[str, Any]:
        return {**self.describe_short(), "jobQueue": self.job_queue.arn, **self.planted}

    def terminate(self, reason: str) -> None:
        self.planted |= {"status": "FAILED", "statusReason": reason}


@dataclass
class CloudLab:
    """The jobs of a deployment in AWS.

    Attributes:
        address: The address of AWS.
        deployment: The deployment's names.
    """

    address: str
    deployment: Deployment = field(default_factory=lambda: Deployment(STAGE))
    machine: str = ""

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name=REGION,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    # What terraform creates

    def deploy(self) -> None:
        """Create the state machine, the queues, the parameters, the buckets, and the secret."""
        iam, batch = self.client("iam"), self.client("batch")
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        iam.create_role(RoleName="jobs", AssumeRolePolicyDocument=trust)
        batch.create_compute_environment(
            computeEnvironmentName="jobs", type="UNMANAGED", state="ENABLED", serviceRole=ROLE
        )
        for queue in QUEUES:
            batch.create_job_queue(
                jobQueueName=queue,
                state="ENABLED",
                priority=1,
                computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "jobs"}],
            )
        batch.register_job_definition(
            jobDefinitionName=DEFINITION,
            type="container",
            containerProperties={"image": "swipe:rev-7", "memory": 128, "vcpus": 1},
        )
        states = {
            f"Run{kind}": {
                "Type": "Task",
                "Resource": "arn:aws:states:::batch:submitJob.sync",
                "Parameters": {"JobQueue": queue, "JobDefinition": DEFINITION},
                "End": True,
            }
            for kind, queue in zip(("SPOT", "EC2"), QUEUES, strict=True)
        }
        self.machine = self.client("stepfunctions").create_state_machine(
            name=f"swipe-{STAGE}",
            definition=json.dumps({"StartAt": "RunSPOT", "States": states}),
            roleArn=ROLE,
        )["stateMachineArn"]
        for bucket in (COMMS, FILES):
            self.client("s3").create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
        self.client("secretsmanager").create_secret(
            Name=f"{STAGE}/genepi-config", SecretString=json.dumps({"S3_db_bucket": FILES})
        )
        self.client("logs").create_log_group(logGroupName=self.deployment.log_group)
        self.parametrize(self.deployment)

    def parametrize(self, deployment: Deployment) -> None:
        """Create the parameters of a deployment."""
        for app in APPS:
            self.client("ssm").put_parameter(
                Name=deployment.parameters + app,
                Value=json.dumps(self.parameter(app, deployment)),
                Type="String",
            )

    def parameter(self, app: str, deployment: Deployment | None = None) -> dict[str, Any]:
        deployment = deployment or self.deployment
        name = app.removesuffix("-sfn")
        return {
            "Input": {
                "Run": {
                    "aws_region": REGION,
                    "docker_image_id": f"{name}:1",
                    "genepi_config_secret_name": f"{deployment.stage}/genepi-config",
                    "remote_dev_prefix": deployment.prefix,
                }
            },
            "OutputPrefix": self.output(app, deployment),
            "RUN_WDL_URI": f"s3://genepi-wdl{deployment.prefix}/{name}.wdl-v0.0.1.wdl",
            "RunEC2Memory": 118000,
            "RunEC2Vcpu": 1,
            "RunSPOTMemory": 118000,
            "RunSPOTVcpu": 1,
            "StateMachineArn": self.machine,
        }

    def output(self, app: str, deployment: Deployment | None = None) -> str:
        return f"s3://{COMMS}/swipe{(deployment or self.deployment).prefix}/{app}/results"

    # What happens

    def tree(
        self,
        run: int,
        prefix: str,
        started: dt.datetime,
        *,
        group: str = "Group",
        deployment: Deployment | None = None,
        how: str = "ondemand",
        **end: Any,
    ) -> str:
        """Start the execution of a tree run, and return its ARN; see `execution`."""
        now = f"{started.replace(tzinfo=None)}"
        own = {"s3_filestem": f"{group}/OVERVIEW", "pathogen_slug": "SC2", "workflow_id": run}
        given = self.input("nextstrain-ondemand-sfn", own, f"/{group}/{now}", deployment)
        name = "".join(c if c.isalnum() else "-" for c in f"{prefix}-{how}-nextstrain-{now}")
        return self.execution(name, given, started, **end)

    def input(
        self, app: str, own: Mapping[str, Any], suffix: str, deployment: Deployment | None = None
    ) -> dict[str, Any]:
        given = self.parameter(app, deployment)
        del given["StateMachineArn"]
        given["Input"]["Run"] |= own
        given["OutputPrefix"] += suffix
        return given

    def execution(
        self,
        name: str,
        given: Mapping[str, Any],
        started: dt.datetime,
        *,
        status: str = "RUNNING",
        ended: dt.datetime | None = None,
        error: str | None = None,
        cause: str | None = None,
        events: Events | None = None,
    ) -> str:
        """Start an execution, and plant its times, its end, and its history; return its ARN."""
        arn = self.client("stepfunctions").start_execution(
            stateMachineArn=self.machine, name=name, input=json.dumps(given)
        )["executionArn"]
        found = self._execution(arn)
        found.start_date = started.replace(tzinfo=None)  # moto compares them with its own
        found.status = status
        found.stop_date = ended or (None if status == "RUNNING" else started)
        found.error, found.cause = error, cause
        history = events or []
        found.get_execution_history = lambda _role: history
        return str(arn)

    def _execution(self, arn: str) -> Any:
        backend = get_backend("stepfunctions")[ACCOUNT][REGION]
        return backend.describe_execution(arn)

    def forget(self, arn: str) -> None:
        """Remove an execution, as Step Functions does after 90 days."""
        backend = get_backend("stepfunctions")[ACCOUNT][REGION]
        for machine in backend.state_machines:
            machine.executions = [one for one in machine.executions if one.execution_arn != arn]

    def archive(self, arn: str) -> None:
        """Write an execution to the bucket as the service does when it ends."""
        functions = self.client("stepfunctions")
        found = functions.describe_execution(executionArn=arn)
        output = json.loads(found["input"])["OutputPrefix"].removeprefix(f"s3://{COMMS}/")
        history = functions.get_execution_history(executionArn=arn)
        for kind, document in (("desc", found), ("hist", history)):
            self.put(f"{output}/sfn-{kind}/{arn}", json.dumps(document, default=str))

    def put(self, key: str, text: str, bucket: str = COMMS) -> None:
        self.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode())

    def job(
        self,
        arn: str,
        state: str = "RunSPOT",
        *,
        status: str = "FAILED",
        created: dt.datetime | None = None,
        lines: Sequence[str] | None = (),
        **said: Any,
    ) -> dict[str, Any]:
        """Plant a job of Batch, and return its description.

        Args:
            arn: The execution.
            state: The state that submitted it.
            status: Batch's status.
            created: The time of its submission.
            lines: The lines of its log; None for a stream that does not exist.
            said: ``reason``, ``container``, ``code``, as Batch gives them.
        """
        execution = self._execution(arn)
        backend = get_backend("batch")[ACCOUNT][REGION]
        started = created or execution.start_date.replace(tzinfo=dt.UTC)
        id_ = str(uuid.uuid4())
        stream = f"{DEFINITION}/default/{id_}"
        millis = int(started.timestamp() * 1000)
        given = json.loads(execution.execution_input)
        environment = {
            "WDL_WORKFLOW_URI": given["RUN_WDL_URI"],
            "SFN_EXECUTION_ID": arn,
            "SFN_CURRENT_STATE": state,
            "REMOTE_DEV_PREFIX": given["Input"]["Run"]["remote_dev_prefix"],
        }
        container: dict[str, Any] = {
            "logStreamName": stream,
            "environment": [{"name": name, "value": v} for name, v in environment.items()],
            "logConfiguration": {
                "logDriver": "awslogs",
                "options": {"awslogs-group": self.deployment.log_group},
            },
        }
        if "code" in said:
            container["exitCode"] = said["code"]
        if "container" in said:
            container["reason"] = said["container"]
        planted = {
            "jobId": id_,
            "jobName": execution.name,
            "status": status,
            "createdAt": millis,
            "container": container,
            "attempts": [],
        }
        if "reason" in said:
            planted["statusReason"] = said["reason"]
        queue = backend.get_job_queue(QUEUES[state == "RunEC2"])
        definition = backend.get_job_definition(DEFINITION)
        assert queue is not None
        assert definition is not None
        backend._jobs[id_] = PlantedJob(planted, execution.name, definition, queue, backend)
        if lines is not None:
            self.log(stream, lines, millis)
        return planted

    def log(self, stream: str, lines: Sequence[str], millis: int) -> None:
        """Write lines to a log stream, which is created if it does not exist."""
        logs, place = self.client("logs"), {"logGroupName": self.deployment.log_group}
        there = logs.describe_log_streams(**place, logStreamNamePrefix=stream)["logStreams"]
        if not there:
            logs.create_log_stream(**place, logStreamName=stream)
        events = [{"timestamp": millis + n, "message": line} for n, line in enumerate(lines)]
        if events:
            logs.put_log_events(**place, logStreamName=stream, logEvents=events)

    # The operator

    def environment(self, database: sa.URL | str) -> dict[str, str]:
        """Return the variables that make this the target ``staging``."""
        url = sa.make_url(database).render_as_string(hide_password=False)
        return {**KEYS, "ASPEN_DATABASE_URL_STAGING": url}

    def config(self) -> str:
        """Return a config file that says where AWS is."""
        return "\n".join(
            f'[targets.{name}]\naws_endpoint_url = "{self.address}"\n'
            for name in ("staging", "prod", "rdev")
        )


def add_run(
    database: Database,
    status: str,
    started: dt.datetime,
    *,
    ended: dt.datetime | None = None,
    group: int = 1,
    name: str = "Cannery",
    kind: str = "PHYLO_RUN",
) -> int:
    """Insert a run, and return its ID."""
    values = {
        "type": kind,
        "status": status,
        "started": started.replace(tzinfo=None),
        "ended": ended.replace(tzinfo=None) if ended else None,
        "group_id": group,
        "name": name,
    }
    with database.writing().begin() as session:
        return int(session.execute(_RUN, values).scalar_one())


def reset(address: str) -> None:
    """Delete everything in moto's server."""
    httpx.post(f"{address}/moto-api/reset", timeout=60, trust_env=False).raise_for_status()


class History:
    """The events of an execution, as Step Functions writes them."""

    def __init__(self, started: dt.datetime):
        self._time = started
        self.events: Events = []
        self._add("ExecutionStarted", "executionStarted", input="{}", roleArn=ROLE)

    def _add(self, kind: str, details: str, **values: Any) -> None:
        self._time += dt.timedelta(seconds=1)
        event = {
            "id": len(self.events) + 1,
            "previousEventId": len(self.events),
            "timestamp": self._time,
            "type": kind,
            f"{details}EventDetails": values,
        }
        self.events.append(event)

    def enter(self, state: str) -> History:
        self._add("TaskStateEntered", "stateEntered", name=state, input="{}")
        return self

    def submitted(self, job: Mapping[str, Any]) -> History:
        output = json.dumps({"JobId": job["jobId"], "JobName": job["jobName"]})
        self._add(
            "TaskSubmitted",
            "taskSubmitted",
            resourceType="batch",
            resource="submitJob.sync",
            output=output,
        )
        return self

    def failed(self, job: Mapping[str, Any]) -> History:
        """Add the end of a job that failed: the cause is Batch's description of it."""
        self._add(
            "TaskFailed",
            "taskFailed",
            resourceType="batch",
            resource="submitJob.sync",
            error="States.TaskFailed",
            cause=json.dumps(_upper(job)),
        )
        return self

    def refused(self, error: str, cause: str) -> History:
        self._add(
            "TaskSubmitFailed",
            "taskSubmitFailed",
            resourceType="batch",
            resource="submitJob.sync",
            error=error,
            cause=cause,
        )
        return self

    def lambda_failed(self, error: str, message: str) -> History:
        cause = json.dumps({"errorMessage": message, "errorType": error, "stackTrace": []})
        self._add("LambdaFunctionFailed", "lambdaFunctionFailed", error=error, cause=cause)
        return self

    def attempt(self, state: str, job: Mapping[str, Any]) -> History:
        return self.enter(state).submitted(job).failed(job)


def _upper(value: Any) -> Any:
    """Return Batch's description with the keys that Step Functions gives it."""
    if isinstance(value, Mapping):
        return {key[:1].upper() + key[1:]: _upper(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_upper(one) for one in value]
    return value
