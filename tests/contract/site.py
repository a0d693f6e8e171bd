"""The whole service in one place, for scripts: database, provider, AWS, and the API itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database
from aspen.database.migrate import upgrade
from aspen.local.aws.content import ObjectFolder
from aspen.local.postgres.server import Cluster
from aspen.local.seed import seed_roles
from tests.api.conftest import (
    Api,
    Cloud,
    Provider,
    managed_by,
    running_cloud,
    starting,
    use_organizations,
)
from tests.conftest import Server
from tests.local.auth0.lab import Identity, running_identity

UNLIMITED = ("--trial", "--burst", "1000000", "--rate", "1000000")
"""Options that let a provider accept as many requests as a script sends."""


@contextmanager
def whole_service() -> Iterator[Api]:
    """Run everything on a database with every role, and remove it afterward."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aspen-service-")))
        folder.chmod(0o711)  # the server's account needs to pass through
        stack.callback(lambda: Cluster(folder).reset())
        database = _database(Server(folder), ObjectFolder(folder / "objects"))
        stack.callback(database.dispose)
        identity = stack.enter_context(running_identity(folder / "identity", *UNLIMITED))
        cloud = stack.enter_context(running_cloud(ObjectFolder(folder / "objects")))
        provider = Provider()
        stack.callback(provider.close)
        make = stack.enter_context(starting(provider))
        yield make(database, **surroundings(database, identity, cloud))


def surroundings(database: Database, identity: Identity, cloud: Cloud) -> dict[str, str]:
    """Return the service's settings for a provider and AWS; groups become its organizations."""
    use_organizations(database)
    return {**managed_by(identity), **cloud.settings}


def _database(server: Server, objects: ObjectFolder) -> Database:
    address = server.url(server.create())
    engine = sa.create_engine(address, poolclass=NullPool)
    upgrade(engine)
    engine.dispose()
    database = Database(address, application_name="tests")
    seed_roles(database, objects)
    return database
