"""Build the tree."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from aspen.workflows.steps import Workspace
from aspen.workflows.tree import build, newick
from aspen.workflows.tree.exported import VERSIONS, Exported


def run(workspace: Workspace) -> None:
    """Write ``tree.nwk``.

    Raises:
        StepError: The alignment cannot be used.
    """
    genome = Exported.read(workspace.of("tree-export")).genome
    sequences = build.read_alignment(workspace.of("tree-subsample") / "aligned.fasta")
    with tempfile.TemporaryDirectory(dir=workspace.out) as temporary:
        tree = build.build(sequences, genome, Path(temporary))
    (workspace.out / "tree.nwk").write_text(newick.write(tree.root))
    (workspace.out / VERSIONS).write_text(json.dumps(tree.versions))
