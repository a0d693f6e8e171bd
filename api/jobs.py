"""Jobs of the service: executions of AWS Step Functions, told of by Parameter Store.

What an execution is given is what the live service gives it, since its workflows (WDL) refuse to
start without their inputs, and with others.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from api.aws import Aws
from api.settings import Settings
from db.models import Group, Pathogen, TreeType

T = TypeVar("T", int, str)

_MACHINE = "StateMachineArn"
_COMMON = ("aws_region", "docker_image_id", "genepi_config_secret_name", "remote_dev_prefix")
_COPIED = ("RUN_WDL_URI", "RunEC2Memory", "RunEC2Vcpu", "RunSPOTMemory", "RunSPOTVcpu")
_LONGEST_NAME = 80
_LONGEST_LIST = 200_000  # an execution's input has at most 256 KB
_GIVEN_SAMPLES = "specified-ids-only"


class Job(StrEnum):
    """The name of a job's parameter."""

    TREE = "nextstrain-ondemand-sfn"
    """Builds a phylogenetic tree."""
    PANGOLIN = "pangolin-ondemand-sfn"
    """Assigns lineages of SARS-CoV-2."""
    LINEAGE_QC = "lineage-qc-ondemand-sfn"
    """Assigns lineages, and judges the quality of sequences."""


@dataclass(frozen=True)
class Order:
    """What a job is asked to do.

    Attributes:
        job: The job.
        name: How the names of its executions begin; the time follows.
        folder: Where in its output its results go, above a folder of the time; empty for nowhere.
        run: What it is given under ``Input.Run``, beside what all jobs are.
    """

    job: Job
    name: str
    folder: str
    run: Mapping[str, Any]


def tree_order(group: Group, pathogen: Pathogen, tree_type: TreeType, run: int) -> Order:
    """Return the order to build the tree of a run."""
    # The results are kept below it: a group without a location still needs a place of its own.
    place = group.location or group.division or group.prefix
    own = {
        "s3_filestem": f"{place}/{tree_type.value}",
        "pathogen_slug": pathogen.slug,
        "workflow_id": run,
    }
    return Order(Job.TREE, f"{group.prefix}-ondemand-nextstrain", group.name, own)


def pangolin_orders(group: Group, publics: Sequence[str]) -> Iterator[Order]:
    """Yield the orders to assign lineages to samples, which have these public identifiers."""
    for some in _parts(publics):
        yield Order(Job.PANGOLIN, f"{group.prefix}-ondemand-pangolin", "", {"samples": list(some)})


def lineage_qc_orders(group: Group, pathogen: Pathogen, ids: Sequence[int]) -> Iterator[Order]:
    """Yield the orders to judge the quality of samples, which have these ids."""
    name = f"{group.prefix}-ondemand-{pathogen.slug}-lineage-qc"
    for some in _parts(ids):
        own = {
            "pathogen_slug": pathogen.slug,
            "run_type": _GIVEN_SAMPLES,
            "sample_ids": list(some),
        }
        yield Order(Job.LINEAGE_QC, name, "", own)


class JobError(Exception):
    """A job could not be started; the text tells why.

    Args:
        message: Why.
        away: Whether AWS did not answer, rather than say no.
    """

    def __init__(self, message: str, *, away: bool = False):
        super().__init__(message)
        self.away = away


async def start_job(aws: Aws, settings: Settings, order: Order) -> str:
    """Start an execution.

    Args:
        aws: Where.
        settings: Say which deployment's parameters are meant.
        order: What to do.

    Returns:
        The ARN of the execution.

    Raises:
        JobError: It was not started.
    """
    return await asyncio.to_thread(_start, aws, settings, order)


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


def _start(aws: Aws, settings: Settings, order: Order) -> str:
    parameter = settings.parameters_path + order.job
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    try:
        found = aws.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        document = json.loads(found)
        started = aws.client("stepfunctions").start_execution(
            stateMachineArn=document[_MACHINE],
            name=_execution_name(order.name, now),
            input=json.dumps(_input(document, order, now)),
        )
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"AWS: {error}", away=isinstance(error, BotoCoreError)) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise JobError(f"the parameter {parameter} is not that of a job") from error
    return str(started["executionArn"])


def _input(document: Mapping[str, Any], order: Order, now: str) -> dict[str, Any]:
    known = document["Input"]["Run"]
    folder = f"/{order.folder}/{now}" if order.folder else f"/{now}"
    return {
        "Input": {"Run": {**_these(known, _COMMON), **order.run}},
        "OutputPrefix": f"{document['OutputPrefix']}{folder}",
        **_these(document, _COPIED),
    }


def _these(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _execution_name(start: str, now: str) -> str:
    """Return a name of letters, digits and hyphens; a long one is cut where the time begins."""
    ending = f"-{now}"
    return re.sub("[^0-9a-zA-Z-]", "-", start[: _LONGEST_NAME - len(ending)] + ending)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield items as many at a time as the input of one execution holds."""
    start = size = 0
    for place, item in enumerate(items):
        length = len(json.dumps(item)) + 2
        if size + length > _LONGEST_LIST and place > start:
            yield items[start:place]
            start, size = place, 0
        size += length
    if items[start:]:
        yield items[start:]
