"""The uploaded genomes that a quality or lineage job works on.

A sequence is named by its sample's ID: two groups may have samples with the same public identifier.
What was written is remembered with a checksum, so that no result is stored for a sample whose
genome has changed since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.sessions import Reader, WriteSession
from aspen.workflows.access import find_pathogen
from aspen.workflows.jobs import RunType, SampleParameters
from aspen.workflows.programs import named, say
from aspen.workflows.steps import StepError

T = TypeVar("T")

SEQUENCES, SAMPLES = "sequences.fasta", "samples.json"
"""The names of the files that `write` makes."""
_BATCH = 200  # genomes of 30 KB, or of 200 KB
_GIVEN = """
SELECT samples.id, pathogens.slug FROM aspen.samples
  JOIN aspen.pathogens ON pathogens.id = samples.pathogen_id
 WHERE samples.id = ANY(:ids)
"""
_OF_PATHOGEN = """
SELECT samples.id FROM aspen.samples
  JOIN aspen.uploaded_pathogen_genomes uploaded ON uploaded.sample_id = samples.id
  JOIN aspen.pathogen_genomes genome ON genome.entity_id = uploaded.pathogen_genome_id
 WHERE samples.pathogen_id = :pathogen AND genome.sequence <> ''
"""
_GENOMES = """
SELECT samples.id, samples.public_identifier, genome.sequence, md5(genome.sequence)
  FROM aspen.samples
  LEFT JOIN aspen.uploaded_pathogen_genomes uploaded ON uploaded.sample_id = samples.id
  LEFT JOIN aspen.pathogen_genomes genome ON genome.entity_id = uploaded.pathogen_genome_id
 WHERE samples.id = ANY(:ids) ORDER BY samples.id
"""
_LOCKED = """
SELECT samples.id, samples.submitting_group_id, md5(genome.sequence)
  FROM aspen.samples
  JOIN aspen.uploaded_pathogen_genomes uploaded ON uploaded.sample_id = samples.id
  JOIN aspen.pathogen_genomes genome ON genome.entity_id = uploaded.pathogen_genome_id
 WHERE samples.id = ANY(:ids) ORDER BY samples.id FOR NO KEY UPDATE OF samples
"""


@dataclass(frozen=True)
class Stale:
    """The condition that a sample's results are missing or out of date.

    Attributes:
        sql: The condition, on ``samples``.
        values: The values that it refers to.
    """

    sql: str
    values: Mapping[str, Any]


def choose(reader: Reader, parameters: SampleParameters, stale: Stale) -> list[int]:
    """Return the IDs of the samples to work on, in order.

    Raises:
        StepError: No sample was given or found, or a given one is of another pathogen.
    """
    pathogen, _ = find_pathogen(reader, parameters.pathogen)
    if parameters.run_type is RunType.GIVEN:
        return _given(reader, parameters)
    query, values = _OF_PATHOGEN, dict[str, Any](pathogen=pathogen)
    if parameters.run_type is RunType.STALE:
        query, values = f"{query} AND ({stale.sql})", {**values, **stale.values}
    found = reader.execute(sa.text(f"{query} ORDER BY samples.id"), values).scalars().all()
    if not found and parameters.run_type is RunType.ALL:
        raise StepError(f"No sample of {parameters.pathogen} has a genome.")
    return list(found)


def _given(reader: Reader, parameters: SampleParameters) -> list[int]:
    wanted = sorted(set(parameters.sample_ids))
    if not wanted:
        raise StepError("No sample was given.")
    found = reader.execute(sa.text(_GIVEN), {"ids": wanted}).all()
    slugs: dict[int, str] = dict(map(tuple, found))
    others = [f"{one} ({slugs[one]})" for one in slugs if slugs[one] != parameters.pathogen]
    if others:
        raise StepError(f"Not samples of {parameters.pathogen}: {named(others)}.")
    missing = [str(one) for one in wanted if one not in slugs]
    if missing:
        say(f"Skipped, because these samples no longer exist: {named(missing)}")
    if not slugs:
        raise StepError(f"None of the given samples exists: {named(missing)}.")
    return sorted(slugs)


def letters(sequence: str | None) -> str:
    """Return the letters of an uploaded sequence, which may contain FASTA headers."""
    lines = (sequence or "").splitlines()
    return "".join("".join(line.split()) for line in lines if not line.startswith(">")).upper()


def write(
    database: Database, ids: Sequence[int], folder: Path, *, strip: bool = False
) -> dict[int, str]:
    """Write the genomes of samples to a folder; return their checksums by sample ID.

    Samples without a genome are skipped, and named in the log.

    Args:
        database: The database.
        ids: The samples.
        folder: The folder for `SEQUENCES` and `SAMPLES`.
        strip: True to drop N from both ends.

    Raises:
        StepError: There are samples, but none has a genome.
    """
    sums, without = dict[int, str](), list[str]()
    with (folder / SEQUENCES).open("w", encoding="ascii", errors="replace") as file:
        for some in batches(ids, _BATCH):
            with database.reading() as session:
                rows = session.execute(sa.text(_GENOMES), {"ids": list(some)}).all()
            for sample, public, sequence, checksum in rows:
                text = letters(sequence)
                text = text.strip("N") if strip else text
                if text:
                    file.write(f">{sample}\n{text}\n")
                    sums[sample] = checksum
                else:
                    without.append(f"{sample} ({public})")
    if without:
        say(f"Skipped, because they have no genome: {named(without)}")
    if without and not sums:
        raise StepError(f"None of the samples has a genome: {named(without)}.")
    (folder / SAMPLES).write_text(json.dumps({str(one): sums[one] for one in sums}))
    say(f"{len(sums):,} genomes to process")
    return sums


def read_sums(folder: Path) -> dict[int, str]:
    """Return the checksums that `write` left, by sample ID."""
    found: dict[str, str] = json.loads((folder / SAMPLES).read_text())
    return {int(sample): checksum for sample, checksum in found.items()}


def lock(session: WriteSession, sums: Mapping[int, str]) -> dict[int, int]:
    """Lock samples until the transaction ends; return those to write to, with their groups.

    Samples that were deleted, or whose genome has changed, are left out and named in the log.
    """
    rows = session.execute(sa.text(_LOCKED), {"ids": sorted(sums)}).all()
    kept = {sample: group for sample, group, checksum in rows if sums[sample] == checksum}
    if gone := [str(sample) for sample in sorted(sums.keys() - kept.keys())]:
        say(f"Not stored, because the sample or its genome has changed meanwhile: {named(gone)}")
    return kept


def batches(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Yield the items in tuples of up to ``size``."""
    iterator = iter(items)
    while batch := tuple(islice(iterator, size)):
        yield batch
