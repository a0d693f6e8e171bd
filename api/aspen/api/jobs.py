"""The service's jobs: AWS Step Functions executions, configured in Parameter Store.

Executions get exactly the input that the live service gives them, since the WDL workflows refuse
to start with missing or additional inputs. On a laptop with a worker, jobs are enqueued in the
database instead, in the transaction that writes what they are about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import sqlalchemy as sa
from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.ext.asyncio import AsyncSession

from aspen.api.aws import Aws
from aspen.api.settings import Settings
from aspen.database.models import Group, Pathogen, TreeType
from aspen.workflows.engine import EngineError, tree_job_id
from aspen.workflows.engine.executions import execution_name, read_app
from aspen.workflows.engine.queue import ENQUEUE, IS_READY, new_id, values

T = TypeVar("T", int, str)

_LONGEST_LIST = 200_000  # an execution's input is limited to 256 KB
_GIVEN_SAMPLES = "specified-ids-only"
PANGOLIN_PATHOGEN = "SC2"
"""The slug of the only pathogen whose lineages pangolin assigns."""


class Job(StrEnum):
    """The name of a job's parameter in Parameter Store."""

    TREE = "nextstrain-ondemand-sfn"
    """Builds a phylogenetic tree."""
    PANGOLIN = "pangolin-ondemand-sfn"
    """Assigns lineages of SARS-CoV-2."""
    LINEAGE_QC = "lineage-qc-ondemand-sfn"
    """Assigns lineages and assesses the quality of sequences."""


@dataclass(frozen=True)
class Order:
    """A job to start, with its input."""

    job: Job
    name: str  # the prefix of its execution names; the time follows
    folder: str  # of the output, with a subfolder for each start time; empty for no folder
    run: Mapping[str, Any]  # the values under ``Input.Run`` in addition to those of all jobs


def tree_order(group: Group, pathogen: Pathogen, tree_type: TreeType, run: int) -> Order:
    """Return the order that builds the tree of a run."""
    # Results are stored under this path: a group without a location still needs a separate one.
    place = group.location or group.division or group.prefix
    own = {
        "s3_filestem": f"{place}/{tree_type.value}",
        "pathogen_slug": pathogen.slug,
        "workflow_id": run,
    }
    return Order(Job.TREE, f"{group.prefix}-ondemand-nextstrain", group.name, own)


def pangolin_orders(group: Group, publics: Sequence[str]) -> Iterator[Order]:
    """Yield the orders that assign lineages to the samples with these public identifiers."""
    for some in _parts(publics):
        yield Order(Job.PANGOLIN, f"{group.prefix}-ondemand-pangolin", "", {"samples": list(some)})


def lineage_qc_orders(group: Group, pathogen: Pathogen, ids: Sequence[int]) -> Iterator[Order]:
    """Yield the orders that assess the quality of the samples with these IDs."""
    name = f"{group.prefix}-ondemand-{pathogen.slug}-lineage-qc"
    for some in _parts(ids):
        own = {
            "pathogen_slug": pathogen.slug,
            "run_type": _GIVEN_SAMPLES,
            "sample_ids": list(some),
        }
        yield Order(Job.LINEAGE_QC, name, "", own)


class JobError(Exception):
    """A failure to start or stop a job: AWS could not be reached (``away``), or it refused."""

    def __init__(self, message: str, *, away: bool = False):
        super().__init__(message)
        self.away = away


def start_job(aws: Aws, settings: Settings, order: Order) -> str:
    """Start an execution, and return its ARN; this blocks, so call it in a thread.

    Raises:
        JobError: The execution was not started.
    """
    parameter = settings.parameters_path + order.job
    now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    try:
        found = aws.client("ssm").get_parameter(Name=parameter)["Parameter"]["Value"]
        app = read_app(parameter, found)
        folder = f"/{order.folder}/{now}" if order.folder else f"/{now}"
        started = aws.client("stepfunctions").start_execution(
            stateMachineArn=app.machine,
            name=execution_name(order.name, now),
            input=json.dumps(app.input(order.run, folder)),
        )
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"AWS: {error}", away=isinstance(error, BotoCoreError)) from error
    except EngineError as error:
        raise JobError(f"the parameter {parameter} does not describe a job") from error
    return str(started["executionArn"])


async def enqueue_tree(db: AsyncSession, run: int) -> None:
    """Enqueue the job that builds the tree of a run, in the transaction that inserts the run.

    Before the first start of a worker there is no queue; the worker then finds the run itself.
    """
    if await db.scalar(sa.text(IS_READY)):
        await db.execute(sa.text(ENQUEUE), values("tree", {"run_id": run}, tree_job_id(run)))


async def enqueue_sample_jobs(db: AsyncSession, pathogen: Pathogen, ids: Sequence[int]) -> bool:
    """Enqueue the jobs that analyze new samples, in the transaction that inserts the samples.

    Return False if there is no queue yet, as before the first start of a worker.
    """
    if not await db.scalar(sa.text(IS_READY)):
        return False
    parameters = {"pathogen": pathogen.slug, "run_type": _GIVEN_SAMPLES, "sample_ids": [*ids]}
    kinds = ["lineages", "qc"] if pathogen.slug == PANGOLIN_PATHOGEN else ["qc"]
    for kind in kinds:
        await db.execute(sa.text(ENQUEUE), values(kind, parameters, new_id(kind)))
    return True


def stop_job(aws: Aws, execution: str, why: str) -> None:
    """Stop an execution that is no longer needed; this blocks, so call it in a thread.

    Raises:
        JobError: The execution may still be running.
    """
    try:
        aws.client("stepfunctions").stop_execution(executionArn=execution, cause=why)
    except (BotoCoreError, ClientError) as error:
        raise JobError(f"AWS: {error}", away=isinstance(error, BotoCoreError)) from error


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the items in batches that fit in the input of one execution."""
    start = size = 0
    for place, item in enumerate(items):
        length = len(json.dumps(item)) + 2
        if size + length > _LONGEST_LIST and place > start:
            yield items[start:place]
            start, size = place, 0
        size += length
    if items[start:]:
        yield items[start:]
