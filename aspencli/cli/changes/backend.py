"""A bulk run through either backend: directly in the database, or through the API."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aspencli.cli import params
from aspencli.cli.params import Road

if TYPE_CHECKING:
    from aspencli.changes.report import JobFiles
    from aspencli.cli.changes.runner import Job, Purpose
    from aspencli.cli.context import AppContext


def open_job(
    context: AppContext,
    stack: ExitStack,
    group_id: int | None,
    files: JobFiles,
    purpose: Purpose,
    road: Road,
) -> Job[Any]:
    """Return the job for a backend; see `aspencli.cli.changes.runner.Job`."""
    params.announce(context, road)
    if road is Road.API and group_id is not None:
        from aspencli.cli.changes.remote import ApiJob

        return ApiJob(context, stack, group_id, files, purpose)
    from aspencli.cli.changes.runner import DatabaseJob

    return DatabaseJob(context, stack, group_id, files, purpose)
