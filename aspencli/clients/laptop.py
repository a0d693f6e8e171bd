"""Access to the deployment on this machine for the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.errors import UnreachableError
from db import libpq

if TYPE_CHECKING:
    from local.aws.objects import ObjectFolder
    from local.deployment import Deployment, Up
    from local.parts import PartStatus, PartSteps, Stopped
    from local.postgres import Cluster
    from local.prepare import Prepared


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the deployment's API and identity provider.

    Attributes:
        api_url: The address of the API, without a trailing slash.
        auth_url: The address of the identity provider, without a trailing slash.
        auth_client_id: The client that the command line signs in as.
    """

    api_url: str
    auth_url: str
    auth_client_id: str


class Laptop:
    """The deployment in this user's data directory."""

    @cached_property
    def deployment(self) -> Deployment:
        """Return the deployment as a whole."""
        from local.deployment import Deployment

        # Settings meant for other servers would break connections to the deployment's own.
        libpq.forget(libpq.MISLEADING | libpq.CONNECTION)
        return Deployment(homes.data_dir())

    @property
    def cluster(self) -> Cluster:
        """Return its PostgreSQL cluster."""
        return self.deployment.cluster

    @property
    def objects(self) -> ObjectFolder:
        """Return the files that its S3 stand-in has from the start."""
        return self.deployment.objects

    def endpoints(self) -> Endpoints | None:
        """Return the addresses of its API and identity provider, or None before they first ran.

        They keep their addresses while they are stopped. Nothing slow is imported.
        """
        from local.ports import HOST
        from local.services import CLIENT_ID
        from local.state import State

        ports = State(homes.data_dir()).ports()
        if not {"api", "identity"} <= ports.keys():
            return None
        api, issuer = (f"http://{HOST}:{ports[name]}" for name in ("api", "identity"))
        return Endpoints(api, issuer, CLIENT_ID)

    def check_api(self) -> None:
        """Check that its API and its identity provider are running.

        Raises:
            UnreachableError: One of them is not.
        """
        running = self.deployment.running_ports()
        if missing := [name for name in ("api", "identity") if name not in running]:
            raise UnreachableError(
                f"of the local deployment, {' and '.join(missing)} is not running",
                hint="Start it: aspencli local up",
            )

    def database_url(self, *, admin: bool = False) -> str:
        """Return the address of its database.

        Args:
            admin: True to connect as the server's superuser.

        Raises:
            UnreachableError: The database is not running.
        """
        from local import postmaster
        from local.postgres import SUPERUSER, WRITER

        if postmaster.read(self.cluster.data) is None:  # a full status check takes longer
            raise UnreachableError(
                f"the local database is {self.cluster.status().state.value}",
                hint="Start it: aspencli local up",
            )
        return self.cluster.url(user=SUPERUSER if admin else WRITER)

    def owns(self, system: str | None) -> bool:
        """Return True if a system identifier is that of the deployment's own data directory."""
        import struct

        from local.places import Places

        control = Places(homes.data_dir()).data / "global" / "pg_control"
        try:
            with control.open("rb") as file:
                # The first field of the control file since PostgreSQL 8.1 (catalog/pg_control.h).
                (own,) = struct.unpack("=Q", file.read(8))
        except (OSError, struct.error):  # there is no deployment that could own it
            return False
        return system == str(own)

    def up(self, names: Iterable[str], progress: PartSteps) -> Up:
        """Start the named parts, or all of them, and make the database ready for use."""
        from local.services import PARTS

        return self.deployment.up(tuple(names) or PARTS, progress)

    def prepare(self) -> Prepared:
        """Create the database if missing, migrate it, and grant the roles their privileges."""
        return self.deployment.prepare()

    def publish(self) -> None:
        """Make the running S3 stand-in serve the files that were added since it started."""
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
        from local.messages import messages

        return messages(self.deployment.state, names, lines, follow=follow)

    def psql(self) -> Path | None:
        """Return the psql that came with the server's programs, or None if there is none."""
        from local.binaries import find_binaries

        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None
