"""Workers as real processes on a cloned database, with light steps."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.engine import Job, State, tree_job_id
from aspen.workflows.engine.local import LocalEngine
from tests import zygote
from tests.conftest import Server

STEPS = "tests.workflows.engine.trial"
_WORKER = "tests.workflows.engine.run_worker"
_PATIENCE_S = 120
_MIGRATE = """
import sys
from dbos import DBOS
DBOS.migrate(sys.argv[1])
"""
_NEW_RUN = sa.text("""
WITH made AS (
    INSERT INTO aspen.workflows
        (workflow_type, workflow_status, start_datetime, software_versions, user_id)
    VALUES ('PHYLO_RUN', 'STARTED', now() AT TIME ZONE 'UTC', '{}', 1) RETURNING id)
INSERT INTO aspen.phylo_runs
    (workflow_id, group_id, pathogen_id, contextual_repository_id, name, tree_type, template_args,
     gisaid_ids)
SELECT made.id, 1, (SELECT id FROM aspen.pathogens WHERE slug = 'SC2'),
       (SELECT min(id) FROM aspen.public_repositories), 'Trial ' || made.id, 'OVERVIEW', '{}', '[]'
  FROM made RETURNING workflow_id""")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where DBOS is not installed."""
    if find_spec("dbos"):
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            reason = "needs the extra workflows (make workflows)"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def _jobs_template(postgres: Server, _roles_template: str) -> str:
    def fill(address: str) -> None:
        url = address.replace("postgresql+psycopg2", "postgresql")
        subprocess.run([sys.executable, "-c", _MIGRATE, url], check=True, capture_output=True)

    return postgres.template("jobs", fill, base=_roles_template)


@dataclass
class Lab:
    """A database, a folder of jobs, and the workers that run them."""

    database: Database
    folder: Path
    objects: Path
    endpoint: str | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.database.url.render_as_string(hide_password=False)

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine(self.url, self.folder)

    @property
    def log(self) -> str:
        return (self.folder.parent / "worker.log").read_text()

    def start_worker(self) -> subprocess.Popen[bytes]:
        words = [self.url, str(self.folder), *([self.endpoint] if self.endpoint else [])]
        environment = {**os.environ, **self.variables, "TRIAL_OBJECTS": str(self.objects)}
        if self.endpoint:
            del environment["TRIAL_OBJECTS"]
        with (self.folder.parent / "worker.log").open("ab") as log:
            worker = zygote.start(
                words, module=_WORKER, env=environment, stderr=log, start_new_session=True
            )
        self.workers.append(worker)
        return worker

    def act(self, behavior: str, job: str = "") -> str:
        """Enqueue a job whose second step behaves in a certain way."""
        name = job or f"act-{behavior.partition(':')[0]}"
        return self.engine.start("import-lineages", {"pathogen": "SC2", "file": behavior}, name)

    def new_run(self, *, enqueue: bool = True) -> int:
        """Insert a run, and enqueue its job; return its ID."""
        with self.database.begin() as session:
            run = int(session.execute(_NEW_RUN).scalar_one())
        if enqueue:
            self.engine.start("tree", {"run_id": run}, tree_job_id(run))
        return run

    def status(self, run: int) -> str:
        query = sa.text("SELECT workflow_status FROM aspen.workflows WHERE id = :run")
        with self.database.reading() as session:
            return str(session.scalar(query, {"run": run}))

    def trees(self, run: int) -> int:
        query = sa.text(
            "SELECT count(*) FROM aspen.phylo_trees t JOIN aspen.entities e ON e.id = t.entity_id"
            " WHERE e.producing_workflow_id = :run"
        )
        with self.database.reading() as session:
            return int(session.scalar(query, {"run": run}) or 0)

    def until(self, condition: Callable[[], Any], seconds: float = _PATIENCE_S) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.05)

    def ended(self, job: str) -> Job:
        """Wait until a job has ended, and return it."""
        self.until(lambda: (found := self.engine.state(job)) and found.state.ended)
        return self.job(job)

    def job(self, job: str) -> Job:
        found = self.engine.state(job)
        assert found is not None
        return found

    def says(self, job: str, text: str) -> None:
        """Wait until a job's log contains a text."""
        self.until(lambda: any(text in line for line in self.engine.logs(job)))

    def running(self, job: str, step: str) -> None:
        """Wait until a job runs a step."""

        def runs() -> bool:
            found = self.engine.state(job)
            return found is not None and (found.state, found.step) == (State.RUNNING, step)

        self.until(runs)

    def processes(self) -> list[psutil.Process]:
        """Return the processes of steps, with their guards."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get("ASPEN_JOBS", "")
            except psutil.Error:
                continue
            if mark.startswith(f"{self.folder}:") and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.terminate()
            worker.wait(30)
        assert self.processes() == []


@pytest.fixture
def idle_lab(
    postgres: Server, _jobs_template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Lab]:
    """Yield a lab without a worker."""
    monkeypatch.setenv("ASPEN_JOB_STEPS", STEPS)
    objects = tmp_path / "objects"
    objects.mkdir()
    with postgres.cloned(_jobs_template, writable=True) as database:
        lab = Lab(database, tmp_path / "jobs", objects)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture
def lab(idle_lab: Lab) -> Lab:
    """Return a lab with a worker."""
    idle_lab.start_worker()
    return idle_lab
