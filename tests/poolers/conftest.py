"""The routes to a database: direct, and through PgBouncer in each of its modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from aspen.database.engine import Database
from tests.conftest import Server, _run_folder
from tests.pooler import MODES, Pooler, find_pgbouncer

WAYS = ("direct", *MODES)
"""The routes by which the tests in this folder reach the database."""


@pytest.fixture(scope="session")
def through(
    postgres: Server, pytestconfig: pytest.Config, worker_id: str
) -> Iterator[Callable[[str, URL], URL]]:
    """Return a function that routes an address by one of `WAYS`; poolers start on first use."""
    poolers: dict[str, Pooler] = {}
    with ExitStack() as running:

        def address(way: str, direct: URL) -> URL:
            if way == "direct":
                return direct
            if find_pgbouncer() is None:
                pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
            if way not in poolers:
                folder: Path = (
                    pytestconfig.stash[_run_folder] / f"{way.replace(',', '-')}-{worker_id}"
                )
                server = make_url(postgres.url("postgres"))
                poolers[way] = running.enter_context(Pooler(folder, server, way))
            return poolers[way].url(direct)

        yield address


@pytest.fixture(params=MODES)
def pooled(
    request: pytest.FixtureRequest, seeded: Database, through: Callable[[str, URL], URL]
) -> URL:
    """Return the address of a seeded database behind a pooler, in each of its modes."""
    return through(request.param, seeded.url)
