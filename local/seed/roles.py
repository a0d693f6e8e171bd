"""Test data for access control: every role, and samples of three groups."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from db.database import Database
from db.models import Sample
from local.seed.base import seed_base
from local.seed.objects import Objects
from local.seed.runs import seed_runs
from local.seed.samples import seed_samples

SAMPLES = {1: 1000, 2: 20, 3: 5}
"""The number of samples of each test group; every fifth one is private."""


@dataclass(frozen=True)
class RolesResult:
    """The number of objects added; all zero if everything existed.

    Attributes:
        groups: The number of groups.
        users: The number of users.
        locations: The number of locations.
        samples: The number of samples.
        runs: The number of phylogenetic runs.
        trees: The number of runs with a tree.
        seconds: The time it took.
    """

    groups: int
    users: int
    locations: int
    samples: int
    runs: int
    trees: int
    seconds: float


def seed_roles(
    database: Database,
    objects: Objects,
    *,
    progress: Callable[[int], None] | None = None,
) -> RolesResult:
    """Add the test groups and users, their samples up to `SAMPLES`, their runs, and trees.

    A new database gets 1,000 samples in group 1 (200 private), 20 in group 2 (4), and 5 in group 3
    (1). Running it again adds what is missing.

    Args:
        database: The database to write to.
        objects: Where to store the tree files.
        progress: Called with the number of samples written since the last call.

    Raises:
        ConflictError: The database has different groups with the test groups' IDs.
    """
    began = time.monotonic()
    base = seed_base(database)
    added = 0
    for group, wanted in SAMPLES.items():
        missing = wanted - _count(database, group)
        if missing > 0:
            added += seed_samples(database, missing, group=group, progress=progress).samples_added
    runs = seed_runs(database, objects)
    seconds = time.monotonic() - began
    return RolesResult(
        base.groups, base.users, base.locations, added, runs.runs, runs.trees, seconds
    )


def _count(database: Database, group: int) -> int:
    statement = sa.select(sa.func.count()).where(Sample.submitting_group_id == group)
    with database.reading() as session:
        return session.scalar(statement) or 0
