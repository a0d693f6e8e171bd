"""The data with which it can be seen who may do what: every role, and samples of three groups."""

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
"""How many samples each test group has; every fifth of them is private."""


@dataclass(frozen=True)
class RolesResult:
    """What was added; all zero when everything was there.

    Attributes:
        groups: How many groups.
        users: How many users.
        locations: How many locations.
        samples: How many samples.
        runs: How many phylogenetic runs.
        trees: How many of them have a tree.
        seconds: How long it took.
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
    """Add the test groups and users, their samples up to `SAMPLES`, their runs and trees.

    In a new database that gives group 1 1,000 samples (200 private), group 2 20 (4) and group 3
    5 (1). Running it again adds what is missing.

    Args:
        database: Where to write.
        objects: Where the trees' files go.
        progress: Told the number of samples written since it was told last.

    Raises:
        ConflictError: The database has other groups under the test groups' numbers.
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
