"""Executions of Step Functions: their names, their inputs, and where a deployment keeps things.

All kinds of jobs, and all stacks of remote development, share one state machine. The name of an
execution tells its kind if the service started it; its input always does, with the address of its
workflow (``RUN_WDL_URI``) and its stack (``remote_dev_prefix``). Only the standard library is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aspen.workflows.engine import EngineError, State

APPS = {
    "nextstrain-ondemand-sfn": "tree",
    "pangolin-ondemand-sfn": "lineages",
    "lineage-qc-ondemand-sfn": "qc",
    "gisaid-sfn": "import-repository",
    "genbank-mpx-sfn": "import-repository",
    "pangolin-sfn": "lineages",
    "lineage-qc-autorun-sfn": "lineage-qc-autorun",
    "nextstrain-autorun-sfn": "nextstrain-autorun",
}
"""The kind of job of each parameter in Parameter Store. The last two kinds start other jobs."""
SCHEDULED = tuple(app for app in APPS if "ondemand" not in app)
"""The parameters whose executions EventBridge starts, with names that do not tell the kind."""
_WORKFLOWS = {
    **{app.removesuffix("-sfn"): kind for app, kind in APPS.items()},
    "nextstrain": "tree",
    "nextstrain-dbg": "tree",
    "lineage-qc": "qc",
}
_KINDS = {"nextstrain": "tree", "pangolin": "lineages", "lineage-qc": "qc"}
_NAME = re.compile(
    r"(?:(?P<prefix>.+?)-)?(?:ondemand|scheduled)-(?:(?P<slug>[0-9A-Za-z]+)-)?"
    r"(?P<what>nextstrain|pangolin|lineage-qc)-(?P<at>\d{4}-.*?)(?:-retry-\d+)?"
)
_RETRY = re.compile(r"-retry-(\d+)$")
_LONGEST_NAME = 80
_MACHINE = "StateMachineArn"
_RUN, _PREFIX, _WORKFLOW = "Run", "OutputPrefix", "RUN_WDL_URI"
_COMMON = ("aws_region", "docker_image_id", "genepi_config_secret_name", "remote_dev_prefix")
_COPIED = (_WORKFLOW, "RunEC2Memory", "RunEC2Vcpu", "RunSPOTMemory", "RunSPOTVcpu")
_STATES = {
    "RUNNING": State.RUNNING,
    "PENDING_REDRIVE": State.RUNNING,
    "SUCCEEDED": State.DONE,
    "ABORTED": State.CANCELLED,
}


@dataclass(frozen=True)
class Deployment:
    """A deployment's names in AWS.

    Attributes:
        stage: The stage, such as ``gestaging``.
        stack: The stack of remote development; None for a deployment that is alone in its stage.
    """

    stage: str
    stack: str | None = None

    @property
    def prefix(self) -> str:
        """Return ``remote_dev_prefix``: a slash and the stack, or nothing."""
        return f"/{self.stack}" if self.stack else ""

    @property
    def name(self) -> str:
        """Return the name of the stack; every deployment has one."""
        return self.stack or f"{self.stage}stack"

    @property
    def parameters(self) -> str:
        """Return the path of the parameters in Parameter Store, with a slash at its end."""
        return f"/genepi/{self.stage}/{self.name}/"

    @property
    def log_group(self) -> str:
        """Return the log group of all jobs."""
        return f"/genepi/{self.stage}/{self.name}/swipe"

    @property
    def rules(self) -> str:
        """Return the beginning of the names of the rules that start jobs by schedule."""
        return f"genepi-{self.stage}-{self.name}-"


@dataclass(frozen=True)
class App:
    """A parameter in Parameter Store, with everything that its executions have in common."""

    name: str
    document: Mapping[str, Any]

    @property
    def machine(self) -> str:
        """Return the ARN of the state machine."""
        return str(self.document[_MACHINE])

    @property
    def output(self) -> str:
        """Return the beginning of the address of all output."""
        return str(self.document[_PREFIX])

    def input(self, run: Mapping[str, Any], suffix: str) -> dict[str, Any]:
        """Return the input of an execution.

        Args:
            run: The values of ``Input.Run`` in addition to those of all jobs.
            suffix: The end of the address of the output, which begins with a slash.
        """
        common = self.document["Input"][_RUN]
        return {
            "Input": {_RUN: {**_these(common, _COMMON), **run}},
            _PREFIX: f"{self.output}{suffix}",
            **_these(self.document, _COPIED),
        }

    @property
    def scheduled_input(self) -> dict[str, Any]:
        """Return the input that the schedule's rule gives: the parameter itself."""
        return {key: value for key, value in self.document.items() if key != _MACHINE}


def read_app(name: str, text: str) -> App:
    """Return the parameter with this value.

    Raises:
        EngineError: It does not describe a job.
    """
    try:
        document = json.loads(text)
        app = App(name, document)
        assert isinstance(document["Input"][_RUN], dict)  # noqa: S101 - handled below
        _ = app.machine, app.output
    except (ValueError, KeyError, TypeError, AssertionError):
        raise EngineError(
            f"The parameter {name} does not describe a job.",
            "Ask the deployment's owner to fix it.",
        ) from None
    return app


def _these(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


@dataclass(frozen=True)
class NameParts:
    """The parts of the name of an execution that the service started."""

    kind: str
    prefix: str  # of the group, with hyphens for other characters; empty if there is none
    slug: str  # of the pathogen; empty if the name does not have it
    at: str  # the time of its start, with hyphens


def name_parts(name: str) -> NameParts | None:
    """Return the parts of a name, or None for a name that tells nothing."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return NameParts(
        _KINDS[found["what"]],
        found["prefix"] or "",
        found["slug"] or "",
        found["at"],
    )


def clean(text: str) -> str:
    """Return a text as names of executions have it, with hyphens for other characters."""
    return re.sub("[^0-9a-zA-Z-]", "-", text)


def execution_name(start: str, ending: str) -> str:
    """Return a name of letters, digits, and hyphens; a long one loses the end of its start."""
    ending = f"-{ending}"
    return clean(start[: _LONGEST_NAME - len(ending)] + ending)


def attempt_number(name: str) -> int:
    """Return the number of an attempt, from 1."""
    found = _RETRY.search(name)
    return int(found[1]) if found else 1


def retry_name(name: str, number: int) -> str:
    """Return the name of the next attempt; the same for everyone, so it is started only once."""
    base = _RETRY.sub("", name)
    ending = f"-retry-{number}"
    return base[max(0, len(base) + len(ending) - _LONGEST_NAME) :].lstrip("-") + ending


def workflow_kind(address: str) -> str | None:
    """Return the kind of job of a workflow's address, or None if it is not known."""
    return _WORKFLOWS.get(address.rpartition("/")[2].partition(".wdl")[0])


@dataclass(frozen=True)
class Execution:
    """An execution, as the list of executions has it.

    Attributes:
        kind: The kind of job, if its name or anything else tells it; empty otherwise.
    """

    arn: str
    name: str
    status: str
    started: datetime | None = None
    ended: datetime | None = None
    kind: str = ""

    @property
    def state(self) -> State:
        """Return the state of the job."""
        return _STATES.get(self.status, State.FAILED)


@dataclass(frozen=True)
class Description(Execution):
    """An execution with its input and, if it failed, the error.

    Attributes:
        archived: True if Step Functions no longer has it, and it was read from the bucket.
    """

    input: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    cause: str = ""
    archived: bool = False

    @property
    def run(self) -> Mapping[str, Any]:
        """Return the values that the workflow was given."""
        run = self.input.get("Input", {})
        found = run.get(_RUN, {}) if isinstance(run, Mapping) else {}
        return found if isinstance(found, Mapping) else {}

    @property
    def workflow_id(self) -> int | None:
        """Return the ID of the run in the database, or None if the job has none."""
        try:
            return int(self.run["workflow_id"])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def output(self) -> str:
        """Return the address of its output; empty if it is not known."""
        return str(self.input.get(_PREFIX, ""))

    @property
    def workflow(self) -> str:
        """Return the address of its workflow; empty if it is not known."""
        return str(self.input.get(_WORKFLOW, ""))

    def belongs_to(self, deployment: Deployment) -> bool:
        """Return True unless the execution belongs to another stack."""
        return str(self.run.get("remote_dev_prefix") or "") == deployment.prefix

    @property
    def output_name(self) -> str:
        """Return the key of the workflow's folder below its output, such as ``x.wdl-0``."""
        name = self.workflow.rpartition("/")[2]
        return re.sub(r"v(\d+)\..+", r"\1", name.removesuffix(".wdl"))


def described(found: Mapping[str, Any], *, archived: bool = False) -> Description:
    """Return an execution as ``describe_execution`` returned it, or as it was archived."""
    try:
        given = json.loads(found.get("input") or "{}")
    except ValueError:
        given = {}
    given = given if isinstance(given, dict) else {}
    name = str(found.get("name", ""))
    parts = name_parts(name)
    kind = workflow_kind(str(given.get(_WORKFLOW, ""))) or (parts.kind if parts else "")
    return Description(
        arn=str(found.get("executionArn", "")),
        name=name,
        status=str(found.get("status", "")),
        started=moment(found.get("startDate")),
        ended=moment(found.get("stopDate")),
        kind=kind,
        input=given,
        error=str(found.get("error") or ""),
        cause=str(found.get("cause") or ""),
        archived=archived,
    )


def moment(value: Any) -> datetime | None:
    """Return a time in UTC, from an answer or from archived text; None if there is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
