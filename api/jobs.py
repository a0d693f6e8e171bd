"""Jobs of the service: executions of AWS Step Functions, told of by Parameter Store."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from api.aws import Aws
from api.settings import Settings

_MACHINE = "StateMachineArn"


class Job(StrEnum):
    """The name of a job's parameter."""

    TREE = "nextstrain-ondemand-sfn"
    """Builds a phylogenetic tree."""
    PANGOLIN = "pangolin-ondemand-sfn"
    """Assigns lineages of SARS-CoV-2."""
    LINEAGE_QC = "lineage-qc-ondemand-sfn"
    """Assigns lineages, and judges the quality of sequences."""


class JobError(Exception):
    """A job could not be started; the text tells why.

    Args:
        message: Why.
        away: Whether AWS did not answer, rather than say no.
    """

    def __init__(self, message: str, *, away: bool = False):
        super().__init__(message)
        self.away = away


async def start_job(aws: Aws, settings: Settings, job: Job, run: Mapping[str, Any]) -> str:
    """Start an execution.

    Args:
        aws: Where.
        settings: Say which deployment's parameters are meant.
        job: What to do.
        run: What the job is told beside what its parameter says, under ``Input.Run``.

    Returns:
        The ARN of the execution.

    Raises:
        JobError: It was not started.
    """
    return await asyncio.to_thread(_start, aws, settings.parameters_path + job, job, run)


async def stop_job(aws: Aws, execution: str, why: str) -> None:
    """Stop an execution that was started for nothing.

    Raises:
        JobError: It may go on.
    """
    await asyncio.to_thread(_stop, aws, execution, why)


def _stop(aws: Aws, execution: str, why: str) -> None:
    try:
        aws.client("stepfunctions").stop_execution(executionArn=execution, cause=why)
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"AWS: {error}", away=isinstance(error, BotoCoreError)) from error


def _start(aws: Aws, parameter: str, job: Job, run: Mapping[str, Any]) -> str:
    try:
        found = aws.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        document: dict[str, Any] = json.loads(found)
        machine = document.pop(_MACHINE)
        told = document.setdefault("Input", {}).setdefault("Run", {})
        started = aws.client("stepfunctions").start_execution(
            stateMachineArn=machine,
            name=f"{job.removesuffix('-sfn')}-{uuid.uuid4()}",
            input=json.dumps({**document, "Input": {**document["Input"], "Run": {**told, **run}}}),
        )
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"AWS: {error}", away=isinstance(error, BotoCoreError)) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise JobError(f"the parameter {parameter} is not that of a job") from error
    return str(started["executionArn"])
