"""Export a run's samples, and the configuration of its tree."""

from __future__ import annotations

import sys

from aspen.database.engine import Database
from aspen.workflows.jobs import TreeParameters
from aspen.workflows.steps import Workspace
from aspen.workflows.tree.export import export
from aspen.workflows.tree.objects import explained


def run(workspace: Workspace) -> None:
    """Write the files of the run, and upload those that readers of the bucket expect."""
    wanted = workspace.parameters(TreeParameters).run_id
    surroundings = workspace.surroundings
    database = Database(
        surroundings.database, application_name=f"aspen {workspace.step} {wanted}", writable=True
    )
    try:
        made, notes = export(database, wanted, surroundings.bucket, workspace.out)
    finally:
        database.dispose()
    for note in notes:
        print(note, file=sys.stderr)  # noqa: T201 - standard error is the step's log
    for name, key in (("builds.yaml", made.keys.builds), ("include.txt", made.keys.include)):
        with explained(f"write s3://{surroundings.bucket}/{key}"):
            workspace.store.upload(workspace.out / name, key)
