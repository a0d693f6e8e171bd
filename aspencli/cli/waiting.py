"""Wait for a run's job to end: ``phylo-runs create --wait``.

On the local deployment, its engine says which step runs; elsewhere, the API says if the run has
ended. Nothing here changes the run, so a command that stops waiting leaves it running.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aspencli.errors import AspenError, UnreachableError
from aspencli.phylo.remote import STARTED, find_run
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.workflows.engine import Job
    from aspen.workflows.engine.local import LocalEngine
    from aspencli.cli.context import AppContext
    from aspencli.cli.output.console import Tick
    from aspencli.reference.remote import Scope
    from aspencli.remote.types import PhyloRun

_LOCAL_S = 0.25
_FIRST_S, _LONGEST_S, _GROWTH = 1.0, 10.0, 1.3
_LOST_TIMES = 20  # in a row; the API's client has retried each of them by then


class RunWait:
    """A wait for one run.

    Attributes:
        run: The run as it was last seen.
    """

    def __init__(self, context: AppContext, scope: Scope, run: PhyloRun):
        self.run = run
        self._context, self._out, self._scope = context, context.out, scope
        self._step = self._job_id = ""
        self._engine: LocalEngine | None = None

    def leave(self) -> None:
        """Tell the operator that the run continues without this command."""
        self._out.info(f"Run {self.run['id']} continues in the background.")
        self._out.hint(self._following())
        if self._job_id:
            cancel = self._context.command("jobs", "cancel", self._job_id)
            self._out.hint(f"Cancel it: {cancel}")

    def until_it_ends(self, timeout: float | None) -> None:
        """Wait for the run to end.

        Raises:
            AspenError: It failed; the message says why if that is known.
            UnreachableError: It did not end in time, or nothing runs jobs.
        """
        self._engine = self._local_engine()
        number = self.run["id"]
        with self._out.progress(f"Building run {number}") as tick:
            self._wait(timeout, tick)
        tree = self.run["phylo_tree"]
        if self.run["workflow_status"] != "COMPLETED" or tree is None:
            raise self._failure()
        self._out.done(f"Run {number} completed: tree {tree['id']}.")
        download = self._context.command("phylo-trees", "download", str(tree["id"]))
        self._out.hint(f"Download it: {download}")

    def _wait(self, timeout: float | None, tick: Tick) -> None:
        began, pause, lost = time.monotonic(), _FIRST_S, 0
        while True:
            try:
                if self._has_ended(tick):
                    return
                lost = 0
            except UnreachableError:
                lost += 1
                if lost >= _LOST_TIMES:
                    raise
            left = None if timeout is None else timeout - (time.monotonic() - began)
            if left is not None and left <= 0:
                raise self._timeout(timeout or 0)
            wanted = _LOCAL_S if self._engine else pause
            time.sleep(wanted if left is None else min(wanted, max(left, 0.01)))
            pause = min(pause * _GROWTH, _LONGEST_S)

    def _has_ended(self, tick: Tick) -> bool:
        if self._engine:
            job = self._look(self._engine)
            if job is None:
                return False
            self._show(job, tick)
            if not job.state.ended:
                return False
        found = find_run(self._context.api().phylo_runs, self._scope, self.run["id"])
        if found is None:
            raise AspenError(f"Run {self.run['id']} was deleted.")
        self.run = found
        return found["workflow_status"] != STARTED

    def _show(self, job: Job, tick: Tick) -> None:
        shown = job.state.value
        if job.step:
            shown = f"step {job.number} of {job.steps}: {job.step}"
        if shown != self._step and not job.state.ended:
            self._step = shown
            self._out.info(f"Run {self.run['id']}: {shown}")
        tick(job.number)

    def _local_engine(self) -> LocalEngine | None:
        """Return the engine of the deployment on this machine, if that is the target."""
        if not self._context.is_on_laptop or self._context.target.api_url:
            return None
        from aspen.workflows.engine import tree_job_id

        engine = self._context.laptop.jobs_engine()
        self._job_id = tree_job_id(self.run["id"])
        if engine.state(self._job_id) is None:
            from aspen.local.services import NO_WORKER

            raise UnreachableError(
                f"Run {self.run['id']} was started, but nothing runs its job.", hint=NO_WORKER
            )
        return engine

    def _look(self, engine: LocalEngine) -> Job | None:
        from sqlalchemy.exc import OperationalError

        try:
            return engine.state(self._job_id)
        except OperationalError as error:
            raise UnreachableError("The local database cannot be reached.") from error

    def _failure(self) -> AspenError:
        job = self._look(self._engine) if self._engine else None
        reason = f": {job.reason}" if job and job.reason else "."
        hint = self._context.command("phylo-runs", "list")
        if self._job_id:
            hint = self._context.command("jobs", "logs", self._job_id)
        return AspenError(f"Run {self.run['id']} failed{reason}", hint=f"For more: {hint}")

    def _timeout(self, seconds: float) -> UnreachableError:
        number = self.run["id"]
        return UnreachableError(
            f"Run {number} has not ended after {counted(round(seconds), 'second')}; it continues.",
            hint=self._following(),
        )

    def _following(self) -> str:
        if self._job_id:
            words = ("jobs", "logs", self._job_id, "--follow")
            return f"Follow it: {self._context.command(*words)}"
        return f"Check its status: {self._context.command('phylo-runs', 'list')}"
