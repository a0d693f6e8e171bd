"""Store the results of Nextclade."""

from __future__ import annotations

from itertools import chain

from aspen.workflows.access import opened
from aspen.workflows.genomes import read_sums
from aspen.workflows.programs import say
from aspen.workflows.qc.nextclade import Prepared
from aspen.workflows.qc.results import read_written
from aspen.workflows.qc.save import save
from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Run the step."""
    source = workspace.of("qc-prepare")
    sums, prepared = read_sums(source), Prepared.read(source)
    files = sorted(workspace.of("qc-nextclade").glob("results-*.jsonl"))
    with opened(workspace) as database:
        count = save(database, prepared, sums, chain.from_iterable(map(read_written, files)))
    say(f"Stored the quality and mutations of {count:,} samples.")
