"""Align the group's genomes to the reference."""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path

from aspen.workflows.steps import Workspace
from aspen.workflows.tree import align, fasta
from aspen.workflows.tree.exported import VERSIONS, Exported


def run(workspace: Workspace) -> None:
    """Write ``aligned.fasta`` and ``report.tsv``.

    Raises:
        StepError: None of the chosen samples can be aligned, or two have one name.
    """
    folder = workspace.of("tree-export")
    exported = Exported.read(folder)
    with tempfile.TemporaryDirectory(dir=workspace.out) as temporary:
        result = align.align(folder / "sequences.fasta", exported.genome, Path(temporary))
    with (workspace.out / align.REPORT).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["strain", "result"])
        writer.writerows((name, align.ALIGNED) for name in result.aligned)
        writer.writerows(result.excluded.items())
    for name, reason in result.excluded.items():
        print(f"Warning: {name} is not in the tree: its genome {reason}.")  # noqa: T201 - the log
    align.check_chosen(result, exported.include)
    fasta.write(workspace.out / "aligned.fasta", result.aligned.items())
    (workspace.out / VERSIONS).write_text(json.dumps(result.versions))
