"""The deployment on this machine, as the command line reaches it."""

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
    """How the deployment's API is reached, and who signs in to it.

    Attributes:
        api_url: Where the API answers, without a trailing slash.
        auth_url: The identity provider's address, without a trailing slash.
        auth_client_id: The client that the command line signs in as.
    """

    api_url: str
    auth_url: str
    auth_client_id: str


class Laptop:
    """The deployment below the data home of this user."""

    @cached_property
    def deployment(self) -> Deployment:
        """All of it."""
        from local.deployment import Deployment

        # Its server is reached in one way only, which settings meant for other servers would break.
        libpq.forget(libpq.MISLEADING | libpq.CONNECTION)
        return Deployment(homes.data_dir())

    @property
    def cluster(self) -> Cluster:
        """Its PostgreSQL."""
        return self.deployment.cluster

    @property
    def objects(self) -> ObjectFolder:
        """The files that its S3 holds from the start."""
        return self.deployment.objects

    def endpoints(self) -> Endpoints | None:
        """Where its API and its identity provider answer; None before they ran.

        They keep their addresses while they do not run. Nothing heavy is loaded.
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
        """Make sure that its API and its identity provider run.

        Raises:
            UnreachableError: One of them does not.
        """
        running = self.deployment.running_ports()
        if missing := [name for name in ("api", "identity") if name not in running]:
            raise UnreachableError(
                f"of the local deployment, {' and '.join(missing)} is not running",
                hint="Start it: aspencli local up",
            )

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
                f"the local database is {self.cluster.status().state.value}",
                hint="Start it: aspencli local up",
            )
        return self.cluster.url(user=SUPERUSER if admin else WRITER)

    def owns(self, system: str | None) -> bool:
        """Return True if a system identifier is that of the deployment's own data folder."""
        import struct

        from local.places import Places

        control = Places(homes.data_dir()).data / "global" / "pg_control"
        try:
            with control.open("rb") as file:
                # The first field of the control file since PostgreSQL 8.1 (catalog/pg_control.h).
                (own,) = struct.unpack("=Q", file.read(8))
        except (OSError, struct.error):  # there is no deployment, so nothing is its own
            return False
        return system == str(own)

    def up(self, names: Iterable[str], progress: PartSteps) -> Up:
        """Start parts (all, when none is named) and make the database ready for use."""
        from local.services import PARTS

        return self.deployment.up(tuple(names) or PARTS, progress)

    def prepare(self) -> Prepared:
        """Make the database where it is missing, migrate it, and give the roles their rights."""
        return self.deployment.prepare()

    def publish(self) -> None:
        """Have the running S3 hold the files that were added since it started."""
        self.deployment.publish()

    def down(self) -> dict[str, Stopped]:
        """Stop every part, PostgreSQL last; what that did, by the part's name."""
        return self.deployment.down()

    def status(self) -> list[PartStatus]:
        """What each part is doing."""
        return self.deployment.status()

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; whether it had any, by the part's name."""
        return self.deployment.reset()

    def logs(
        self, names: Sequence[str], lines: int, *, follow: bool = False
    ) -> Iterator[tuple[str, str]]:
        """The last messages, each with its part's name, then new ones as they come.

        Raises:
            NotFoundError: There are none.
        """
        from local.messages import messages

        return messages(self.deployment.state, names, lines, follow=follow)

    def psql(self) -> Path | None:
        """The psql that came with the server's programs; None where there is none."""
        from local.binaries import find_binaries

        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None
