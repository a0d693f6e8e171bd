"""``make accidents-jobs``: kill the parts of the local deployment while it builds trees.

Each accident starts a run through the API, and after a random time kills the worker, a step, the
guard of a step, PostgreSQL, the AWS emulator, the API, or the supervisor with SIGKILL. At the end,
every run must be COMPLETED with exactly one tree and the right file, no finished step may have been
repeated, and ten seconds after each kill no process of an earlier worker may be left.

The steps are light ones that write an object and rows as the real ones do; ``--real`` takes those.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.local.aws.content import DB_BUCKET, read_credentials
from aspen.local.deployment import Deployment
from aspen.local.processes import HOST
from aspen.local.services import POSTGRES, SUPERVISOR, WORKER
from aspen.local.state import Timing, jobs_folder
from aspen.workflows.engine import tree_job_id
from aspen.workflows.engine.child import MARK
from aspen.workflows.engine.folder import HEADING, JobFolder
from aspencli.errors import AspenError
from aspencli.machine import read_postmaster
from tests.local.auth0.lab import Identity

STEPS = "tests.workflows.engine.trial_slow"
TARGETS = (WORKER, "step", "guard", POSTGRES, "aws", "api", SUPERVISOR)
_TIMING = Timing(pause=0.2, check=0.5, watch=0.1)
_ORPHANS_S = 10.0
_LONGEST_S = 4.0
_PATIENCE_S = 600.0
_WAITING = 6  # more unfinished runs than this, and the next accident waits
_RUNS = "/v2/orgs/1/pathogens/SC2/phylo_runs/"
_STATES = sa.text("""
SELECT w.id, w.workflow_status AS status, count(t.entity_id) AS trees, min(t.s3_key) AS key
  FROM aspen.workflows w
  LEFT JOIN aspen.entities e ON e.producing_workflow_id = w.id
  LEFT JOIN aspen.phylo_trees t ON t.entity_id = e.id
 WHERE w.id = ANY(:runs) GROUP BY w.id ORDER BY w.id""")


@dataclass
class Campaign:
    """A deployment, its runs, and what went wrong so far."""

    deployment: Deployment
    chance: random.Random
    is_real: bool
    runs: list[int] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _hit: set[tuple[str, str]] = field(default_factory=set)
    _token: str = ""

    @property
    def jobs(self) -> Path:
        """Return the folder of jobs."""
        return jobs_folder(self.deployment.state)

    def accident(self) -> None:
        """Start a run, and kill something."""
        self._retried(self._start_run)
        self._until(lambda: len(self.unfinished()) <= _WAITING, "runs to be built")
        time.sleep(self.chance.uniform(0, _LONGEST_S))
        target = self.chance.choice(TARGETS)
        pid = self._find(target)
        if pid is None:
            target, pid = WORKER, self._find(WORKER)
        if pid is None:
            return
        workers = self._workers()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.kills[target] += 1
        if target == SUPERVISOR:
            self._retried(self.deployment.up)  # as its operator does
        if target in {WORKER, SUPERVISOR, "guard"}:
            self._check_orphans(workers if target != "guard" else set(), pid)

    def unfinished(self) -> list[int]:
        """Return the runs that are not completed."""
        return [row.id for row in self._states() if row.status == "STARTED"]

    def finish(self) -> None:
        """Wait for all runs, and check them."""
        with suppress(AssertionError):
            self._until(lambda: not self.unfinished(), "runs to end")
        expected: dict[str, str] = {}
        for row in self._states():
            if (row.status, row.trees) != ("COMPLETED", 1):
                self.faults.append(f"run {row.id}: {row.status} with {row.trees} trees")
                self.faults += self._last_lines(row.id)
            elif not self.is_real:
                expected[row.key] = _expected(row.id)
        for key, wanted in expected.items():
            if self._object(key) != wanted:
                self.faults.append(f"{key}: not the expected content")
        if len({*self.runs}) != len(self.runs):
            self.faults.append("the service returned a run twice")
        for run in self.runs:
            self.faults += self._repeated(run)
        time.sleep(1)
        if left := [one.pid for one in self._marked()]:
            self.faults.append(f"processes left at the end: {left}")

    def repeats(self) -> int:
        """Return how often a step was interrupted and so repeated."""
        return sum(
            max(0, len(_headings(log, "started")) - 1)
            for run in self.runs
            for log in JobFolder(self.jobs, tree_job_id(run)).logs()
        )

    # Runs

    def _start_run(self) -> None:
        url = f"http://{HOST}:{self.deployment.state.ports()['api']}"
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            headers = {"Authorization": f"Bearer {self._token or self._sign_in()}"}
            before = {run["id"] for run in client.get(_RUNS, headers=headers).json()["phylo_runs"]}
            name = f"Accident {len(self.runs)}"
            body = {"name": name, "tree_type": "TARGETED", "samples": self._samples()}
            try:
                answer = client.post(_RUNS, headers=headers, json=body)
                answer.raise_for_status()
                self.runs.append(answer.json()["id"])
            except httpx.HTTPError:
                # The response was lost; look for the run.
                self._until(lambda: client.get("/v2/health/ready").is_success, "the API")
                rows = client.get(_RUNS, headers=headers).json()["phylo_runs"]
                new = [r["id"] for r in rows if r["id"] not in before and r["name"] == name]
                self.runs += new[:1]

    def _samples(self) -> list[str]:
        query = sa.text(
            "SELECT s.public_identifier FROM aspen.samples s"
            " JOIN aspen.uploaded_pathogen_genomes g ON g.sample_id = s.id"
            " WHERE s.submitting_group_id = 1 ORDER BY s.id LIMIT 20"
        )
        with self._engine().connect() as connection:
            return list(connection.scalars(query))

    def _sign_in(self) -> str:
        folder, port = self.deployment.state.part("identity"), self.deployment.state.ports()
        provider = Identity(folder, port=port["identity"])
        with provider.http:
            self._token = str(provider.tokens("member@example.org")["id_token"])
        return self._token

    def _engine(self) -> sa.Engine:
        return sa.create_engine(self.deployment.cluster.url(), poolclass=NullPool)

    def _states(self) -> list[Any]:
        while True:
            try:
                with self._engine().connect() as connection:
                    return list(connection.execute(_STATES, {"runs": self.runs}))
            except sa.exc.OperationalError:
                time.sleep(0.2)

    def _object(self, key: str) -> str:
        from aspen.api.aws import make_client

        address = f"http://{HOST}:{self.deployment.state.ports()['aws']}"
        keys = read_credentials(self.deployment.state.part("aws"))
        s3 = make_client("s3", "us-west-2", address, keys)
        body: bytes = s3.get_object(Bucket=DB_BUCKET, Key=key)["Body"].read()
        return hashlib.sha256(body).hexdigest()

    # Processes

    def _find(self, target: str) -> int | None:
        if target == SUPERVISOR:
            found = self.deployment.supervision.process
            return found.pid if found else None
        if target == POSTGRES:
            main = read_postmaster(self.deployment.cluster.data)
            return main.pid if main else None
        if target in {"step", "guard"}:
            return self._find_step(target)
        kept = self.deployment.supervision.record().get(target)
        return kept.process.pid if kept and kept.process and kept.lives else None

    def _find_step(self, target: str) -> int | None:
        """Return a step or a guard; a step that is killed twice fails, so each is hit only once."""
        found: list[tuple[int, tuple[str, str]]] = []
        for process in self._marked():
            with suppress(psutil.Error):
                words = process.cmdline()
                if "aspen.workflows.steps" in words and target == "step":
                    found.append((process.pid, (Path(words[-1]).name, words[-2])))
                elif len(words) > 3 and words[3].endswith("guard.py") and target == "guard":
                    given = words[4]
                    job = process.environ()[MARK].rpartition(":")[2]
                    name = Path(json.loads(given)["log"]).stem
                    found.append((process.pid, (job, name)))
        found = [(pid, step) for pid, step in found if step not in self._hit]
        if not found:
            return None
        chosen, step = self.chance.choice(found)
        self._hit.add(step)
        return chosen

    def _marked(self) -> list[psutil.Process]:
        """Return the processes of steps, with their guards."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mark = process.environ().get(MARK, "")
                if mark.startswith(f"{self.jobs}:") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _workers(self) -> set[int]:
        """Return the processes of steps that exist now."""
        return {one.pid for one in self._marked()}

    def _check_orphans(self, before: set[int], killed: int) -> None:
        """Check that what existed before a kill is gone within ten seconds."""
        deadline = time.monotonic() + _ORPHANS_S
        before = before - {killed}
        while before & self._workers():
            if time.monotonic() > deadline:
                self.faults.append(f"orphans: {sorted(before & self._workers())}")
                return
            time.sleep(0.1)

    # Checks

    def _repeated(self, run: int) -> list[str]:
        """Return the steps of a run that were started again after they had finished."""
        found = []
        for log in JobFolder(self.jobs, tree_job_id(run)).logs():
            lines = list(log.read_text(errors="replace").splitlines())
            own = [line for line in lines if line.startswith(HEADING)]
            ends = [place for place, line in enumerate(own) if ": finished" in line]
            if ends and ends[0] != len(own) - 1:
                found.append(f"run {run}: {log.stem} was repeated after it had finished")
        return found

    def _last_lines(self, run: int) -> list[str]:
        logs = JobFolder(self.jobs, tree_job_id(run)).logs()
        return [f"    {line}" for log in logs for line in log.read_text().splitlines()[-5:]]

    def _retried(self, action: Callable[[], Any]) -> None:
        """Do something that a part which is being restarted may prevent."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                action()
            except (httpx.HTTPError, sa.exc.OperationalError, AspenError, KeyError, ValueError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            with suppress(httpx.HTTPError):
                if condition():
                    return
            assert time.monotonic() < deadline, f"timed out waiting for {what}"
            time.sleep(0.1)


def _expected(run: int) -> str:
    """Return the checksum of the object of a run: the sum of its numbers."""
    numbers = ((run * 7919 + place * 104_729) % 1_000_003 for place in range(1000))
    return hashlib.sha256(f"{sum(numbers)}\n".encode()).hexdigest()


def _headings(log: Path, word: str) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(HEADING) and f": {word}" in line]


def main() -> int:
    """Run the accidents; exit with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(prog="make accidents-jobs", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="build real trees")
    chosen = parser.parse_args()
    if not chosen.real:
        os.environ["ASPEN_JOB_STEPS"] = STEPS
    top = Path(tempfile.mkdtemp(prefix="aspen-accidents-"))
    top.chmod(0o711)  # the server's account needs to pass through
    deployment = Deployment(top / "home", timing=_TIMING)
    began = time.monotonic()
    try:
        deployment.up()
        campaign = Campaign(deployment, random.Random(chosen.seed), chosen.real)
        while campaign.kills.total() < chosen.kills:
            campaign.accident()
            if (done := campaign.kills.total()) % 10 == 0:
                sys.stdout.write(f"{done} kills, {time.monotonic() - began:.0f} s\n")
                sys.stdout.flush()
        campaign.finish()
        repeats = campaign.repeats()
    finally:
        deployment.reset()
        shutil.rmtree(top, ignore_errors=True)
    kills = ", ".join(f"{name} {count}" for name, count in sorted(campaign.kills.items()))
    sys.stdout.write(
        f"{campaign.kills.total()} kills ({kills}) during {len(campaign.runs)} runs in "
        f"{time.monotonic() - began:.0f} s; {repeats} interrupted steps were repeated.\n"
    )
    for fault in campaign.faults:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(f"{len(campaign.faults)} faults\n")
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
