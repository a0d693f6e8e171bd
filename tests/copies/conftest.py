"""Fixtures: a source with canaries, a destination with rows of its own, and another server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from aspen.local.postgres.server import SUPERUSER, Cluster
from tests.conftest import _FAST, Server
from tests.copies.lab import Lab, Storage, made_from, plant
from tests.copies.trees import plant_trees
from tests.moto import running_moto

DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="session")
def _planted_template(postgres: Server, _roles_template: str) -> str:
    def fill(address: str) -> None:
        plant(address)

    return postgres.template("planted", fill, base=_roles_template)


@pytest.fixture(scope="session")
def aws() -> Iterator[str]:
    """Yield the address of an emulator of AWS."""
    with running_moto() as address:
        yield address


@pytest.fixture
def storage(aws: str) -> Iterator[Storage]:
    """Yield the buckets of a source and a destination."""
    with Storage(aws) as made:
        yield made


@pytest.fixture
def lab(
    postgres: Server,
    _planted_template: str,
    _seeded_template: str,
    storage: Storage,
    tmp_path: Path,
) -> Iterator[Lab]:
    """Yield a planted source with its trees, and a seeded destination on the same server."""
    with (
        made_from(postgres, _planted_template) as source,
        made_from(postgres, _seeded_template) as target,
    ):
        plant_trees(source, storage)
        yield Lab(source, target, tmp_path, storage)


@pytest.fixture(scope="module")
def other_server(server_folder: Path) -> Iterator[str]:
    """Yield a superuser's address of another server, of PostgreSQL 15 if it is installed."""
    with ExitStack() as exits:
        patch = exits.enter_context(pytest.MonkeyPatch.context())
        if (DEBIAN / "initdb").exists():
            patch.setenv("ASPEN_PG_BINDIR", str(DEBIAN))
        home = server_folder / "other"
        cluster = Cluster(home, settings=_FAST)
        exits.callback(cluster.reset)
        cluster.up()
        yield cluster.url("postgres", SUPERUSER)
