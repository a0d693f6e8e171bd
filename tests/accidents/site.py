"""Where accidents happen: a server, and trials that they meet at some stage."""

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

from aspencli.errors import ConflictError
from aspencli.services.folding import fold
from aspencli.services.journal import Journal
from aspencli.services.runs import Outcome, Run
from aspencli.services.verdicts import judge
from db.database import Database
from local.postgres import SUPERUSER, Cluster
from local.prepare import prepare
from tests import zygote
from tests.accidents.works import State, Work, Works, names
from tests.commands.mapping_lab import Lab

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
"""How far a run may have come: it starts and plans; the plan is in the history; its report is
written but has no name yet; rows and the undo file are written; the commit is asked for, and done;
the end is told, to the history first."""
_GLANCE_S = 0.0005
_PATIENCE_S = 120
_BACKENDS = """
SELECT pid FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'aspencli/%' ORDER BY backend_start
"""
# The laboratory's own user has a number that new ones would come to.
_BEYOND = "SELECT setval('aspen.users_id_seq', 1000)"


def wait_until(
    condition: Callable[[], object], seconds: float = _PATIENCE_S, pause: float = 0.005
) -> None:
    """Wait for something.

    Raises:
        TimeoutError: It did not come about.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(pause)


@dataclass
class Trial:
    """One accident: something to do, a home of its own, and what became of both.

    Attributes:
        aim: The stage that the accident shall meet.
        lasts: How long each stage takes, in seconds.
        met: The stage that it met, as far as that was seen when it happened.
        forks: Whether its process may be forked from one that has loaded the program.
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

    @property
    def report(self) -> Path:
        """Where a report goes, if one is asked for."""
        return self.home / "reports" / "report.csv"

    def environment(self) -> dict[str, str]:
        """What the command's process is given."""
        address = self.address or self.site.lab.address
        # Not measured: what writes coverage down at the exit would itself meet with the accident.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
        return {**kept, "ASPEN_HOME": str(self.home), "ASPEN_DATABASE_URL_LOCAL": address}

    @contextmanager
    def started(self, command: list[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """The command as a process; at the end of the block it has ended, and is asked how."""
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
        """How far the run has come, as its files tell; see `STAGES`.

        While it lives, nobody can see whether a commit that was asked for is done.
        """
        events = [event["event"] for event in self._journal.read().events]
        if "ended" in events:
            return "telling"
        if "committing" in events:
            return "committing"
        if "writing" in events:
            return "undo file" if _files(self.home / "state" / "undo") else "writing"
        if "started" in events:
            return "report" if _files(self.report.parent, least=1) else "planned"
        return "reading"

    def has_come_to(self, stage: str) -> bool:
        """Whether the run has come so far."""
        return STAGES.index(self.stage()) >= STAGES.index(stage)

    def state(self) -> State:
        """What there is now."""
        return self.work.look()

    def runs(self) -> list[Run]:
        """What the history tells, the oldest first."""
        return fold(self._journal.read().events)[::-1]

    def verdict(self, run: Run) -> Outcome:
        """What the history says became of a run; where it does not know, the database is asked."""
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

    @property
    def _journal(self) -> Journal:
        return Journal(self.home / "state" / "history")


def _files(folder: Path, least: int = 0) -> bool:
    """Whether a folder has files, of so many bytes at least."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        return any(each.stat().st_size >= least for each in found)
    return False


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
        self.lab.execute(_BEYOND)
        self._works = Works(self.lab, folder)
        self._trials = 0
        # Another group's samples have the same names, and keep them whatever happens.
        self._neighbour = self.lab.group(names())
        self._neighbours = self._works.samples(self._neighbour)
        self._lasts: dict[str, dict[str, float]] = {}

    def close(self) -> None:
        """Stop the server, and delete its data."""
        self.cluster.reset()

    def trial(self, what: str, aim: str = STAGES[0], *, report: bool = False) -> Trial:
        """Something to do, not begun yet.

        Args:
            what: ``renames``, ``columns``, ``users``, ``groups``, or ``undo``, which takes back
                what ``columns`` did.
            aim: The stage that the accident shall meet.
            report: Whether a report is asked for.
        """
        if what not in self._lasts:
            self._lasts[what] = self._undisturbed(what)
        trial = self._new(what)
        trial.aim, trial.lasts = aim, self._lasts[what]
        trial.options = ["--report", str(trial.report)] if report else []
        return trial

    def neighbour_is_untouched(self) -> bool:
        """Whether the other group's samples are named as ever."""
        return self._works.samples(self._neighbour) == self._neighbours

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
        """How long each stage of a run takes, in seconds; the shortest of them cannot be seen."""
        trial = self._new(what)
        trial.options = ["--report", str(trial.report)]
        began = {STAGES[0]: time.monotonic()}
        self._run(trial, lambda: began.setdefault(trial.stage(), time.monotonic()))
        ends = [*list(began.values())[1:], time.monotonic()]
        return {stage: end - start for (stage, start), end in zip(began.items(), ends, strict=True)}
