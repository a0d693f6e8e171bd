"""Test data for a local database, as the command line asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from db.database import Database
from db.models import Group
from local.seed import (
    Objects,
    RejectedRow,
    seed_base,
    seed_metadata,
    seed_roles,
    seed_runs,
    seed_samples,
)

Told = Callable[[int], None]


@dataclass(frozen=True)
class SeedRequest:
    """What to add, and to which group.

    Attributes:
        group: The group's id.
        samples: How many made-up samples; 0 for none.
        roles: Whether to fill every test group up to its number of samples.
        seed: Chooses among the endless possible sets of made-up samples.
        metadata: A Nextstrain metadata file to load; None for none.
        sequences: The FASTA file of its genomes; None where there is none.
        lat_longs: The coordinates of its locations; None where there are none.
    """

    group: int = 1
    samples: int = 0
    roles: bool = False
    seed: int = 0
    metadata: Path | None = None
    sequences: Path | None = None
    lat_longs: Path | None = None


@dataclass
class Seeded:
    """What was added so far.

    Attributes:
        groups: How many groups.
        users: How many users.
        locations: How many locations.
        samples: How many samples.
        runs: How many phylogenetic runs.
        trees: How many of them have a tree.
        already: How many lines of the file name a sample that was there.
        genomes: How many samples of the file got their sequence.
        rejected: The lines of the file that were left out.
        seconds: How long it took.
    """

    groups: int = 0
    users: int = 0
    locations: int = 0
    samples: int = 0
    runs: int = 0
    trees: int = 0
    already: int = 0
    genomes: int = 0
    rejected: tuple[RejectedRow, ...] = ()
    seconds: float = 0.0


def add_groups(database: Database, so_far: Seeded) -> None:
    """Add the test groups, users, roles and locations that are missing."""
    base = seed_base(database)
    so_far.groups += base.groups
    so_far.users += base.users
    so_far.locations += base.locations
    so_far.seconds += base.seconds


def add_file(database: Database, request: SeedRequest, so_far: Seeded, progress: Told) -> None:
    """Load the metadata file; ``progress`` is told the lines finished since it was told last."""
    assert request.metadata is not None  # noqa: S101 - the caller's own condition
    loaded = seed_metadata(
        database,
        request.metadata,
        sequences=request.sequences,
        lat_longs=request.lat_longs,
        group=request.group,
        progress=progress,
    )
    so_far.samples += loaded.added
    so_far.already += loaded.already
    so_far.locations += loaded.locations_added
    so_far.genomes += loaded.genomes_added
    so_far.rejected += loaded.rejected
    so_far.seconds += loaded.seconds


def add_samples(database: Database, request: SeedRequest, so_far: Seeded, progress: Told) -> None:
    """Make samples up; ``progress`` is told the samples written since it was told last."""
    made = seed_samples(
        database, request.samples, group=request.group, seed=request.seed, progress=progress
    )
    so_far.samples += made.samples_added
    so_far.seconds += made.seconds


def add_roles(database: Database, objects: Objects, so_far: Seeded, progress: Told) -> None:
    """Add the test groups with all that is theirs; ``progress`` is told the samples written."""
    added = seed_roles(database, objects, progress=progress)
    for name, count in vars(added).items():
        setattr(so_far, name, getattr(so_far, name) + count)


def add_runs(database: Database, objects: Objects, so_far: Seeded) -> None:
    """Add the test groups' phylogenetic runs and trees that are missing."""
    added = seed_runs(database, objects)
    so_far.runs += added.runs
    so_far.trees += added.trees
    so_far.seconds += added.seconds


def holds_no_group(database: Database) -> bool:
    """Whether there is no group yet, and so nobody to own samples."""
    with database.reading() as session:
        return not session.scalar(sa.select(sa.exists(sa.select(Group.id))))
