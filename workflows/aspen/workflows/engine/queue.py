"""The queues of the local engine, as every program reaches it: one SQL function, and some names.

DBOS keeps its tables in the schema ``dbos`` of the service's own database, with a function that
enqueues a workflow. A job is enqueued in the transaction that writes what it is about, so both
exist or neither does, and a program that enqueues needs nothing of DBOS.

This module needs the standard library only.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aspen.workflows.engine import EngineError

APPLICATION = "aspen"
VERSION = "1"
"""The version of the workflow's code in DBOS; a job continues only under the same one."""
WORKFLOW, SCHEMA = "job", "dbos"
_JOBS, _SAMPLES = "jobs", "samples"
CONCURRENCY: Mapping[str, int] = {_JOBS: 2, _SAMPLES: 1}
"""The number of jobs of each queue that run at once."""
_SHORT = frozenset({"qc", "lineages"})
"""The kinds that take seconds; in a queue of their own, they do not wait for trees."""

IS_READY = f"SELECT to_regproc('{SCHEMA}.enqueue_workflow') IS NOT NULL"
"""A query that returns true once a worker has created the schema."""
ENQUEUE = f"""
SELECT {SCHEMA}.enqueue_workflow(
    workflow_name => '{WORKFLOW}',
    queue_name => :queue,
    named_args => CAST(:arguments AS json),
    workflow_id => :job,
    app_version => '{VERSION}',
    application_name => '{APPLICATION}'
)"""
"""A statement that enqueues a job, unless one with its ID exists; see `values`."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def values(kind: str, parameters: Mapping[str, Any], job_id: str) -> dict[str, str]:
    """Return the values for `ENQUEUE`.

    Raises:
        EngineError: The ID cannot be the name of a folder.
    """
    check_id(job_id)
    arguments = json.dumps({"kind": kind, "parameters": {**parameters}})
    return {"job": job_id, "queue": queue_of(kind), "arguments": arguments}


def queue_of(kind: str) -> str:
    """Return the name of the queue for jobs of a kind."""
    return _SAMPLES if kind in _SHORT else _JOBS


def check_id(job_id: str) -> None:
    """Check the ID of a job, which is the name of its folder, too.

    Raises:
        EngineError: It is not valid.
    """
    if not _ID.fullmatch(job_id):
        raise EngineError(
            f"Invalid job ID: {job_id!r}", "Use up to 128 letters, digits, dots, and hyphens."
        )


def new_id(kind: str) -> str:
    """Return an ID for a job of which there may be any number."""
    return f"{kind}-{uuid.uuid4().hex[:12]}"
