"""The worker: runs queued jobs, each step as a child process.

DBOS records in the database which steps of which job have finished, so a worker that was killed
continues where it was. The children end with the worker, whatever ends it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import ValidationError

from aspen.workflows.engine import tree_job_id
from aspen.workflows.engine.child import MARK, Ending, Limits, end_left, marks, run_child
from aspen.workflows.engine.folder import JobFolder
from aspen.workflows.engine.queue import (
    APPLICATION,
    CONCURRENCY,
    ENQUEUE,
    VERSION,
    WORKFLOW,
    values,
)
from aspen.workflows.engine.runs import (
    ended_runs,
    fail_run,
    find_run,
    missed_runs,
    restart_run,
)
from aspen.workflows.jobs import Kind, Plan, Step, TreeParameters, plans
from aspen.workflows.outages import is_outage
from aspen.workflows.steps import AWAY
from aspen.workflows.store import Store, TreeKeys
from aspen.workflows.surroundings import Surroundings

T = TypeVar("T")

HEALTH, READY = "/health", "/ready"
CANCELLED = "cancelled"

_log = logging.getLogger("aspen.worker")

_POLL_S = 0.5
_SWEEP_S = 60.0
_LOOK_S = 1.0  # between two looks in the database for a cancellation
_PATIENCE_S = 300.0  # for the database to be created and migrated at the first start
_PAUSE_S, _LONGEST_PAUSE_S, _AWAY_TIMES = 0.5, 15.0, 20  # four minutes in all
_UPLOAD_TIMES = 5  # for 15 s
_STOP_S = 4.0
_KILLED_TIMES = 2
_IS_CANCELLED = sa.text(
    "SELECT status = 'CANCELLED' FROM dbos.workflow_status WHERE workflow_uuid = :job"
)
# Privileges are granted last.
_IS_PREPARED = sa.text("""
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'aspen' AND c.relname = 'phylo_runs'
       AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'))
   AND (has_database_privilege(current_database(), 'CREATE')
        OR EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'dbos'))""")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Setting:
    """The settings of a worker.

    Attributes:
        folder: The folder for jobs and their logs.
        port: The port on 127.0.0.1 for health checks; None for none.
        variables: Further variables for the steps, such as AWS credentials.
        name: The worker's name, by which DBOS recognizes the jobs that it had.
    """

    surroundings: Surroundings
    folder: Path
    port: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    name: str = "local"


class JobFailedError(Exception):
    """The failure of a job, with the reason for people."""


class _Cancelled(Exception):  # noqa: N818 - DBOS ends the job; this only leaves the step
    """The cancellation of the running job."""


class _Server(ThreadingTCPServer):
    """A server that, unlike the library's for HTTP, does not look up its own name."""

    allow_reuse_address = True
    daemon_threads = True


class Worker:
    """A worker that runs jobs until it is stopped."""

    def __init__(self, setting: Setting):
        self._setting = setting
        self._stopping = threading.Event()
        self._active = 0
        self._locks: dict[str, ExitStack] = {}
        self._idle = threading.Condition()
        self._engine = sa.create_engine(
            setting.surroundings.database,
            pool_pre_ping=True,
            connect_args={"application_name": "aspen worker", "connect_timeout": 5},
        )
        self._launched = False

    # Life

    def serve(self) -> int:
        """Run jobs until SIGTERM; return the exit code."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        self._setting.folder.mkdir(0o700, parents=True, exist_ok=True)
        self._answer_checks()
        with self._alone(stop):
            if left := end_left(self._setting.folder):
                _log.warning("Ended %d processes of a worker that was killed", left)
            if not self._wait_for_schema(stop):
                return 0 if stop.is_set() else 1
            self._launch()
            self._launched = True
            _log.warning("Ready; running up to %d jobs at a time", sum(CONCURRENCY.values()))
            while not stop.wait(self._sweep()):
                pass
            self._stop()
        # Threads of DBOS may wait for jobs that continue when the worker starts again.
        sys.stdout.flush()
        os._exit(0)

    @contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[None]:
        """Wait until no other worker uses the folder, as one that is about to end does."""
        descriptor = os.open(self._setting.folder / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not stop.is_set():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(0.1)
            yield
        finally:
            os.close(descriptor)

    def _wait_for_schema(self, stop: threading.Event) -> bool:
        """Wait until the schema exists and may be used, which the first start prepares."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and not stop.is_set():
            try:
                with self._engine.connect() as connection:
                    if connection.scalar(_IS_PREPARED):
                        return True
            except sa.exc.OperationalError:
                pass
            stop.wait(0.1)
        if not stop.is_set():
            _log.error("The database was not ready after %.0f s", _PATIENCE_S)
        return False

    def _launch(self) -> None:
        from dbos import DBOS

        DBOS(
            config={
                "name": APPLICATION,
                "system_database_url": _for_dbos(self._setting.surroundings.database),
                "application_version": VERSION,
                "executor_id": self._setting.name,
                "log_level": "WARNING",
                "notification_listener_polling_interval_sec": 1.0,
                "sys_db_pool_size": 8,  # of the 100 connections that PostgreSQL accepts
            }
        )

        def job(kind: str, parameters: dict[str, Any]) -> None:
            self.job(kind, parameters)

        # A worker that is killed often must not end a job.
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=None)(job)
        DBOS.launch()
        _register_queues()

    def _stop(self) -> None:
        """End the running steps; their jobs continue with them when a worker starts again."""
        self._stopping.set()
        with self._idle:
            self._idle.wait_for(lambda: self._active == 0, _STOP_S)

    def _answer_checks(self) -> None:
        """Answer health checks, in threads."""
        if self._setting.port is None:
            return
        worker = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fine = self.path == HEALTH or (self.path == READY and worker.is_ready())
                self.send_response(HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - inherited
                pass

        server = _Server(("127.0.0.1", self._setting.port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def is_ready(self) -> bool:
        """Return True if jobs can run, for which the database must answer."""
        if not self._launched:
            return False
        try:
            with self._engine.connect() as connection:
                return bool(connection.scalar(sa.text("SELECT true")))
        except sa.exc.SQLAlchemyError:
            return False

    # Runs without jobs

    def _sweep(self) -> float:
        """Enqueue runs that have no job, and settle those whose job has ended; return a pause."""
        try:
            with self._engine.begin() as connection:
                for run in missed_runs(connection):
                    job = values(Kind.TREE, {"run_id": run}, tree_job_id(run))
                    connection.execute(sa.text(ENQUEUE), job)
                    _log.warning("Run %d had no job; enqueued it", run)
                for run in ended_runs(connection):
                    if self._is_held(tree_job_id(run)):
                        continue  # it is about to be settled
                    fail_run(connection, run)
                    _log.warning("Set run %d, whose job has ended, to FAILED", run)
        except sa.exc.SQLAlchemyError as error:
            _log.warning("Cannot look for runs without jobs: %s", _first_line(error))
            return _LOOK_S
        return _SWEEP_S

    def _is_held(self, job_id: str) -> bool:
        return not self._folder(job_id).wait_until_free(0)

    # Jobs

    def job(self, kind: str, parameters: dict[str, Any]) -> None:
        """Run the steps of a job; DBOS calls this, and again after an interruption."""
        from dbos import DBOS

        job_id = str(DBOS.workflow_id)
        try:
            self._run(job_id, kind, parameters)
        finally:
            if held := self._locks.pop(job_id, None):
                held.close()

    def _run(self, job_id: str, kind: str, parameters: dict[str, Any]) -> None:
        from dbos import DBOS

        problem = DBOS.run_step({"name": "begin"}, self._begin, job_id, kind, parameters)
        if problem is None:
            return
        step = ""
        for one in _plan(kind).steps if not problem else ():
            step = one.name
            run = (job_id, kind, parameters, one)
            if problem := DBOS.run_step({"name": step}, self._run_step, *run):
                break
        if problem:
            reason = f"{step}: {problem}" if step else problem
            _log.warning("%s failed: %s", job_id, reason)
            DBOS.run_step({"name": "fail"}, self._fail, kind, parameters)
            DBOS.run_step({"name": "upload-logs"}, self._upload_logs, job_id, kind, parameters)
            raise JobFailedError(reason)
        DBOS.run_step({"name": "end"}, self._end, job_id)

    def _hold(self, job_id: str) -> None:
        """Hold the job's lock until the job ends here, so that a cancellation can wait for that.

        Raises:
            OSError: The lock cannot be created.
        """
        if job_id not in self._locks:
            with ExitStack() as stack:
                stack.enter_context(self._folder(job_id).held())
                self._locks[job_id] = stack.pop_all()

    def _begin(self, job_id: str, kind: str, parameters: Mapping[str, Any]) -> str | None:
        """Prepare a job; return the reason why it cannot run, or None if it is done already."""
        folder = self._folder(job_id)
        try:
            self._hold(job_id)
        except OSError as error:
            return _about(error)
        self._check_cancelled(job_id, kind, parameters)
        try:
            plan = _plan(kind)
            given = plan.parameters.model_validate(parameters)
        except (ValueError, KeyError) as error:
            return f"Invalid job: {_first_line(error)}"
        try:
            folder.make(parameters)
            folder.begin()
        except OSError as error:
            return _about(error)
        if isinstance(given, TreeParameters):
            return self._persistently(lambda: self._begin_run(given.run_id))
        return ""

    def _begin_run(self, run: int) -> str | None:
        with self._engine.begin() as connection:
            found = find_run(connection, run)
            if found is None:
                return f"Run {run} does not exist"
            if found.status == "COMPLETED":
                return None
            restart_run(connection, run)
        return ""

    def _run_step(self, job_id: str, kind: str, parameters: Mapping[str, Any], step: Step) -> str:
        """Run a step until it succeeds or fails for good; return the reason for a failure."""
        folder = self._folder(job_id)
        killed = away = attempt = 0
        while True:
            self._check_cancelled(job_id, kind, parameters)
            if folder.is_done(step.name):
                return ""
            attempt += 1
            try:
                self._hold(job_id)
                ending = self._attempt(folder, job_id, parameters, step, attempt)
            except OSError as error:
                return _about(error)
            if folder.is_done(step.name):
                return ""
            if ending.why == "stopped":
                self._check_cancelled(job_id, kind, parameters)
                continue  # the cancellation was undone by then
            if ending.was_killed:
                end_left(self._setting.folder, job=job_id)
                killed += 1
                if killed < _KILLED_TIMES:
                    continue
            if ending.code == AWAY and away < _AWAY_TIMES:
                self._pause(job_id, min(_PAUSE_S * 2**away, _LONGEST_PAUSE_S))
                away += 1
                continue
            return _why(folder, step, ending)

    def _attempt(
        self,
        folder: JobFolder,
        job_id: str,
        parameters: Mapping[str, Any],
        step: Step,
        attempt: int,
    ) -> Ending:
        folder.make(parameters)
        folder.clear_step(step.name)
        folder.note(step.name, f"started (attempt {attempt})")
        words = [sys.executable, "-P", "-m", "aspen.workflows.steps", step.name, str(folder.path)]
        with self._counted():
            ending = run_child(
                words,
                folder=folder.path,
                log=folder.log(step.name),
                environment=self._environment(folder, job_id),
                limits=Limits(step.seconds, step.megabytes),
                should_stop=self._stop_check(job_id),
            )
        with suppress(OSError):  # the disk may be full by now
            folder.note(step.name, _described(ending, done=folder.is_done(step.name)))
        return ending

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a running child; block forever once it has ended because the worker does."""
        with self._idle:
            if self._stopping.is_set():
                self._idle.wait()
            self._active += 1
        try:
            yield
        finally:
            with self._idle:
                self._active -= 1
                self._idle.notify_all()
        if self._stopping.is_set():
            threading.Event().wait()  # the process is about to end; nothing must be recorded

    def _environment(self, folder: JobFolder, job_id: str) -> dict[str, str]:
        return {
            **os.environ,
            **self._setting.surroundings.to_environment(),
            **self._setting.variables,
            **marks(self._setting.folder, job_id),
            # Two steps run at a time, beside the service.
            **dict.fromkeys(_THREADS, "1"),
            "AUGUR_RECURSION_LIMIT": "10000",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder.temporary),
        }

    # Cancellation

    def _stop_check(self, job_id: str) -> Callable[[], bool]:
        """Return a function that returns True once a running step must be ended."""
        folder, looked = self._folder(job_id), time.monotonic()

        def check() -> bool:
            nonlocal looked
            if self._stopping.is_set() or folder.cancelled is not None:
                return True
            if time.monotonic() - looked < _LOOK_S:
                return False
            looked = time.monotonic()
            return self._is_cancelled(job_id)

        return check

    def _is_cancelled(self, job_id: str) -> bool:
        try:
            with self._engine.connect() as connection:
                return bool(connection.scalar(_IS_CANCELLED, {"job": job_id}))
        except sa.exc.SQLAlchemyError:
            return False

    def _check_cancelled(self, job_id: str, kind: str, parameters: Mapping[str, Any]) -> None:
        """Settle a job that was cancelled.

        Raises:
            _Cancelled: It was.
        """
        from dbos import DBOS

        folder = self._folder(job_id)
        if folder.cancelled is None and not self._is_cancelled(job_id):
            return
        self._persistently(lambda: DBOS.cancel_workflow(job_id))
        self._fail(kind, parameters)
        folder.clear(keep_results=True)
        _log.warning("%s was cancelled", job_id)
        raise _Cancelled

    # Ends

    def _fail(self, kind: str, parameters: Mapping[str, Any]) -> None:
        run = parameters.get("run_id")
        if kind != Kind.TREE or not isinstance(run, int):
            return

        def settle() -> None:
            with self._engine.begin() as connection:
                fail_run(connection, run)

        self._persistently(settle)

    def _upload_logs(self, job_id: str, kind: str, parameters: Mapping[str, Any]) -> None:
        """Upload the logs of a failed run, where operators of the live service look for them."""
        run = parameters.get("run_id")
        if kind != Kind.TREE or not isinstance(run, int):
            return
        for attempt in range(_UPLOAD_TIMES):
            try:
                with self._engine.connect() as connection:
                    found = find_run(connection, run)
                if found is None:
                    return
                keys = TreeKeys(found.filestem, run, found.pathogen)
                store = Store(self._setting.surroundings)
                for log in self._folder(job_id).logs():
                    store.upload(log, keys.log(log.name))
            except Exception as error:  # noqa: BLE001 - a failed run must end, with logs or not
                _log.warning("Cannot upload the logs of %s: %s", job_id, _first_line(error))
                if not is_outage(error):
                    return
                self._stopping.wait(_PAUSE_S * 2**attempt)
            else:
                return

    def _end(self, job_id: str) -> None:
        self._folder(job_id).clear()

    # Helpers

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self._setting.folder, job_id)

    def _pause(self, job_id: str, seconds: float) -> None:
        """Wait, unless the worker stops or the job is cancelled."""
        check, deadline = self._stop_check(job_id), time.monotonic() + seconds
        while time.monotonic() < deadline and not check():
            time.sleep(0.05)

    def _persistently(self, action: Callable[[], T]) -> T:
        """Do something in the database, however long it is away."""
        pause = _PAUSE_S
        while True:
            try:
                return action()
            except sa.exc.DBAPIError as error:
                if not is_outage(error):
                    raise
                _log.warning("The database is away: %s", _first_line(error))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _register_queues() -> None:
    from dbos import DBOS

    for queue, number in CONCURRENCY.items():
        DBOS.register_queue(
            queue,
            worker_concurrency=number,
            polling_interval_sec=_POLL_S,
            on_conflict="always_update",
        )


def _plan(kind: str) -> Plan:
    return plans()[Kind(kind)]


def _why(folder: JobFolder, step: Step, ending: Ending) -> str:
    """Return the reason for a step's failure, in words for people."""
    name = signal.Signals(ending.signal or signal.SIGKILL).name
    ended = {
        "time": f"ended after its time limit of {step.seconds:,} s",
        "memory": f"ended because it used more memory than its limit of {step.megabytes:,} MB",
    }.get(ending.why)
    if ending.error:
        ended = f"cannot be started: {ending.error}"
    elif ending.was_killed:
        ended = f"killed by the system twice ({name}); the machine may be out of memory"
    if reason := ended or folder.reason(step.name):
        return reason
    said = folder.last_words(step.name)
    if ending.code == AWAY:
        return f"the database or AWS could not be reached: {said}"
    return f"exited with code {ending.code}" + (f": {said}" if said else "")


def _described(ending: Ending, *, done: bool) -> str:
    """Return the worker's line about the end of an attempt."""
    used = f"{ending.seconds:.1f} s, {ending.megabytes} MB"
    if done:
        return f"finished ({used})"
    if ending.error:
        return f"not started: {ending.error}"
    if ending.why:
        return f"ended by its {ending.why} limit ({used})" if ending.why != "stopped" else "stopped"
    if ending.was_killed:
        return "killed"
    return f"exited with code {ending.code} ({used})"


def _about(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    return f"Cannot write{where}: {error.strerror or error}"


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _for_dbos(database: str) -> str:
    url = sa.make_url(database).set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def _is_failed_job(record: logging.LogRecord) -> bool:
    return bool(record.exc_info) and isinstance((record.exc_info or (0, 0))[1], JobFailedError)


def main(setting: Setting) -> int:
    """Run a worker in this process; return the exit code."""
    os.environ.pop(MARK, None)
    os.environ |= setting.variables
    # The reason is logged in a line of its own.
    logging.getLogger("dbos").addFilter(lambda record: not _is_failed_job(record))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    return Worker(setting).serve()
