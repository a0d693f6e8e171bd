"""Where accidents happen: a server, groups of samples, and a mapping that has everything."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspencli.errors import ConflictError
from aspencli.services.folding import fold
from aspencli.services.journal import Journal
from aspencli.services.runs import Outcome, Run
from aspencli.services.verdicts import judge
from db.database import Database
from local.postgres import SUPERUSER, Cluster
from local.prepare import prepare
from tests.commands.bulk_lab import GENOMES
from tests.commands.mapping_lab import Lab

SIZE = 1_500  # samples of a group; two thirds of them are renamed
_PATIENCE_S = 60.0
_BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'aspencli/%' ORDER BY backend_start
"""
_STATE = """
SELECT s.id, s.private_identifier, s.public_identifier, s.collection_date::text,
       g.sequencing_date::text, s.private
  FROM aspen.samples s
  LEFT JOIN aspen.uploaded_pathogen_genomes u ON u.sample_id = s.id
  LEFT JOIN aspen.pathogen_genomes g ON g.entity_id = u.pathogen_genome_id
 WHERE s.submitting_group_id = :group ORDER BY s.id
"""
_HEADER = "private_identifier", "public_identifier", "collection_date", "sequencing_date", "private"

Sample = tuple[str, str, str, str | None, bool]
State = dict[int, Sample]


def samples() -> dict[str, str]:
    """What the samples of a group are named at first."""
    return {f"L{n}": f"P{n}" for n in range(SIZE)}


def mapping() -> dict[str, str]:
    """A swap, a cycle, a long chain, and plain renames in between; some rows are so already."""
    chosen = {"L0": "P1", "L1": "P0", "L2": "P3", "L3": "P4", "L4": "P2"}
    chosen |= {f"L{n}": f"P{n + 1}" for n in range(10, 200)} | {"L200": "end of the chain"}
    chosen |= {f"L{n}": f"a new name, {n}" for n in range(300, SIZE)}
    return chosen | {f"L{n}": f"P{n}" for n in range(250, 260)}


def changed(number: int, sample: Sample) -> Sample:
    """What a bulk update makes of a sample: some swap private identifiers or pass them on, too."""
    private, public, _collected, sequenced, hidden = sample
    place = int(private.removeprefix("L"))
    others = {0: "L1", 1: "L0"} | {n: f"L{n + 1}" for n in range(10, 60)} | {60: "the last"}
    return (
        others.get(place, private),
        mapping().get(private, public),
        f"2024-01-{1 + number % 28:02}",
        sequenced if place % 2 else None,
        bool(place % 3) and hidden,
    )


def wait_until(condition: Callable[[], object], seconds: float = _PATIENCE_S) -> None:
    """Wait for something.

    Raises:
        TimeoutError: It did not come about.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.005)


@dataclass
class Trial:
    """One accident: a group of its own, a home of its own, and what became of both."""

    site: Site
    group: int
    home: Path
    before: State
    after: State
    command: list[str]
    source: Path
    reversed: Path
    options: list[str] = field(default_factory=list)
    address: str | None = None
    code: int | None = None
    said: str = ""

    def environment(self) -> dict[str, str]:
        """What the command's process is given."""
        address = self.address or self.site.lab.address
        # Not measured: what writes coverage down at the exit would itself meet with the accident.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        return {**kept, "ASPEN_HOME": str(self.home), "ASPEN_DATABASE_URL_LOCAL": address}

    def words(self, source: Path | None = None) -> list[str]:
        """The command line."""
        where = ["--group-id", str(self.group), "--yes", "-f", str(source or self.source)]
        return [sys.executable, "-m", "aspencli", *self.command, *where, *self.options]

    @contextmanager
    def started(self, source: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """The command as a process; at the end of the block it has ended, and is asked how."""
        with subprocess.Popen(
            self.words(source),
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield process
                self.said = process.communicate(timeout=_PATIENCE_S)[1].decode()
            finally:
                process.kill()
        self.code = process.returncode

    def state(self) -> State:
        """What the samples are named now."""
        return self.site.state(self.group)

    def run(self) -> Run | None:
        """The first run that the history tells of."""
        reading = Journal(self.home / "state" / "history").read()
        runs = fold(reading.events)
        return runs[-1] if runs else None

    def verdict(self) -> Outcome | None:
        """What the history says became of it; where it does not know, the database is asked."""
        run = self.run()
        if run is None:
            return None
        if run.outcome is not Outcome.UNKNOWN:
            return run.outcome
        database = Database(self.site.lab.address)
        end = time.monotonic() + _PATIENCE_S
        try:
            while True:
                try:
                    return judge(run, "local", lambda: database).outcome
                except ConflictError:  # the server has not noticed yet
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
        finally:
            database.dispose()

    def undo_files(self) -> list[Path]:
        """The undo files that have their name."""
        return [p for p in self.home.glob("state/undo/*.csv") if not p.name.startswith(".")]


class Site:
    """A server with its data safe on disk, and a database for every accident.

    Args:
        folder: Where everything lies; the server's account passes through.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.chmod(0o755)
        self.cluster = Cluster(folder, settings={"fsync": "on", "deadlock_timeout": "200ms"})
        self.cluster.up()
        prepare(self.cluster)
        self.lab = Lab(self.cluster.url(user=SUPERUSER), folder)
        rows = list(mapping().items())
        self._mapping = self._write("ids.csv", _HEADER[:2], rows)
        self._reversed = self._write("reversed.csv", _HEADER[:2], rows[::-1])
        self._trials = 0
        # Another group's samples have the same names, and keep them whatever happens.
        self._neighbour = self.lab.group(samples())
        self._neighbours = self.state(self._neighbour)
        self.duration = sorted(self._undisturbed() for _ in range(3))[1]

    def close(self) -> None:
        """Stop the server, and delete its data."""
        self.cluster.reset()

    def trial(self, *, columns: bool = False) -> Trial:
        """A new group, as it is before an accident.

        Args:
            columns: Whether several columns are changed, and not only the public identifiers.
        """
        self._trials += 1
        home = self.folder / f"home-{self._trials}"
        group = self.lab.group(samples())
        self.lab.execute(GENOMES, group=group)
        before, chosen = self.state(group), mapping()
        if columns:
            after = {key: changed(key, sample) for key, sample in before.items()}
            command = ["samples", "bulk-update", "--key", "id"]
            rows = [(key, *(_cell(value) for value in row)) for key, row in after.items()]
            source = self._write(f"{group}.csv", ("id", *_HEADER), rows)
            reverse = self._write(f"{group}-reversed.csv", ("id", *_HEADER), rows[::-1])
            return Trial(self, group, home, before, after, command, source, reverse)
        after = {key: (row[0], chosen.get(*row[:2]), *row[2:]) for key, row in before.items()}
        command = ["samples", "update-public-ids"]
        return Trial(self, group, home, before, after, command, self._mapping, self._reversed)

    def state(self, group: int) -> State:
        """Every sample of a group: its id, and what a bulk update may change."""
        with self.lab.engine.connect() as connection:
            rows = connection.execute(sa.text(_STATE), {"group": group})
            return {number: (*values,) for number, *values in rows}

    def neighbour_is_untouched(self) -> bool:
        """Whether the other group's samples are named as ever."""
        return self.state(self._neighbour) == self._neighbours

    def backends(self) -> list[int]:
        """The server's processes that work for the command."""
        with self.lab.engine.connect() as connection:
            return list(connection.scalars(sa.text(_BACKENDS)))

    def recover(self) -> None:
        """Wait until the server answers, and works for no command any more."""

        def is_quiet() -> bool:
            try:
                return not self.backends()
            except DBAPIError:  # it is repairing itself
                return False

        self.cluster.up()
        wait_until(is_quiet)

    def _undisturbed(self) -> float:
        trial, began = self.trial(), time.monotonic()
        with trial.started():
            pass
        seconds = time.monotonic() - began
        assert (trial.code, trial.state() == trial.after) == (0, True), trial.said
        return seconds

    def _write(self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
        path = self.folder / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        return path


def _cell(value: object) -> object:
    return "\\N" if value is None else value
