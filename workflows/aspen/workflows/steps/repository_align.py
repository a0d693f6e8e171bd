"""Align the sequences of a dump, unless they came aligned."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module

from aspen.database.models import RepositoryAlignmentWorkflow
from aspen.workflows.imports.dump import (
    ALIGNED,
    METADATA,
    REFERENCE_LENGTHS,
    SEQUENCES,
    Dump,
    keep_named,
    repack,
)
from aspen.workflows.imports.failures import recorded
from aspen.workflows.programs import say
from aspen.workflows.steps import StepError, Workspace

_ALIGNER = "aspen.workflows.tree.align"


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
        if dump.pathogen not in REFERENCE_LENGTHS:
            raise StepError(
                f"The sequences have {dump.shortest:,} to {dump.longest:,} sites, so they are not "
                f"aligned, and only those of SARS-CoV-2 can be aligned here. Give aligned "
                f"sequences of {dump.pathogen}."
            )
        plain, aligned = out / "sequences.fasta", out / "aligned.fasta"
        repack(source / SEQUENCES, plain)
        try:
            import_module(_ALIGNER).align_file(plain, aligned)
        except ImportError as error:  # a dump that came aligned does not need it
            raise StepError(
                f"Alignment needs {error.name}, which is not installed. Run make workflows, or "
                'install the extra "workflows".'
            ) from error
        plain.unlink()
        if not aligned.stat().st_size:
            raise StepError("No sequence resembles the reference genome.")
        names = repack(aligned, out / ALIGNED)
        aligned.unlink()
        dump = replace(dump, aligned_by=_ALIGNER)
    if not keep_named(source / METADATA, out / METADATA, dump.repository, names):
        raise StepError("No aligned sequence has metadata.")
    replace(dump, started=started.isoformat()).write(out)
