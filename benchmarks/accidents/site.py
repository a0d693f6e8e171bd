"""A server for failure tests, and trials that inject a failure at a chosen stage."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from aspen.database.engine import Database
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspencli.changes.journal import Journal
from aspencli.changes.reconcile import judge
from aspencli.changes.runs import Outcome, Run, runs_of
from aspencli.errors import ConflictError
from benchmarks.accidents.works import State, Work, Works, names
from tests import zygote
from tests.cli.commands.mapping_lab import Lab

STAGES = (
    "reading",
    "planned",
    "report",
    "writing",
    "undo file",
    "committing",
    "after the commit",
    "telling",
)
"""The stages of a run, in order: start and plan; plan in the history; report written under a
temporary name; rows written; undo file written; commit requested; commit done; and the end
reported, in the history first."""
_GLANCE_S = 0.0005
_PATIENCE_S = 120
_BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'aspencli/%' ORDER BY backend_start
"""
# The lab's own user has an explicit ID that the sequence would otherwise reach.
_BEYOND = "SELECT setval('aspen.users_id_seq', 1000)"


def wait_until(
    condition: Callable[[], object], seconds: float = _PATIENCE_S, pause: float = 0.005
) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: The condition did not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(pause)


@dataclass
class Trial:
    """One injected failure: the work, a home directory of its own, and the outcome.

    Attributes:
        aim: The stage at which to inject the failure.
        lasts: The duration of each stage, in seconds.
        met: The stage that the failure hit, if it was observed at the time.
        forks: True if the process may be forked from one that has already loaded the program.
    """

    site: Site
    work: Work
    home: Path
    aim: str = STAGES[0]
    lasts: Mapping[str, float] = field(default_factory=dict)
    met: str | None = None
    options: list[str] = field(default_factory=list)
    forks: bool = True
    address: str | None = None
    code: int | None = None
    said: str = ""
    _glanced: tuple[int, list[str]] = (0, [])

    @property
    def report(self) -> Path:
        """Return the path of the report, if one is requested."""
        return self.home / "reports" / "report.csv"

    def environment(self) -> dict[str, str]:
        """Return the environment of the command's process."""
        address = self.address or self.site.lab.address
        # Coverage is not measured: the failure would also hit the writing of its data at exit.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        return {**kept, "ASPEN_HOME": str(self.home), "ASPEN_DATABASE_URL_LOCAL": address}

    @contextmanager
    def started(self, command: list[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Start the command; when the block ends, wait for it and record how it exited."""
        words = [*(command or self.work.command), *self.options, "--yes"]
        options: dict[str, Any] = {
            "env": self.environment(),
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.PIPE,
        }
        with (
            zygote.start(words, **options)
            if self.forks
            else subprocess.Popen([sys.executable, "-m", "aspencli", *words], **options)
        ) as process:
            try:
                yield process
                self.said = process.communicate(timeout=_PATIENCE_S)[1].decode()
            finally:
                process.kill()
        self.code = process.returncode

    def stage(self) -> str:
        """Return the stage that the run has reached, judging by its files; see `STAGES`.

        While the run is alive, there is no way to tell whether a requested commit is done.
        """
        events = self._events()
        if "ended" in events:
            return "telling"
        if "committing" in events:
            return "committing"
        if "writing" in events:
            return "undo file" if _files(self.home / "state" / "undo") else "writing"
        if "started" in events:
            return "report" if _files(self.report.parent, least=1) else "planned"
        return "reading"

    def _events(self) -> list[str]:
        """Return the kinds of events so far, reading the journal only if it has grown.

        Whoever waits for a stage looks 2,000 times a second.
        """
        try:
            size = self._journal.path.stat().st_size
        except FileNotFoundError:
            return []
        if size != self._glanced[0]:
            self._glanced = size, [event["event"] for event in self._journal.read().events]
        return self._glanced[1]

    def has_come_to(self, stage: str) -> bool:
        """Return True if the run has reached the stage."""
        return STAGES.index(self.stage()) >= STAGES.index(stage)

    def state(self) -> State:
        """Return the current data."""
        return self.work.look()

    def runs(self) -> list[Run]:
        """Return the runs in the history, oldest first."""
        return runs_of(self._journal.read().events)[::-1]

    def verdict(self, run: Run) -> Outcome:
        """Return a run's outcome from the history, or from the database if it is unknown there."""
        if run.outcome is not Outcome.UNKNOWN:
            return run.outcome
        database = Database(self.site.lab.address)
        end = time.monotonic() + _PATIENCE_S
        try:
            while True:
                try:
                    return judge(run, "local", lambda: database).outcome
                except ConflictError:  # the server has not noticed the lost client yet
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
        finally:
            database.dispose()

    def undo_files(self) -> list[Path]:
        """Return the undo files that have their final name."""
        return [p for p in self.home.glob("state/undo/*.csv") if not p.name.startswith(".")]

    @property
    def _journal(self) -> Journal:
        return Journal(self.home / "state" / "history")


def _files(folder: Path, least: int = 0) -> bool:
    """Return True if a folder has a file of at least the given size in bytes."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        return any(each.stat().st_size >= least for each in found)
    return False


class Site:
    """A server with its data safe on disk, and a database for the trials.

    Args:
        folder: The folder for everything; the server's account needs to pass through it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.chmod(0o755)
        self.cluster = Cluster(folder, settings={"fsync": "on", "deadlock_timeout": "200ms"})
        self.cluster.up()
        prepare(self.cluster)
        self.lab = Lab(self.cluster.url(user=SUPERUSER), folder)
        self.lab.execute(_BEYOND)
        self._works = Works(self.lab, folder)
        self._trials = 0
        # Another group's samples have the same names and must never change.
        self._neighbour = self.lab.group(names())
        self._neighbours = self._works.samples(self._neighbour)
        self._lasts: dict[str, dict[str, float]] = {}

    def close(self) -> None:
        """Stop the server, and delete its data."""
        self.cluster.reset()

    def trial(self, what: str, aim: str = STAGES[0], *, report: bool = False) -> Trial:
        """Prepare a trial without starting it.

        Args:
            what: ``renames``, ``columns``, ``users``, ``groups``, or ``undo``, which undoes what
                ``columns`` did.
            aim: The stage at which to inject the failure.
            report: True to request a report.
        """
        if what not in self._lasts:
            self._lasts[what] = self._undisturbed(what)
        trial = self._new(what)
        trial.aim, trial.lasts = aim, self._lasts[what]
        trial.options = ["--report", str(trial.report)] if report else []
        return trial

    def neighbour_is_untouched(self) -> bool:
        """Return True if the other group's samples are unchanged."""
        return self._works.samples(self._neighbour) == self._neighbours

    def backends(self) -> list[int]:
        """Return the PIDs of the server processes that serve the command."""
        with self.lab.engine.connect() as connection:
            return list(connection.scalars(sa.text(_BACKENDS)))

    def recover(self) -> None:
        """Wait until the server answers and no longer serves any command."""

        def is_quiet() -> bool:
            try:
                return not self.backends()
            except DBAPIError:  # the server is still in recovery
                return False

        self.cluster.up()
        wait_until(is_quiet)

    def _new(self, what: str) -> Trial:
        self._trials += 1
        home = self.folder / f"home-{self._trials}"
        if what != "undo":
            return Trial(self, self._works.make(what), home)
        done = self._new("columns")
        file = self.folder / f"undo-{self._trials}.csv"
        done.options = ["--undo-file", str(file)]
        self._run(done)
        words = ["samples", "undo", str(file)]
        work = done.work
        back = replace(
            work, command=words, other=words, before=work.after, after=work.before, values=None
        )
        return Trial(self, back, home)

    def _run(self, trial: Trial, look: Callable[[], object] = lambda: None) -> None:
        with trial.started() as process:
            while process.poll() is None:
                look()
                time.sleep(_GLANCE_S)
        assert (trial.code, trial.state() == trial.work.after) == (0, True), trial.said

    def _undisturbed(self, what: str) -> dict[str, float]:
        """Measure the seconds that each stage of a run takes; the shortest are too brief to see."""
        trial = self._new(what)
        trial.options = ["--report", str(trial.report)]
        began = {STAGES[0]: time.monotonic()}
        self._run(trial, lambda: began.setdefault(trial.stage(), time.monotonic()))
        ends = [*list(began.values())[1:], time.monotonic()]
        return {stage: end - start for (stage, start), end in zip(began.items(), ends, strict=True)}
