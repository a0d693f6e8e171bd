"""A bulk run through either backend: directly in the database, or through the API."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aspencli import params
from aspencli.params import Road

if TYPE_CHECKING:
    from aspencli.commands.bulk_job import Job
    from aspencli.commands.bulk_writing import Purpose
    from aspencli.context import AppContext
    from aspencli.services.job_files import JobFiles


def open_job(
    context: AppContext,
    stack: ExitStack,
    group_id: int | None,
    files: JobFiles,
    purpose: Purpose,
    road: Road,
) -> Job[Any]:
    """Return the job for a backend; see `aspencli.commands.bulk_job.Job`."""
    params.announce(context, road)
    if road is Road.API and group_id is not None:
        from aspencli.commands.renames_api import ApiJob

        return ApiJob(context, stack, group_id, files, purpose)
    from aspencli.commands.bulk_job import DatabaseJob

    return DatabaseJob(context, stack, group_id, files, purpose)
