"""The row of an import that failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa

from aspen.database.models import RepositoryAlignmentWorkflow, RepositoryDownloadWorkflow
from aspen.workflows.access import opened
from aspen.workflows.imports.repository import record_failure
from aspen.workflows.jobs import RepositoryParameters
from aspen.workflows.programs import say
from aspen.workflows.steps import StepError, Workspace


@contextmanager
def recorded(
    workspace: Workspace,
    kind: type[RepositoryDownloadWorkflow | RepositoryAlignmentWorkflow],
    *,
    started: datetime,
) -> Iterator[None]:
    """Add a failed workflow if the step fails for a reason that it explains.

    A step that is killed, or that loses the database, is run again and has not failed yet.
    """
    try:
        yield
    except StepError:
        parameters = workspace.parameters(RepositoryParameters)
        try:
            with opened(workspace) as database:
                record_failure(database, kind, parameters.pathogen, parameters.repository, started)
        except (StepError, sa.exc.SQLAlchemyError) as error:
            say(f"The failure is not in the table of workflows: {error}")
        raise
