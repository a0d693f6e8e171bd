"""Run Nextclade on the genomes, in batches."""

from __future__ import annotations

import shutil
from pathlib import Path

from aspen.workflows.genomes import SEQUENCES, batches, read_sums
from aspen.workflows.programs import say
from aspen.workflows.qc.nextclade import ALIGNED, TABLE, Prepared, adapter
from aspen.workflows.qc.results import read_results, write_results
from aspen.workflows.reading import sequences
from aspen.workflows.steps import StepError, Workspace


def run(workspace: Workspace) -> None:
    """Run the step."""
    source = workspace.of("qc-prepare")
    total = len(read_sums(source))
    if not total:
        return
    nextclade, prepared = adapter(), Prepared.read(source)
    if nextclade.version.text != prepared.version:
        raise StepError(
            f"nextclade was replaced while the job ran: {prepared.version} is now "
            f"{nextclade.version.text}. Start the job again."
        )
    _clear(workspace.out)
    done = 0
    for number, some in enumerate(batches(sequences(source / SEQUENCES), nextclade.batch), 1):
        folder = workspace.out / f"batch-{number:05}"
        folder.mkdir()
        (folder / SEQUENCES).write_text("".join(f">{name}\n{text}\n" for name, text in some))
        nextclade.run(nextclade.path, folder / SEQUENCES, folder, source / "dataset")
        title = f"nextclade {prepared.version}"
        results = read_results(
            folder / TABLE, folder / ALIGNED, title, [int(name) for name, _ in some]
        )
        done += write_results(workspace.out / f"results-{number:05}.jsonl", results)
        shutil.rmtree(folder)
        say(f"{done:,} of {total:,} genomes done")


def _clear(folder: Path) -> None:
    """Remove what an earlier attempt left."""
    for path in folder.glob("batch-*"):
        shutil.rmtree(path)
    for path in folder.glob("results-*"):
        path.unlink()
