"""The guide to a database in trouble, compared with the output of its commands.

``<!-- scene: NAME -->`` on the page marks where the database gets into another kind of trouble.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aspen.database.engine import Database
from aspen.local.postgres.server import Cluster
from tests.cli.commands.diagnostics_lab import TroubledSite, troubled
from tests.conftest import GIVEN_SERVER, Server, cli_environment, migrate, seed
from tests.guides.session import replayed, steady

GUIDE = Path(__file__).parents[2] / "docs/guides/diagnostics.md"
REWRITE = os.environ.get("ASPEN_REWRITE_GUIDES")  # read here, because tests have no such variables
SCENE = re.compile(r"(?=<!-- scene: \w+ -->)")
TOLD = ("12644", "12646", "12687")  # the PIDs on the page
WORN = """
CREATE TABLE aspen.import_buffer (id int PRIMARY KEY, line text NOT NULL)
    WITH (autovacuum_enabled = off);
INSERT INTO aspen.import_buffer SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 45000) n;
DELETE FROM aspen.import_buffer WHERE id % 10 <> 0;
CREATE TABLE aspen.import_rows (id serial PRIMARY KEY, buffer_id int REFERENCES aspen.import_buffer,
    number int) WITH (autovacuum_enabled = off);
INSERT INTO aspen.import_rows (number) SELECT n FROM generate_series(1, 20000) n;
CREATE INDEX ix_number ON aspen.import_rows (number);
CREATE INDEX ix_number_again ON aspen.import_rows (number);
VACUUM ANALYZE
"""
DEAD = "SELECT 1 FROM pg_stat_all_tables WHERE relname = 'import_buffer' AND n_dead_tup > 0"
# A queue older than 30 seconds would be reported as a problem.
END_OTHERS = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND backend_type = 'client backend';
"""
# Reset the statistics, because other statements waited for a different time in each run.
SLOW = """
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database();
SELECT pg_sleep(1.1)
"""


@pytest.fixture
def alone() -> Iterator[Database]:
    """Yield the seeded database on a separate server.

    On a shared server, other statements would evict its statements from the statistics.
    """
    with tempfile.TemporaryDirectory(prefix="aspen-guide-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        try:
            server = Server(folder)
            address = server.url(server.create())
            migrate(address)
            seed(address)
            database = Database(address, application_name="tests")
            yield database
            database.dispose()
        finally:
            Cluster(folder).reset()


@pytest.fixture
def site(
    alone: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[TroubledSite]:
    address = alone.url.render_as_string(hide_password=False)
    with troubled(address, monkeypatch, capsys) as site:
        yield site


def worn_with_a_queue(site: TroubledSite) -> list[str]:
    """Create a bloated table, a duplicate index, a foreign key without an index, and a queue."""
    site.sql(WORN)
    # Repeat, because the count of dead rows may arrive after the first VACUUM.
    site.wait_for(lambda: not site.sql("VACUUM aspen.import_buffer") and not site.sql(DEAD))
    return queue(site)


def queue(site: TroubledSite) -> list[str]:
    """Leave a transaction open with others queued behind it, and return their PIDs."""
    rename = "UPDATE aspen.samples SET public_identifier = 'x' WHERE id = 1"
    first = site.session("night import", rename)
    second = site.session("console", "UPDATE aspen.groups SET address = 'x' WHERE id = 1")
    site.start(second, rename, until="waiting")
    third = site.session("API")
    site.start(third, "UPDATE aspen.groups SET address = 'y' WHERE id = 1", until="waiting")
    return [str(session.pid) for session in (first, second, third)]


def slow(site: TroubledSite) -> list[str]:
    site.sql(SLOW)
    return []


def everything(site: TroubledSite) -> list[str]:
    site.sql(END_OTHERS + SLOW)
    return queue(site)


SCENES: dict[str, Callable[[TroubledSite], list[str]]] = {
    "queue": worn_with_a_queue,
    "worn": slow,
    "all": everything,
}


@pytest.mark.skipif(GIVEN_SERVER in os.environ, reason="the guide shows the local deployment's")
def test_diagnostics_guide_matches_command_output(
    alone: Database, site: TroubledSite, tmp_path: Path, aspen_home: Path
) -> None:
    text = GUIDE.read_text("utf-8")
    environment = {"ASPEN_HOME": str(aspen_home), **cli_environment(alone)}
    now = ""
    for part in SCENE.split(text):
        name = re.match(r"<!-- scene: (\w+) -->", part)
        pids = dict(zip(TOLD, SCENES[name[1]](site), strict=False)) if name else {}
        for told, real in pids.items():
            part = re.sub(rf"\b{told}\b", real, part)  # noqa: PLW2901 - the same part
        part = replayed(part, tmp_path, environment)  # noqa: PLW2901 - the same part
        for told, real in pids.items():
            part = re.sub(rf"\b{real}\b", told, part)  # noqa: PLW2901 - the same part
        now += part
    if REWRITE:
        GUIDE.write_text(now, "utf-8")
        return
    assert steady(now) == steady(text), "make guides writes it anew"


def test_guide_comparison_ignores_only_times_and_sizes() -> None:
    told = "    warning  2 sessions wait, up to 14 s\n    UPDATE samples SET na…\n    of 3.0 MB\n"
    later = "    warning  2 sessions wait, up to 1 s\n    UPDATE samp…\n    of 45.1 kB\n"
    assert steady(told) == steady(later)
    for old, new in (("2", "3"), ("wait", "hang"), ("UPDATE", "SELECT"), ("of", "in")):
        assert steady(told) != steady(later.replace(old, new)), new
