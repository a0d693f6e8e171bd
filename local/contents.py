"""The content of the local database: its schema and, if it is empty, the test data."""

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
    """Return True if the database exists, accepts its own role, and needs no migration.

    A revision that this program does not know is assumed to be newer than its own.
    """
    from migrations import runner

    with _engine(cluster) as engine:
        try:
            at = runner.current(engine)
        except OperationalError:  # no such role or database: never prepared
            return False
    return at == runner.head() or (at is not None and not runner.has(at))


def is_empty(cluster: Cluster) -> bool:
    """Return True if the database has no groups, and therefore no users or samples."""
    with _engine(cluster) as engine, engine.connect() as connection:
        return not connection.scalar(sa.text("SELECT EXISTS (SELECT FROM aspen.groups)"))


def fill(cluster: Cluster, objects: Objects, unfinished: Path) -> RolesResult:
    """Add the test data.

    Args:
        cluster: The server with the database.
        objects: Where to store the files that the rows refer to.
        unfinished: A marker file that exists until all of the data is added.
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
