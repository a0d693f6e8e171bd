"""The command line's access to the deployment on this machine, its logs, and its test data."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from aspen.database import settings
from aspen.database.engine import Database
from aspen.database.models import Group
from aspen.local import logs
from aspen.local.postgres.paths import SUPERUSER, WRITER, Places
from aspen.local.seed import (
    Objects,
    RejectedRow,
    seed_base,
    seed_metadata,
    seed_roles,
    seed_runs,
    seed_samples,
)
from aspen.local.services import PARTS, POSTGRES, SUPERVISOR
from aspen.local.state import State
from aspen.local.supervisor.client import Supervision
from aspencli import files
from aspencli.errors import NotFoundError, UnreachableError
from aspencli.machine import Endpoints, read_endpoints, read_postmaster

if TYPE_CHECKING:
    from aspen.local.aws.content import ObjectFolder
    from aspen.local.deployment import Deployment, Up
    from aspen.local.postgres.prepare import Prepared
    from aspen.local.postgres.server import Cluster
    from aspen.local.services import PartStatus, PartSteps, Stopped

SOURCES = (*PARTS, SUPERVISOR)
"""The sources of messages: every part, and the supervisor."""

Told = Callable[[int], None]


class Laptop:
    """The deployment in this user's data directory."""

    @cached_property
    def deployment(self) -> Deployment:
        """Return the deployment as a whole."""
        from aspen.local.deployment import Deployment

        # Settings meant for other servers would break connections to the deployment's own.
        settings.forget(settings.MISLEADING | settings.CONNECTION)
        return Deployment(files.data_dir())

    @property
    def cluster(self) -> Cluster:
        """Return its PostgreSQL cluster."""
        return self.deployment.cluster

    @property
    def objects(self) -> ObjectFolder:
        """Return the files that its S3 emulator has from the start."""
        return self.deployment.objects

    def endpoints(self) -> Endpoints | None:
        """Return the addresses of a deployment that an earlier version started, else None.

        That version wrote no file of them.
        """
        if not {"api", "identity"} <= State(files.data_dir()).ports().keys():
            return None
        self.deployment.publish_endpoints()
        return read_endpoints(files.data_dir())

    def check_api(self) -> None:
        """Check that its API and its identity provider are running.

        Raises:
            UnreachableError: One of them is not.
        """
        running = self.deployment.running_ports()
        if missing := [name for name in ("api", "identity") if name not in running]:
            raise UnreachableError(
                f"Not running in the local deployment: {', '.join(missing)}",
                hint="Start it: aspencli local up",
            )

    def database_url(self, *, admin: bool = False) -> str:
        """Return the address of its database.

        Args:
            admin: True to connect as the server's superuser.

        Raises:
            UnreachableError: The database is not running.
        """
        if read_postmaster(self.cluster.data) is None:  # a full status check takes longer
            raise UnreachableError(
                f"The local database is {self.cluster.status().state.value}.",
                hint="Start it: aspencli local up",
            )
        return self.cluster.url(user=SUPERUSER if admin else WRITER)

    def owns(self, system: str | None) -> bool:
        """Return True if a system identifier is that of the deployment's own data directory."""
        control = Places(files.data_dir()).data / "global" / "pg_control"
        try:
            with control.open("rb") as file:
                # The first field of the control file since PostgreSQL 8.1 (catalog/pg_control.h).
                (own,) = struct.unpack("=Q", file.read(8))
        except (OSError, struct.error):  # there is no deployment that could own it
            return False
        return system == str(own)

    def up(self, names: Iterable[str], progress: PartSteps) -> Up:
        """Start the named parts, or all of them, and make the database ready for use."""
        return self.deployment.up(tuple(names) or PARTS, progress)

    def prepare(self) -> Prepared:
        """Create the database if missing, migrate it, and grant the roles their privileges."""
        return self.deployment.prepare()

    def publish(self) -> None:
        """Make the running S3 emulator serve the files that were added since it started."""
        self.deployment.publish()

    def down(self) -> dict[str, Stopped]:
        """Stop every part, PostgreSQL last, and return the results by part name."""
        return self.deployment.down()

    def status(self) -> list[PartStatus]:
        """Return the status of each part."""
        return self.deployment.status()

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; return whether it had any, by part name."""
        return self.deployment.reset()

    def logs(
        self, names: Sequence[str], lines: int, *, follow: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Return the last messages with their part names, plus new ones if ``follow`` is set.

        Raises:
            NotFoundError: There are none.
        """
        return messages(self.deployment.state, names, lines, follow=follow)

    def psql(self) -> Path | None:
        """Return the psql that came with the server's programs, or None if there is none."""
        from aspen.local.postgres.binaries import find_binaries

        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None


def messages(
    state: State, names: Sequence[str], lines: int, *, follow: bool = False
) -> Iterator[tuple[str, str]]:
    """Return the last messages in time order, each with the name of its source.

    Args:
        state: The deployment's files.
        names: The sources; all of them if empty.
        lines: The number of last messages.
        follow: True to continue with new messages until nothing is running.

    Raises:
        NotFoundError: There are no messages.
    """
    finders = {name: _finder(state, name) for name in names or SOURCES}
    if not any(find().exists() for find in finders.values()):
        whose = ", ".join(names) or "the local deployment"
        raise NotFoundError(
            f"No log messages yet; never started: {whose}", hint="Start it: aspencli local up"
        )
    if follow:
        return logs.follow_all(finders, lines, until=partial(_nothing_runs, state))
    tails = {name: logs.tail(find(), lines) for name, find in finders.items()}
    return iter(logs.merged(tails)[-lines:] if lines else [])


def _finder(state: State, name: str) -> Callable[[], Path]:
    if name == POSTGRES:
        return lambda: logs.current_log(Places(state.home).data)
    return lambda: state.log(name)


def _nothing_runs(state: State) -> bool:
    running = read_postmaster(Places(state.home).data)
    return running is None and Supervision(state).process is None


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
