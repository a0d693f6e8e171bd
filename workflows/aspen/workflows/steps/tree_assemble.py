"""Make the Auspice JSON of the tree."""

from __future__ import annotations

import json

from aspen.workflows.steps import Workspace
from aspen.workflows.tree import align, assemble, refine
from aspen.workflows.tree.exported import VERSIONS, Exported


def run(workspace: Workspace) -> None:
    """Write ``tree.json``.

    Raises:
        StepError: The result would not be valid.
    """
    exported = Exported.read(workspace.of("tree-export"))
    refined = assemble.Refined(
        workspace.of("tree-refine"),
        workspace.of("tree-subsample") / "metadata.tsv",
        align.read_excluded(workspace.of("tree-align")),
        workspace.of("tree-export") / "lat_longs.tsv",
    )
    assemble.assemble(refined, exported.title, exported.genome, workspace.out)
    (workspace.out / VERSIONS).write_text(json.dumps(refine.versions()))
