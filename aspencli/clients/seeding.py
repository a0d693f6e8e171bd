"""Test data for a local database, as requested on the command line."""

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
    """The test data to add, and the group that it is for.

    Attributes:
        group: The group's ID.
        samples: The number of generated samples; 0 for none.
        roles: True to fill every test group up to its number of samples.
        seed: The seed for the generator of samples.
        metadata: A Nextstrain metadata file to load, or None.
        sequences: The FASTA file of its genomes, or None.
        lat_longs: The coordinates of its locations, or None.
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
    """The test data added so far.

    Attributes:
        groups: The number of groups.
        users: The number of users.
        locations: The number of locations.
        samples: The number of samples.
        runs: The number of phylogenetic runs.
        trees: The number of those runs that have a tree.
        already: The number of lines in the file whose sample already existed.
        genomes: The number of samples in the file that got their sequence.
        rejected: The lines of the file that were skipped.
        seconds: The time it took.
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
    """Add the missing test groups, users, roles, and locations."""
    base = seed_base(database)
    so_far.groups += base.groups
    so_far.users += base.users
    so_far.locations += base.locations
    so_far.seconds += base.seconds


def add_file(database: Database, request: SeedRequest, so_far: Seeded, progress: Told) -> None:
    """Load the metadata file; ``progress`` gets the number of lines since its last call."""
    assert request.metadata is not None  # noqa: S101 - checked by the caller
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
    """Generate samples; ``progress`` gets the number written since its last call."""
    made = seed_samples(
        database, request.samples, group=request.group, seed=request.seed, progress=progress
    )
    so_far.samples += made.samples_added
    so_far.seconds += made.seconds


def add_roles(database: Database, objects: Objects, so_far: Seeded, progress: Told) -> None:
    """Add the test groups with all their data; ``progress`` gets the number of samples written."""
    added = seed_roles(database, objects, progress=progress)
    for name, count in vars(added).items():
        setattr(so_far, name, getattr(so_far, name) + count)


def add_runs(database: Database, objects: Objects, so_far: Seeded) -> None:
    """Add the missing phylogenetic runs and trees of the test groups."""
    added = seed_runs(database, objects)
    so_far.runs += added.runs
    so_far.trees += added.trees
    so_far.seconds += added.seconds


def holds_no_group(database: Database) -> bool:
    """Return True if there is no group yet that could own samples."""
    with database.reading() as session:
        return not session.scalar(sa.select(sa.exists(sa.select(Group.id))))
