"""What the local database holds: its schema, and the test data of an empty one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from aspencli.files import open_own

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from local.postgres import Cluster
    from local.seed import Objects, RolesResult


def is_at_head(cluster: Cluster) -> bool:
    """Return True if the database is there, needs no revision, and is open to its own role.

    One that stands at a revision which the program does not have went beyond the program's own.
    """
    from migrations import runner

    with _engine(cluster) as engine:
        try:
            at = runner.current(engine)
        except OperationalError:  # no such role, or no such database: never prepared
            return False
    return at == runner.head() or (at is not None and not runner.has(at))


def is_empty(cluster: Cluster) -> bool:
    """Whether the database is without any group, and so without users and samples."""
    with _engine(cluster) as engine, engine.connect() as connection:
        return not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM aspen.groups)"))


def fill(cluster: Cluster, objects: Objects, unfinished: Path) -> RolesResult:
    """Add the test data.

    Args:
        cluster: Where the database is.
        objects: Where the files go that its rows speak of.
        unfinished: A file that is there until all of them are added.
    """
    from db.database import Database
    from local.seed import seed_roles

    os.close(open_own(unfinished))
    database = Database(cluster.url(), application_name="aspencli local", writable=True)
    try:
        filled = seed_roles(database, objects)
    finally:
        database.dispose()
    unfinished.unlink()
    return filled


@contextmanager
def _engine(cluster: Cluster) -> Iterator[Engine]:
    engine = sa.create_engine(cluster.url(), poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()
