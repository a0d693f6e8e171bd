"""A bulk rename beside the same work by hand in psql."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from db.database import Database
from local.binaries import find_binaries
from local.postgres import SUPERUSER, Cluster
from local.prepare import prepare
from local.seed import seed_base, seed_samples
from tests.bench.measuring import Comparison, Sample, compare, run

_BY_HAND = """
BEGIN;
CREATE TEMPORARY TABLE mapping (private_identifier varchar, public_identifier varchar);
\\copy mapping FROM '{mapping}' WITH (FORMAT csv, HEADER)
UPDATE aspen.samples s SET public_identifier = m.public_identifier FROM mapping m
 WHERE s.submitting_group_id = 1 AND s.private_identifier = m.private_identifier;
COMMIT;
"""


@dataclass
class Bench:
    """A group of samples in a PostgreSQL of its own, and mappings for some of them."""

    folder: Path
    owner: Database
    address: str
    psql: str
    rows: int

    def __post_init__(self) -> None:
        self._runs = 0

    def by_hand(self) -> Sample:
        """COPY into a temporary table and one UPDATE."""
        script = self.folder / "by_hand.sql"
        script.write_text(_BY_HAND.format(mapping=self._mapping()))
        return self._measured([self.psql, "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script)])

    def ours(self, *options: str) -> Sample:
        """The command, as an operator types it."""
        return self._measured(self._command(self._mapping(), "--yes", *options))

    def repeat(self) -> Sample:
        """The command once more, with nothing left to do."""
        mapping = self._mapping()
        run(self._command(mapping, "--yes"), self._environment)
        return self._measured(self._command(mapping, "--yes"))

    def dry_run(self) -> Sample:
        """The plan only."""
        return self._measured(self._command(self._mapping(), "--dry-run"))

    def _command(self, mapping: Path, *options: str) -> list[str]:
        aspencli = str(Path(sys.executable).with_name("aspencli"))
        words = ["samples", "update-public-ids", "--group-id", "1"]
        return [aspencli, *words, "--private-to-public-id-mapping", str(mapping), *options]

    @property
    def _environment(self) -> dict[str, str]:
        url = self.owner.url.set(drivername="postgresql")
        return {
            "ASPEN_HOME": str(self.folder),
            "ASPEN_DATABASE_URL_LOCAL": self.address,
            "PGHOST": url.host or "",
            "PGPORT": str(url.port),
            "PGUSER": url.username or "",
            "PGPASSWORD": str(url.password),
            "PGDATABASE": url.database or "",
        }

    def _measured(self, command: list[str]) -> Sample:
        # Both start from a table without dead rows and with nothing left to be written out.
        with self.owner.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.execute(sa.text("VACUUM ANALYZE aspen.samples"))
            c.execute(sa.text("CHECKPOINT"))
        return run(command, self._environment)

    def _mapping(self) -> Path:
        """A mapping of random samples to names that none has yet."""
        self._runs += 1
        path = self.folder / "mapping.csv"
        with self.owner.reading() as session:
            labs = session.scalars(
                sa.text(
                    "SELECT private_identifier FROM aspen.samples WHERE submitting_group_id = 1"
                )
            ).all()
        chosen = random.Random(self._runs).sample(list(labs), self.rows)
        with path.open("w") as file:
            file.write("private_identifier,public_identifier\n")
            for number, lab in enumerate(chosen):
                file.write(f"{lab},hCoV-19/USA/CA-RUN{self._runs}-{number}/2026\n")
        return path


def measure(rows: int, group: int, *, rounds: int) -> Iterator[Comparison]:
    """``rows`` renames in a group of ``group`` samples."""
    with tempfile.TemporaryDirectory(prefix="aspen-bench-") as folder:
        Path(folder).chmod(0o755)  # the server's account passes through
        cluster = Cluster(Path(folder))
        cluster.up()
        try:
            prepare(cluster)
            owner = Database(cluster.url(user=SUPERUSER), writable=True)
            seed_base(owner)
            seed_samples(owner, group, group=1)
            psql = str(find_binaries().bindir / "psql")
            bench = Bench(Path(folder), owner, cluster.url(), psql, rows)
            yield from _compared(bench, f"{rows:,} renames in {group:,}", rounds)
            owner.dispose()
        finally:
            cluster.down()
            cluster.reset()


def _compared(bench: Bench, name: str, rounds: int) -> Iterator[Comparison]:
    psql = r"psql: \copy and one UPDATE"
    yield compare(name, bench.ours, psql, bench.by_hand, goal=2.0, rounds=rounds)
    yield compare(f"{name}, again", bench.repeat, psql, bench.by_hand, goal=1.0, rounds=rounds)
    yield compare(f"{name}, --dry-run", bench.dry_run, psql, bench.by_hand, goal=1.5, rounds=rounds)
