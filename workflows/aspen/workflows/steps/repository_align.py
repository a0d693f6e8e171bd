"""Align the sequences of a dump, unless they came aligned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from aspen.database.models import RepositoryAlignmentWorkflow
from aspen.workflows.imports.align import ALIGNER, REFERENCES, align_file
from aspen.workflows.imports.dump import (
    ALIGNED,
    METADATA,
    SEQUENCES,
    Dump,
    keep_named,
    names_in,
    repack,
)
from aspen.workflows.imports.failures import recorded
from aspen.workflows.programs import say
from aspen.workflows.steps import StepError, Workspace


def run(workspace: Workspace) -> None:
    """Run the step."""
    started = datetime.now(UTC).replace(tzinfo=None)
    with recorded(workspace, RepositoryAlignmentWorkflow, started=started):
        _run(workspace, started)


def _run(workspace: Workspace, started: datetime) -> None:
    source, out = workspace.of("repository-fetch"), workspace.out
    dump = Dump.read(source)
    if dump.is_aligned:
        say("The sequences came aligned.")
        names = repack(source / SEQUENCES, out / ALIGNED)
        dump = replace(dump, aligned_by="given")
    else:
        if dump.pathogen not in REFERENCES:
            raise StepError(
                f"The sequences have {dump.shortest:,} to {dump.longest:,} sites, so they are not "
                f"aligned, and only those of SARS-CoV-2 can be aligned here. Give aligned "
                f"sequences of {dump.pathogen}."
            )
        align_file(source / SEQUENCES, out / ALIGNED, dump.pathogen)
        names = names_in(out / ALIGNED)
        dump = replace(dump, aligned_by=ALIGNER)
    if not keep_named(source / METADATA, out / METADATA, dump.repository, names):
        raise StepError("No aligned sequence has metadata.")
    replace(dump, started=started.isoformat()).write(out)
