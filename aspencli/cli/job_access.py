"""The jobs of the target for commands: on this machine, or in the cloud; opened in one place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aspencli.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspen.workflows.engine import Engine
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Output
    from aspencli.jobs.cloud import CloudJobs
    from aspencli.jobs.local import LocalJobs
    from aspencli.jobs.models import JobView, RunRow


def open_jobs(context: AppContext) -> CloudJobs | LocalJobs:
    """Return the jobs of the target.

    Raises:
        AspenError: The target does not say where its jobs are.
    """
    if is_local(context):
        from aspencli.jobs.local import ELSEWHERE, INSTALL, LocalJobs, is_installed

        return LocalJobs(open_engine(context), ELSEWHERE if is_installed() else INSTALL)
    from aspencli.jobs.cloud import CloudJobs

    return CloudJobs(context.target, context.aws)


def open_engine(context: AppContext) -> Engine | None:
    """Return the engine on this machine, or None if there is none for this database."""
    from aspencli.jobs.local import is_installed

    if not (is_installed() and context.is_on_laptop):
        return None
    # A deployment without compute jobs has no engine.
    make: Callable[[], Engine] | None = getattr(context.laptop, "jobs_engine", None)
    return make() if make is not None else None


def is_local(context: AppContext) -> bool:
    """Return True if the target's jobs run on this machine."""
    return context.target.name == "local"


def now() -> dt.datetime:
    """Return the time."""
    return dt.datetime.now(dt.UTC)


def local_objects(
    context: AppContext, view: JobView
) -> Iterator[tuple[str, str, int, dt.datetime | None]]:
    """Yield the bucket, key, size, and time of each object of a job on this machine.

    Raises:
        NotFoundError: The target's database does not belong to the deployment on this machine.
    """
    if view.row is None or view.row.kind != "tree":
        return
    if not context.is_on_laptop:
        raise NotFoundError(
            "The bucket of this database is not known.",
            hint="Use the target that the database belongs to, or unset its database_url.",
        )
    from aspen.api.aws import make_client
    from aspen.local.aws.content import DB_BUCKET, REGION, read_credentials

    deployment = context.laptop.deployment
    context.database_url()  # explains what to do if the deployment does not run
    endpoints = context.laptop.endpoints()
    address = endpoints.services.get("aws") if endpoints is not None else None
    client = make_client("s3", REGION, address, read_credentials(deployment.state.part("aws")))
    prefix = f"phylo_run/{view.row.filestem}/{view.row.id}/"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=DB_BUCKET, Prefix=prefix)
    for page in pages:
        for one in page.get("Contents", ()):
            yield DB_BUCKET, one["Key"], one["Size"], one["LastModified"]


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn an error of the engine into one for the operator."""
    from aspen.workflows.engine import EngineError

    try:
        yield
    except EngineError as error:
        raise ConflictError(str(error), hint=error.hint or None) from error


def find_job(context: AppContext, jobs: CloudJobs | LocalJobs, key: str) -> JobView:
    """Return the job that a key names.

    Raises:
        NotFoundError: There is no such job.
    """
    with engine_errors():
        return jobs.find(key, row_finder(context), now())


def row_finder(context: AppContext) -> Callable[[int], RunRow | None]:
    """Return a function that reads a row of the database, always over the same connection."""
    opened: list[Database] = []

    def find(number: int) -> RunRow | None:
        from aspencli.jobs.database import find_run

        if not opened:
            opened.append(context.database())
        with opened[0].connected() as reader:
            return find_run(reader, number)

    return find


def read_rows(
    context: AppContext,
    read: Callable[[], list[RunRow]],
    *,
    required: bool,
    out: Output | None = None,
) -> list[RunRow] | None:
    """Return rows of the database, or None after a warning if a cloud's cannot be reached.

    What runs the jobs can be asked without the database; on this machine, it is in the database.

    Args:
        context: The context.
        read: Reads the rows.
        required: True to raise the error instead.
        out: The output for the warning, if it is not that of the command.
    """
    from aspencli.cli.failures import explain

    try:
        return read()
    except Exception as error:
        failure = explain(error)
        if required or failure.code not in {4, 5} or is_local(context):
            raise
        (out or context.out).warn(
            f"Runs in the database are not shown: {failure.message.rstrip('.')}. "
            f"{failure.hint or ''}".strip()
        )
        return None
