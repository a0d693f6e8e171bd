"""The alignment of a repository's sequences, one at a time, so that memory does not grow."""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

from aspen.workflows.programs import named, say
from aspen.workflows.reading import packing, records
from aspen.workflows.steps import StepError

ALIGNER = "aspen.workflows.tree.align"
REFERENCES = {"SC2": "MN908947.3"}
"""The accession of the reference that sequences can be aligned to, by pathogen."""
_SHOWN_EACH = 1_000


def reference_of(pathogen: str) -> str:
    """Return the sequence of a pathogen's reference."""
    text = (files("aspen.workflows.data") / f"{REFERENCES[pathogen]}.fasta").read_text()
    return "".join(text.splitlines()[1:]).upper()


def align_file(source: Path, target: Path, pathogen: str) -> int:
    """Write the aligned sequences of a file; return their number.

    Those that do not resemble the reference are left out, and named in the log.

    Raises:
        StepError: None can be aligned, or the aligner is not installed.
    """
    module, count, excluded = import_module(ALIGNER), 0, list[str]()
    aligner = module.Aligner(reference_of(pathogen))
    with packing(target) as out:
        for name, letters in records(source):
            try:
                out.write(f">{name}\n{_aligned(aligner, module.clean(letters))}\n")
                count += 1
            except module.NotAlignedError as error:
                excluded.append(f"{name} {error}")
            if (count + len(excluded)) % _SHOWN_EACH == 0:
                say(f"{count + len(excluded):,} sequences aligned")
    if excluded:
        say(f"Left out: {named(excluded)}")
    if not count:
        raise StepError(f"No sequence could be aligned: {named(excluded)}.")
    return count


def _aligned(aligner: Any, sequence: str) -> str:
    try:
        return str(aligner.align(sequence))
    except ImportError as error:  # a dump that comes aligned does not need it
        raise StepError(
            f"Alignment needs {error.name}, which is not installed. Run make workflows, or "
            'install the extra "workflows".'
        ) from error
