"""Write the object and the rows of a run's tree, as the real step does; again without harm."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy as sa

from aspen.workflows.engine.runs import find_run
from aspen.workflows.jobs import TreeParameters
from aspen.workflows.steps import StepError, Workspace
from aspen.workflows.store import TreeKeys

_TREE = sa.text("""
WITH tree AS (
    INSERT INTO aspen.entities (entity_type, producing_workflow_id, group_id)
    SELECT 'PHYLO_TREE', :run, group_id FROM aspen.phylo_runs WHERE workflow_id = :run
    RETURNING id)
INSERT INTO aspen.phylo_trees
    (entity_id, s3_bucket, s3_key, name, tree_type, pathogen_id, contextual_repository_id)
SELECT tree.id, :bucket, :key, r.name, r.tree_type, r.pathogen_id, r.contextual_repository_id
  FROM tree, aspen.phylo_runs r WHERE r.workflow_id = :run""")
_DONE = sa.text("""
UPDATE aspen.workflows
   SET workflow_status = 'COMPLETED', end_datetime = now() AT TIME ZONE 'UTC' WHERE id = :run""")


def run(workspace: Workspace) -> None:
    """Write the object first, then the rows in one transaction."""
    number = workspace.parameters(TreeParameters).run_id
    engine = sa.create_engine(workspace.surroundings.database)
    with engine.begin() as connection:
        lock = sa.text("SELECT workflow_status FROM aspen.workflows WHERE id = :run FOR UPDATE")
        status = connection.scalar(lock, {"run": number})
        found = find_run(connection, number)
        if found is None:
            raise StepError(f"Run {number} does not exist")
        if status == "COMPLETED":
            return
        key = TreeKeys(found.filestem, number, found.pathogen).tree
        result = workspace.of("trial-work") / "sums.txt"
        if folder := os.environ.get("TRIAL_OBJECTS"):
            (Path(folder) / key.replace("/", "_")).write_bytes(result.read_bytes())
        else:
            workspace.store.upload(result, key)
        values = {"run": number, "bucket": workspace.store.bucket, "key": key}
        connection.execute(_TREE, values)
        connection.execute(_DONE, {"run": number})
