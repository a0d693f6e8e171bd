"""The worker as a part of the local deployment, with runs started on the command line."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aspen.api.aws import make_client
from aspen.local.aws.content import DB_BUCKET, REGION, read_credentials
from aspen.local.deployment import Deployment
from aspen.local.processes import HOST
from aspen.local.state import Timing
from aspen.workflows.engine import State, tree_job_id
from aspen.workflows.engine.local import LocalEngine
from aspencli.machine import start_of
from tests.conftest import CliResult, CliRunner
from tests.local.auth0.lab import Identity
from tests.local.conftest import FAST, query
from tests.workflows.engine.conftest import STEPS

_CREATE = ("phylo-runs", "create", "RCPHL-0000001", "RCPHL-0000002", "--tree-type", "targeted")


@dataclass
class Laptop:
    """A running deployment, and its commands with the sign-in of a member of group 1."""

    deployment: Deployment
    run: CliRunner
    token: str

    def __call__(self, *words: str) -> CliResult:
        return self.run(*words, env={"ASPEN_TOKEN": self.token}, timeout=280)

    @property
    def engine(self) -> LocalEngine:
        folder = self.deployment.state.part("worker") / "jobs"
        return LocalEngine(self.deployment.cluster.url(), folder)

    def worker(self) -> int:
        kept = self.deployment.supervision.record()["worker"]
        return kept.process.pid if kept.process and kept.runs else 0

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def laptop(
    aspen_home: Path, run_cli: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laptop]:
    monkeypatch.setenv("ASPEN_JOB_STEPS", STEPS)
    timing = Timing(pause=0.2, check=0.5, watch=0.1)
    deployment = Deployment(aspen_home / "data", settings=FAST, timing=timing)
    try:
        deployment.up()
        folder, port = deployment.state.part("identity"), deployment.state.ports()["identity"]
        provider = Identity(folder, port=port)
        with provider.http:
            token = str(provider.tokens("member@example.org")["id_token"])
        yield Laptop(deployment, run_cli, token)
    finally:
        deployment.reset()


def test_runs_of_commands_are_built_by_supervised_worker(laptop: Laptop) -> None:
    done = laptop(*_CREATE, "--name", "Cannery", "--wait", "--yes", "-o", "json")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)
    assert (row["workflow_status"], row["outcome"]) == ("COMPLETED", "created")
    assert f"Run {row['id']} completed: tree {row['phylo_tree']}." in done.err
    (job,) = laptop.engine.jobs()
    assert (job.id, job.state) == (tree_job_id(row["id"]), State.DONE)
    assert laptop("db", "check").code == 0

    # It is a part like the others.
    before = laptop.worker()
    assert before
    os.kill(before, signal.SIGKILL)
    laptop.until(lambda: laptop.worker() not in {0, before})
    status = json.loads(laptop("local", "status", "-o", "json").out)
    (part,) = [one for one in status if one["part"] == "worker"]
    assert (part["state"], part["restarts"]) == ("running", 1)
    assert "Ready; running up to 3 jobs at a time" in laptop("local", "logs", "worker").out

    # A run that fails says why, and its logs are where operators look for them.
    text = "ALTER TABLE aspen.phylo_trees ADD CHECK (name <> 'Refused') NOT VALID"
    query(laptop.deployment.cluster.url(), text)
    failed = laptop(*_CREATE, "--name", "Refused", "--wait", "--yes", "-o", "json")
    assert failed.code == 1
    (row,) = json.loads(failed.out)
    assert row["workflow_status"] == "FAILED"
    assert f"Run {row['id']} failed: trial-save: exited with code 1" in failed.err
    assert "Traceback" not in failed.err
    job_id = tree_job_id(row["id"])
    laptop.until(lambda: (found := laptop.engine.state(job_id)) and found.state is State.FAILED)
    address = f"http://{HOST}:{laptop.deployment.state.ports()['aws']}"
    keys = read_credentials(laptop.deployment.state.part("aws"))
    s3 = make_client("s3", REGION, address, keys)
    listed = s3.list_objects_v2(Bucket=DB_BUCKET, Prefix="phylo_run/")["Contents"]
    names = [one["Key"].rpartition("/logs/")[2] for one in listed if "/logs/" in one["Key"]]
    assert sorted(names) == ["trial-prepare.log", "trial-save.log", "trial-work.log"]
    assert laptop("phylo-runs", "delete", str(row["id"]), "--yes").code == 0

    worker = laptop.worker()
    assert laptop("local", "down").code == 0
    assert start_of(worker) == ""
