"""Saving of a tree: the object first, then the rows, in one transaction.

The run's row is locked before the object is written, so of two attempts only one writes, and a run
that is completed keeps its object. A process that is killed leaves either a run that is not
completed, or all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from aspen.database.engine import Database
from aspen.database.models import EntityType, WorkflowStatus
from aspen.workflows.steps import StepError
from aspen.workflows.tree.export import Run

VERSIONS_NAME = "versions.json"
"""The file in a step's folder with the versions of the programs that it ran."""

_DISTRIBUTION = "aspencli"
_LOCK = """
SELECT w.workflow_status, r.name, r.tree_type, r.group_id, r.pathogen_id,
       r.contextual_repository_id
  FROM aspen.workflows w JOIN aspen.phylo_runs r ON r.workflow_id = w.id
 WHERE w.id = :run FOR UPDATE OF w
"""
_TREES = """
SELECT t.entity_id, t.s3_bucket, t.s3_key
  FROM aspen.entities e JOIN aspen.phylo_trees t ON t.entity_id = e.id
 WHERE e.producing_workflow_id = :run ORDER BY t.entity_id
"""
_REMOVE = (
    "DELETE FROM aspen.phylo_tree_samples WHERE phylo_tree_id = :tree",
    "DELETE FROM aspen.workflow_inputs WHERE entity_id = :tree",
    "DELETE FROM aspen.phylo_trees WHERE entity_id = :tree",
    "DELETE FROM aspen.entities WHERE id = :tree",
)
_ENTITY = """
INSERT INTO aspen.entities (entity_type, producing_workflow_id, group_id)
VALUES (:kind, :run, :group_id) RETURNING id
"""
_TREE = """
INSERT INTO aspen.phylo_trees (entity_id, s3_bucket, s3_key, name, tree_type, pathogen_id,
                               contextual_repository_id, resolved_template_args)
VALUES (:tree, :bucket, :key, :name, :tree_type, :pathogen_id, :contextual_repository_id,
        CAST(:resolved AS jsonb))
"""
_SAMPLES = """
INSERT INTO aspen.phylo_tree_samples (sample_id, phylo_tree_id)
SELECT s.id, :tree FROM aspen.samples s WHERE s.id = ANY(:samples) ORDER BY s.id
    FOR KEY SHARE
RETURNING sample_id
"""
_COMPLETE = """
UPDATE aspen.workflows
   SET workflow_status = 'COMPLETED', software_versions = CAST(:versions AS json),
       end_datetime = statement_timestamp() AT TIME ZONE 'UTC'
 WHERE id = :run
"""


@dataclass(frozen=True)
class Saved:
    """A saved tree.

    Attributes:
        tree_id: The ID of the tree.
        samples: The number of samples linked to it.
        absent: The chosen samples that it does not show.
        before: True if an earlier execution of this step had saved it.
    """

    tree_id: int
    samples: int
    absent: tuple[str, ...] = ()
    before: bool = False


def save(
    database: Database,
    run: Run,
    tree: Path,
    versions: Mapping[str, str],
    *,
    upload: Callable[[Path, str], None],
    is_stored: Callable[[Path, str], bool],
) -> Saved:
    """Store a tree and complete its run; repeating it changes nothing.

    Args:
        database: The database, with sessions that may write.
        run: The run.
        tree: The file with the tree.
        versions: The versions of the programs that made it.
        upload: Writes a file to a key of the bucket.
        is_stored: Returns True if a key's object is the same as a file.

    Raises:
        StepError: The run is completed with another tree, or does not exist any more.
    """
    key = run.keys.tree
    tips = set(tip_names(tree))
    with database.begin() as session:
        row = session.execute(sa.text(_LOCK), {"run": run.run_id}).mappings().one_or_none()
        if row is None:
            raise StepError(f"Run {run.run_id} was deleted while its tree was being built.")
        earlier = session.execute(sa.text(_TREES), {"run": run.run_id}).all()
        if row["workflow_status"] == WorkflowStatus.COMPLETED.value:
            if [(made[1], made[2]) for made in earlier] == [(run.bucket, key)] and is_stored(
                tree, key
            ):
                return Saved(earlier[0][0], 0, before=True)
            raise StepError(
                f"Run {run.run_id} is completed with another tree, which was kept. To build another"
                " one, start a new run."
            )
        upload(tree, key)
        for made in earlier:
            for statement in _REMOVE:
                session.execute(sa.text(statement), {"tree": made[0]})
        values = {
            **row,
            "kind": EntityType.PHYLO_TREE.value,
            "run": run.run_id,
            "bucket": run.bucket,
            "key": key,
            "resolved": json.dumps(dict(run.resolved_template_args)),
        }
        values["tree"] = session.scalar(sa.text(_ENTITY), values)
        session.execute(sa.text(_TREE), values)
        linked, absent = _link(session, values["tree"], run, tips)
        session.execute(
            sa.text(_COMPLETE), {"run": run.run_id, "versions": json.dumps(dict(versions))}
        )
    return Saved(values["tree"], linked, absent)


def _link(session: Session, tree: int, run: Run, tips: set[str]) -> tuple[int, tuple[str, ...]]:
    """Link a tree to the chosen samples that it shows; return their number, and the others."""
    shown = {one["id"]: one["strain"] for one in run.samples if one["strain"] in tips}
    statement = sa.text(_SAMPLES).bindparams(sa.bindparam("samples", type_=sa.ARRAY(sa.Integer)))
    linked = session.scalars(statement, {"tree": tree, "samples": sorted(shown)}).all()
    absent = tuple(one["strain"] for one in run.samples if one["id"] not in set(linked))
    return len(linked), absent


def tip_names(tree: Path) -> Iterator[str]:
    """Yield the names of the tips of an Auspice dataset.

    Raises:
        StepError: It is not a dataset with one tree.
    """
    try:
        document = json.loads(tree.read_bytes())
        nodes = [document["tree"]]
        while nodes:
            node = nodes.pop()
            children = node.get("children") or []
            nodes.extend(children)
            if not children:
                yield node["name"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StepError(f"{tree.name} is not a tree in Auspice's format (version 2).") from error


def found_versions(folder: Path) -> dict[str, str]:
    """Return the versions of this program, and of those that the steps of a job say they ran."""
    found: dict[str, str] = {}
    for path in sorted(folder.glob(f"*/{VERSIONS_NAME}")):
        found.update(json.loads(path.read_text(encoding="utf-8")))
    with suppress(PackageNotFoundError):  # run from a folder, not installed
        found["aspen_workflow"] = version(_DISTRIBUTION)
    return found
