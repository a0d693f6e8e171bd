"""The deployment on this machine, as the command line reaches it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aspencli import homes
from aspencli.errors import NotFoundError, UnreachableError

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from local.aws.objects import ObjectFolder
    from local.parts import Part, PartStatus, Started, Stopped
    from local.postgres import Cluster
    from local.prepare import Prepared

PartSteps = Callable[[str, str], None]
"""Told a part's name, and the name of each longer step as it begins."""


@dataclass(frozen=True)
class Up:
    """What bringing the deployment up did.

    Attributes:
        started: What starting each part did, by its name.
        prepared: What preparing the database did; None where it was ready.
        empty: The database holds no group yet.
    """

    started: dict[str, Started]
    prepared: Prepared | None
    empty: bool

    @property
    def changed(self) -> bool:
        """Whether anything was started, made or migrated."""
        return bool(self.prepared) or not all(s.already_running for s in self.started.values())

    @property
    def seconds(self) -> float:
        """How long it took."""
        preparing = self.prepared.seconds if self.prepared else 0.0
        return preparing + sum(started.seconds for started in self.started.values())


class Laptop:
    """The deployment below the data home of this user."""

    @cached_property
    def cluster(self) -> Cluster:
        """Its PostgreSQL."""
        from local.postgres import Cluster  # it needs SQLAlchemy

        return Cluster(homes.data_dir())

    @cached_property
    def objects(self) -> ObjectFolder:
        """The files that its S3 holds from the start."""
        from local.aws.objects import OBJECTS, ObjectFolder

        return ObjectFolder(homes.data_dir() / "aws" / OBJECTS)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its servers, in the order in which they start."""
        return (self.cluster,)

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

    def up(self, progress: PartSteps) -> Up:
        """Start every part and make the database ready for use; nothing to do when all is."""
        started = {
            part.name: part.up(progress=_telling(progress, part.name)) for part in self.parts
        }
        prepared = None
        if not self._is_at_head():
            prepared = self.prepare(_telling(progress, self.cluster.name))
        return Up(started, prepared, self._is_empty())

    def prepare(self, progress: Callable[[str], None] | None = None) -> Prepared:
        """Make the database where it is missing, migrate it, and give the roles their rights."""
        from local.prepare import prepare

        return prepare(self.cluster, progress=progress)

    def down(self) -> dict[str, Stopped]:
        """Stop every part, the last one first; what that did, by the part's name."""
        return {part.name: part.down() for part in reversed(self.parts)}

    def status(self) -> list[PartStatus]:
        """What each part is doing."""
        return [part.status() for part in self.parts]

    def reset(self) -> dict[str, bool]:
        """Stop every part and delete its data; whether it had any, by the part's name."""
        return {part.name: part.reset() for part in reversed(self.parts)}

    def logs(self, lines: int, *, follow: bool = False) -> Iterator[str]:
        """The last messages of PostgreSQL, then new ones as they come, until it ends.

        Raises:
            NotFoundError: It never ran.
        """
        if not self.cluster.data.exists():
            raise NotFoundError(
                "there are no messages: the local deployment was never started",
                hint="Start it: aspencli local up",
            )
        return self.cluster.follow(lines) if follow else iter(self.cluster.logs(lines))

    def display_url(self) -> str:
        """The address of the database without its password."""
        from sqlalchemy.engine import URL, make_url

        url = make_url(self.cluster.url())
        plain = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
        return plain.render_as_string()

    def psql(self) -> Path | None:
        """The psql that came with the server's programs; None where there is none."""
        from local.binaries import find_binaries

        try:
            program = find_binaries().bindir / "psql"
        except UnreachableError:
            return None
        return program if os.access(program, os.X_OK) else None

    def _is_at_head(self) -> bool:
        """Whether the database is there, at the newest revision, and open to its own role."""
        from sqlalchemy.exc import OperationalError

        from migrations import runner

        with self._engine() as engine:
            try:
                return runner.current(engine) == runner.head()
            except OperationalError:  # no such role, or no such database: never prepared
                return False

    def _is_empty(self) -> bool:
        """Whether the database is without any group, and so without users and samples."""
        import sqlalchemy as sa

        with self._engine() as engine, engine.connect() as connection:
            return not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM aspen.groups)"))

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        import sqlalchemy as sa
        from sqlalchemy.pool import NullPool

        engine = sa.create_engine(self.cluster.url(), poolclass=NullPool)
        try:
            yield engine
        finally:
            engine.dispose()


def _telling(progress: PartSteps, part: str) -> Callable[[str], None]:
    return lambda step: progress(part, step)
