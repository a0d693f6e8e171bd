"""A separate PostgreSQL with a large table, copied fresh for each measurement."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from aspen.database.engine import Database
from aspen.local.postgres.binaries import find_binaries
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import DATABASE, SUPERUSER, Cluster
from aspen.local.seed import seed_base, seed_samples
from benchmarks.speed.measuring import Sample, run

GROUP = 1
_USED = "bench"
_HAS_STRATEGIES = 15  # the first version with strategies for copying a database

# Copies of the first sample, with different names and a few other columns.
_MULTIPLY = """
INSERT INTO aspen.samples (
    submitting_group_id, private_identifier, public_identifier, original_submission,
    sample_collected_by, authors, collection_date, organism, host, purpose_of_sampling, private,
    uploaded_by_id, location_id, pathogen_id)
SELECT submitting_group_id, regexp_replace(private_identifier, '\\d+$', lpad(n::text, 8, '0')),
       format('hCoV-19/USA/CA-BENCH-%s/%s', n, 2020 + n % 3), original_submission,
       sample_collected_by, authors, collection_date + n % 1000, organism, host,
       purpose_of_sampling, n % 5 = 0, uploaded_by_id, location_id, pathogen_id
  FROM aspen.samples, generate_series(2, :count) n
"""
# Random samples, the same ones each time; the first of them swap names in pairs.
_MAPPING = """
WITH chosen AS (
    SELECT private_identifier, public_identifier, row_number() OVER () AS n
      FROM (SELECT private_identifier, public_identifier FROM aspen.samples
             WHERE submitting_group_id = {group}
             ORDER BY hashint8extended(id, 0) LIMIT {rows}) mixed
)
SELECT private_identifier,
       CASE WHEN n > {swapped} THEN format('hCoV-19/USA/CA-NEW-%s/2026', n)
            WHEN n % 2 = 1 THEN lead(public_identifier) OVER (ORDER BY n)
            ELSE lag(public_identifier) OVER (ORDER BY n)
       END AS public_identifier
  FROM chosen ORDER BY n
"""


class Lab:
    """A server with a large table to measure on.

    Args:
        folder: The folder for the server and files.
        samples: The number of samples in the group.
    """

    def __init__(self, folder: Path, samples: int):
        self.folder = folder
        self.samples = samples
        self.cluster = Cluster(folder)  # with the settings of the local deployment
        self.binaries = find_binaries()
        self.psql = str(self.binaries.bindir / "psql")
        self.aspencli = aspencli()

    def seed(self) -> None:
        """Fill the database that the others are copied from."""
        prepare(self.cluster)
        owner = self._owner(DATABASE)
        fill(owner, self.samples)
        owner.dispose()

    def fresh(self, template: str = DATABASE) -> None:
        """Make a fresh copy: no dead rows, nothing waiting to be written, the same every time."""
        strategy = "STRATEGY file_copy" if self.binaries.major >= _HAS_STRATEGIES else ""
        server = self._owner("postgres")
        _alone(server, f"DROP DATABASE IF EXISTS {_USED} WITH (FORCE)")
        _alone(server, f"CREATE DATABASE {_USED} TEMPLATE {template} {strategy}")
        _alone(server, "CHECKPOINT")
        server.dispose()

    def keep(self, name: str) -> None:
        """Keep the current database as a template for later copies."""
        used = self._owner(_USED)
        _alone(used, "VACUUM (ANALYZE) aspen.samples")
        used.dispose()
        server = self._owner("postgres")
        _alone(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        _alone(server, f"ALTER DATABASE {_USED} RENAME TO {name}")
        server.dispose()

    def drop(self, name: str) -> None:
        """Drop a template."""
        server = self._owner("postgres")
        _alone(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.dispose()

    def mapping(self, rows: int, *, swapped: int = 0) -> Path:
        """Write a mapping of random samples; ``swapped`` of its rows swap names in pairs."""
        path = self.folder / f"mapping-{rows}-{swapped}.csv"
        if not path.exists():
            query = _MAPPING.format(group=GROUP, rows=rows, swapped=swapped // 2 * 2)
            self._copy(query, path)
        return path

    def run(self, command: Sequence[str]) -> Sample:
        """Run a command on the fresh database."""
        return run(command, self.environment())

    def renaming(self, mapping: Path, *options: str) -> list[str]:
        """Return the rename command as an operator would type it."""
        words = ["samples", "update-public-ids", "--group-id", str(GROUP)]
        return [self.aspencli, *words, "-f", str(mapping), *options]

    def environment(self, database: str = _USED) -> dict[str, str]:
        """Return the variables for commands on a database; all connect as the same user."""
        address = self.cluster.url(database)
        url = make_url(address)
        return {
            "ASPEN_HOME": str(self.folder / "home"),
            "ASPEN_DATABASE_URL_LOCAL": address,
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "PGHOST": url.host or "",
            "PGPORT": str(url.port),
            "PGUSER": url.username or "",
            "PGPASSWORD": str(url.password),
            "PGDATABASE": database,
        }

    def _copy(self, query: str, path: Path) -> None:
        owner = self._owner(DATABASE)
        with owner.engine.connect() as connection, path.open("wb") as file:
            driver = connection.connection.cursor()
            driver.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)", file)
        owner.dispose()

    def _owner(self, database: str) -> Database:
        address = self.cluster.url(database, SUPERUSER)
        return Database(address, writable=True).with_limits(statement_ms=0)


def aspencli() -> str:
    """Return the path of the installed command."""
    return str(Path(sys.executable).with_name("aspencli"))


def fill(owner: Database, samples: int) -> None:
    """Fill a database with a group of samples, of which only the first has a genome."""
    seed_base(owner)
    seed_samples(owner, 1, group=GROUP)
    with owner.begin() as session:
        # Skip checking each row against four other tables.
        session.execute(sa.text("SET LOCAL session_replication_role = replica"))
        session.execute(sa.text(_MULTIPLY), {"count": samples})
    _alone(owner, "VACUUM (FREEZE, ANALYZE) aspen.samples")


def _alone(database: Database, statement: str) -> None:
    """Run a statement that cannot run inside a transaction."""
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))


@contextmanager
def running(prefix: str = "aspen-bench-") -> Iterator[tuple[Path, Cluster, Database]]:
    """Yield a folder, a new cluster in it, and its database with an empty schema as superuser."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        cluster = Cluster(folder)
        try:
            cluster.up()
            prepare(cluster)
            owner = Database(cluster.url(user=SUPERUSER), writable=True).with_limits(statement_ms=0)
            try:
                yield folder, cluster, owner
            finally:
                owner.dispose()
        finally:
            cluster.reset()


@contextmanager
def opened(samples: int) -> Iterator[Lab]:
    """Yield a lab with a table of the given size, and remove everything at the end."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        lab = Lab(folder, samples)
        try:
            lab.cluster.up()
            lab.seed()
            _warm_up(lab)
            yield lab
        finally:
            lab.cluster.reset()


def _warm_up(lab: Lab) -> None:
    """Create the bytecode that an installed program would have."""
    run(lab.renaming(lab.mapping(10), "--dry-run"), lab.environment(DATABASE))


def machine() -> dict[str, str | int | float]:
    """Return a description of the machine that the benchmarks run on."""
    processor = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 1e9),
        "python": sys.version.split()[0],
    }
