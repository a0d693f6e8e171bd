"""Run pangolin on the genomes."""

from __future__ import annotations

import json

from aspen.workflows.genomes import SEQUENCES, read_sums
from aspen.workflows.lineage.pangolin import assign, find, read_report
from aspen.workflows.steps import StepError, Workspace
from aspen.workflows.steps.lineages_prepare import NAME


def run(workspace: Workspace) -> None:
    """Run the step."""
    source = workspace.of("lineages-prepare")
    sums = read_sums(source)
    if not sums:
        return
    pangolin, prepared = find(), json.loads((source / NAME).read_text())
    if (pangolin.version.text, pangolin.data) != (prepared["version"], prepared["data"]):
        raise StepError("pangolin was updated while the job ran. Start the job again.")
    report = assign(pangolin, source / SEQUENCES, workspace.out)
    # Read to its end, so that an incomplete report ends the job here.
    for _ in read_report(report, f"pangolin {pangolin.version.text}", sums):
        pass
