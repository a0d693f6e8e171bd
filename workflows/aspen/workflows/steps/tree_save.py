"""Save a tree, and complete its run."""

from __future__ import annotations

import sys

from aspen.database.engine import Database
from aspen.workflows.steps import Workspace
from aspen.workflows.tree.export import Run
from aspen.workflows.tree.objects import explained
from aspen.workflows.tree.save import Saved, found_versions, save


def run(workspace: Workspace) -> None:
    """Store the tree's file and rows."""
    made = Run.read(workspace.of("tree-export") / "run.json")
    surroundings = workspace.surroundings
    database = Database(
        surroundings.database,
        application_name=f"aspen {workspace.step} {made.run_id}",
        writable=True,
    )
    store = workspace.store
    place = f"s3://{surroundings.bucket}/{made.keys.tree}"
    try:
        with explained(f"write {place}"):
            saved = save(
                database,
                made,
                workspace.of("tree-assemble") / "tree.json",
                found_versions(workspace.folder),
                upload=store.upload,
                is_stored=lambda path, key: store.read(key) == path.read_bytes(),
            )
    finally:
        database.dispose()
    _report(saved, place)


def _report(saved: Saved, place: str) -> None:
    if saved.before:
        _say(f"Tree {saved.tree_id} was saved before.")
        return
    _say(f"Saved tree {saved.tree_id} with {saved.samples:,} samples of the run as {place}.")
    for name in saved.absent:
        _say(f"The tree does not show the chosen sample {name}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - standard error is the step's log
