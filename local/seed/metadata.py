"""Samples from a Nextstrain metadata file, with their locations and genomes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from aspencli.fasta import read_fasta
from db.database import Database
from local.seed.ingest import BATCH, Import
from local.seed.nextstrain import read_metadata
from local.seed.records import RejectedRow, analyse, owner_of


@dataclass(frozen=True)
class MetadataResult:
    """The result of importing a metadata file.

    Attributes:
        added: The number of samples added.
        already: The number of samples that already existed.
        rejected: The rejected lines, in file order.
        locations_added: The number of locations added.
        genomes_added: The number of new samples with a sequence; the others have an empty one.
        seconds: The time it took.
    """

    added: int
    already: int
    rejected: tuple[RejectedRow, ...]
    locations_added: int
    genomes_added: int
    seconds: float


def seed_metadata(
    database: Database,
    metadata: Path,
    *,
    sequences: Path | None = None,
    lat_longs: Path | None = None,
    group: int = 1,
    progress: Callable[[int], None] | None = None,
) -> MetadataResult:
    """Add the genomes of a Nextstrain metadata file to a group, in one transaction.

    A sample's private identifier is its GenBank accession, its public one the strain. Existing
    samples are left alone, so running it again adds nothing. The samples are not private.

    Args:
        database: The database to write to.
        metadata: A tab-separated file with the columns `nextstrain.REQUIRED` and optional others.
        sequences: A FASTA file whose headers are strains.
        lat_longs: A table of level, place, latitude, and longitude for new locations.
        group: The group's ID.
        progress: Called with the number of lines finished since the last call.

    Each file may be compressed with gzip.

    Raises:
        BadInputError: A file cannot be read or is malformed; nothing is changed.
        NotFoundError: The group does not exist, or none of its users may upload.
    """
    began = time.monotonic()
    with database.begin() as session:
        run = Import(session, owner_of(session, group), lat_longs, progress or _silent)
        lines = read_metadata(metadata)
        while batch := list(islice(lines, BATCH)):
            run.add(batch)
        run.add_genomes(read_fasta(sequences) if sequences else ())
        analyse(session)
    return MetadataResult(
        added=run.added,
        already=run.already,
        rejected=tuple(run.rejected),
        locations_added=run.locations,
        genomes_added=run.genomes,
        seconds=time.monotonic() - began,
    )


def _silent(count: int) -> None:
    del count
