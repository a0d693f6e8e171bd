"""Date the nodes of the tree, and find the mutations and places of its branches."""

from __future__ import annotations

import json

from aspen.workflows.steps import Workspace
from aspen.workflows.tree import refine
from aspen.workflows.tree.exported import VERSIONS, Exported


def run(workspace: Workspace) -> None:
    """Write ``tree.nwk`` and the data of its nodes.

    Raises:
        StepError: The inputs do not belong together, or augur failed.
    """
    exported = Exported.read(workspace.of("tree-export"))
    subsample = workspace.of("tree-subsample")
    refine.refine(
        workspace.of("tree-build") / "tree.nwk",
        subsample / "aligned.fasta",
        subsample / "metadata.tsv",
        exported.genome,
        workspace.out,
        keep=exported.include,
    )
    (workspace.out / VERSIONS).write_text(json.dumps(refine.versions()))
