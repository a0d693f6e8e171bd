"""The deployment on this machine, as the command line reaches it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.errors import UnreachableError

if TYPE_CHECKING:
    from local.parts import PartStatus, Started, Steps, Stopped
    from local.postgres import Cluster
    from local.prepare import Prepared


@dataclass(frozen=True)
class Up:
    """What bringing the deployment up did.

    Attributes:
        started: What starting the server did.
        prepared: What preparing its database did.
    """

    started: Started
    prepared: Prepared

    @property
    def changed(self) -> bool:
        """Whether anything was started or made."""
        return not self.started.already_running or self.prepared.created


class Laptop:
    """The deployment below the data home of this user."""

    @cached_property
    def cluster(self) -> Cluster:
        """Its PostgreSQL."""
        from local.postgres import Cluster  # it needs SQLAlchemy

        return Cluster(homes.data_dir())

    def database_url(self, *, admin: bool = False) -> str:
        """The address of its database.

        Args:
            admin: Whether to come as the server's superuser.

        Raises:
            UnreachableError: It is not running.
        """
        from local import postmaster
        from local.postgres import SUPERUSER, WRITER

        if postmaster.read(self.cluster.data) is None:  # a status in full takes longer
            raise UnreachableError(
                f"the local database is {self.status().state.value}",
                hint="Start it: aspencli local up",
            )
        return self.cluster.url(user=SUPERUSER if admin else WRITER)

    def up(self, progress: Steps) -> Up:
        """Start the server and make its database ready for use; nothing to do when both are."""
        started = self.cluster.up(progress=progress)
        return Up(started, self.prepare(progress))

    def prepare(self, progress: Steps | None = None) -> Prepared:
        """Make the database where it is missing, migrate it, and give the roles their rights."""
        from local.prepare import prepare

        return prepare(self.cluster, progress=progress)

    def down(self) -> Stopped:
        """Stop the server."""
        return self.cluster.down()

    def status(self) -> PartStatus:
        """What the server is doing."""
        return self.cluster.status()

    def reset(self) -> bool:
        """Stop the server and delete its data; whether there was any."""
        return self.cluster.reset()

    def logs(self, lines: int) -> list[str]:
        """The last messages of the server."""
        return self.cluster.logs(lines)

    def follow(self) -> Iterator[str]:
        """New messages of the server as they come, until it ends."""
        return self.cluster.follow()

    def display_url(self) -> str | None:
        """The address of its database without the password; None before the first start."""
        from sqlalchemy.engine import make_url

        if self.status().port is None:
            return None
        url = make_url(self.cluster.url()).set(drivername="postgresql", password=None)
        return url.render_as_string()

    def psql(self) -> Path | None:
        """The psql that came with the server's programs; None where there is none."""
        from local.binaries import find_binaries

        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None
