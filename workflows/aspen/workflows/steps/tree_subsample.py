"""Choose the samples of a tree."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

from aspen.workflows.steps import Workspace
from aspen.workflows.tree.export import Run
from aspen.workflows.tree.objects import explained
from aspen.workflows.tree.subsample import subsample


def run(workspace: Workspace) -> None:
    """Download the repository's dump, and write the samples that get into the tree."""
    exported, aligned = workspace.of("tree-export"), workspace.of("tree-align")
    made = Run.read(exported / "run.json")
    bucket = made.dump["bucket"]
    files = []
    for kind in ("metadata", "sequences"):
        key = made.dump[kind]
        # The same name, so that messages about the file are understood.
        path = workspace.out / f"dump-{PurePosixPath(key).name}"
        with explained(f"read the repository's {kind}, s3://{bucket}/{key}"):
            workspace.store.download(key, path, bucket=bucket)
        files.append(path)
    counts = subsample(
        made,
        own=(exported / "metadata.tsv", aligned / "aligned.fasta", aligned / "report.tsv"),
        dump_files=(files[0], files[1]),
        folder=workspace.out,
        note=_say,
    )
    for path in files:
        path.unlink()
    parts = ", ".join(f"{name} {number:,}" for name, number in counts["subsamples"].items())
    _say(f"{counts['tips']:,} samples: {counts['include']:,} chosen; {parts}. Seed: {made.seed}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201 - standard error is the step's log
