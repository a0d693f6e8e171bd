"""Store the lineages that pangolin assigned."""

from __future__ import annotations

import json

from aspen.workflows.access import opened
from aspen.workflows.genomes import read_sums
from aspen.workflows.lineage.pangolin import REPORT, read_report
from aspen.workflows.lineage.save import save
from aspen.workflows.programs import say
from aspen.workflows.steps import Workspace
from aspen.workflows.steps.lineages_prepare import NAME


def run(workspace: Workspace) -> None:
    """Run the step."""
    source = workspace.of("lineages-prepare")
    sums = read_sums(source)
    if not sums:
        say("Nothing to store.")
        return
    title = f"pangolin {json.loads((source / NAME).read_text())['version']}"
    report = workspace.of("lineages-pangolin") / REPORT
    with opened(workspace) as database:
        count = save(database, sums, read_report(report, title, sums))
    say(f"Stored the lineages of {count:,} samples.")
