"""The worker and the engine: real processes, killed and cancelled, on a real database."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.engine import EngineError, Job, State, tree_job_id
from aspen.workflows.engine.folder import JobFolder
from aspen.workflows.jobs import Kind
from aspencli.machine import start_of
from tests.conftest import CliRunner
from tests.workflows.engine.conftest import Lab
from tests.workflows.engine.trial import MEGABYTES, SECONDS


def starts(lab: Lab, job: str, step: str) -> int:
    """Return how often a step was started."""
    lines = lab.engine.logs(job, step=step)
    return sum(line.startswith("== ") and "started" in line for line in lines)


# Jobs that work


def test_tree_job_writes_one_object_and_one_tree(lab: Lab) -> None:
    run = lab.new_run()
    job = lab.ended(tree_job_id(run))
    assert (job.state, job.reason, job.kind, job.parameters) == (
        State.DONE,
        "",
        "tree",
        {"run_id": run},
    )
    assert (job.step, job.number, job.steps, job.attempts) == ("trial-save", 3, 3, 1)
    assert job.created
    assert job.started
    assert job.ended
    assert job.created <= job.started <= job.ended <= datetime.now(UTC)
    assert (lab.status(run), lab.trees(run)) == ("COMPLETED", 1)
    assert len([*lab.objects.iterdir()]) == 1
    # Only logs are kept, as the files of steps are large.
    lab.until(lambda: not (lab.folder / job.id / "trial-work").exists())
    assert "finished" in "\n".join(lab.engine.logs(job.id, step="trial-save"))


def test_job_is_started_only_once(lab: Lab) -> None:
    lab.act("fine", "once")
    lab.act("exit", "once")
    assert lab.ended("once").state is State.DONE
    lab.act("exit", "once")
    assert [job.id for job in lab.engine.jobs()] == ["once"]
    assert lab.job("once").state is State.DONE


def test_runs_are_built_two_at_a_time_in_order(idle_lab: Lab, tmp_path: Path) -> None:
    lab = idle_lab
    lab.variables = {"TRIAL_TRACE": str(tmp_path / "trace")}
    runs = [lab.new_run() for _ in range(8)]
    assert {job.state for job in lab.engine.jobs()} == {State.QUEUED}
    lab.start_worker()
    most, jobs = 0, [*lab.engine.jobs()]
    while any(not job.state.ended for job in jobs):
        time.sleep(0.05)
        jobs = [*lab.engine.jobs()]
        most = max(most, sum(job.state is State.RUNNING for job in jobs))
    assert most == 2
    assert [(lab.status(run), lab.trees(run)) for run in runs] == [("COMPLETED", 1)] * len(runs)
    traced = (tmp_path / "trace").read_text().split()
    assert sorted(traced) == sorted(map(tree_job_id, runs))
    begun = [job.started for job in reversed([*lab.engine.jobs()])]
    assert begun == sorted(begun, key=lambda moment: moment or datetime.now(UTC))


def test_analysis_of_samples_does_not_wait_for_trees(idle_lab: Lab) -> None:
    lab = idle_lab
    lab.variables = {"TRIAL_SECONDS": "600"}
    runs = [tree_job_id(lab.new_run()) for _ in range(3)]
    parameters = {"pathogen": "SC2", "run_type": "specified-ids-only", "sample_ids": [1]}
    lab.engine.start("qc", parameters, "qc-1")
    lab.start_worker()
    for run in runs[:2]:
        lab.running(run, "trial-work")
    assert lab.ended("qc-1").state is State.DONE
    states = [lab.job(run).state for run in runs]
    assert states == [State.RUNNING, State.RUNNING, State.QUEUED]
    for run in reversed(runs):
        lab.engine.cancel(run, "")


def test_jobs_wait_until_worker_starts(idle_lab: Lab) -> None:
    run = idle_lab.new_run()
    job = idle_lab.job(tree_job_id(run))
    assert (job.state, job.number, job.steps, job.started) == (State.QUEUED, 0, 3, None)
    idle_lab.start_worker()
    assert idle_lab.ended(job.id).state is State.DONE


def test_jobs_are_listed_newest_first_and_by_kind(lab: Lab) -> None:
    first, run, last = lab.act("fine", "first"), lab.new_run(), lab.act("fine", "last")
    assert [job.id for job in lab.engine.jobs()] == [last, tree_job_id(run), first]
    assert [job.id for job in lab.engine.jobs(kind="tree")] == [tree_job_id(run)]
    assert [job.id for job in lab.engine.jobs(limit=1)] == [last]
    assert lab.engine.state("none") is None
    for job in (first, last, tree_job_id(run)):
        lab.ended(job)


def test_schema_check_ignores_tables_of_engine(lab: Lab, run_cli: CliRunner) -> None:
    lab.ended(lab.act("fine"))
    done = run_cli("db", "check", database=lab.database)
    assert done.code == 0, done.err


# Jobs that fail


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        ("allocate", f"ended because it used more memory than its limit of {MEGABYTES} MB"),
        ("exit:1", "exited with code 1: about to exit; the input is odd"),
        ("refuse", "Sample RCPHL-0000001 has no genome"),
        ("raise", "exited with code 1: ValueError: not a number: 'x'"),
        ("die:2", "killed by the system twice (SIGKILL); the machine may be out of memory"),
    ],
    ids=lambda value: value.partition(":")[0],
)
def test_failure_is_explained(lab: Lab, behavior: str, reason: str) -> None:
    job = lab.ended(lab.act(behavior))
    assert (job.state, job.reason) == (State.FAILED, f"trial-act: {reason}")
    assert (job.step, job.number, job.steps) == ("trial-act", 2, 3)
    assert starts(lab, job.id, "trial-act") == (2 if behavior == "die:2" else 1)
    assert starts(lab, job.id, "trial-last") == 0
    assert "Traceback" not in job.reason
    assert lab.processes() == []


def test_step_that_hangs_is_ended_and_explained(lab: Lab) -> None:
    lab.engine.start("import-locations", {"pathogen": "SC2", "file": ""}, "hang")
    job = lab.ended("hang")
    reason = f"trial-hang: ended after its time limit of {SECONDS} s"
    assert (job.state, job.reason) == (State.FAILED, reason)
    assert starts(lab, job.id, "trial-hang") == 1
    assert lab.processes() == []


def test_full_disk_is_explained(lab: Lab) -> None:
    job = lab.ended(lab.act("fill"))
    assert job.state is State.FAILED
    assert job.reason.startswith("trial-act: No space left to write")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
def test_worker_on_full_disk_fails_jobs_and_continues(idle_lab: Lab, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k tmpfs {disk} 2>/dev/null") != 0:
        pytest.skip("this container cannot mount a file system")
    try:
        idle_lab.folder = disk / "jobs"
        idle_lab.folder.mkdir()
        (disk / "filler").write_bytes(b"x" * 150_000)
        worker = idle_lab.start_worker()
        run = idle_lab.new_run()
        (disk / "more").touch()
        with (disk / "more").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 1000):
                    pass
            except OSError:
                pass
        job = idle_lab.ended(tree_job_id(run))
        assert (job.state, idle_lab.status(run)) == (State.FAILED, "FAILED")
        assert "space left" in job.reason
        (disk / "more").unlink()
        (disk / "filler").unlink()
        idle_lab.engine.retry(job.id)
        idle_lab.until(lambda: idle_lab.status(run) == "COMPLETED")
        assert worker.poll() is None
        idle_lab.ended(job.id)
    finally:
        idle_lab.close()
        idle_lab.workers.clear()
        os.system(f"umount -l {disk}")


def test_step_killed_by_system_is_retried_once(lab: Lab) -> None:
    job = lab.ended(lab.act("die:1"))
    assert (job.state, job.reason) == (State.DONE, "")
    assert starts(lab, job.id, "trial-act") == 2
    assert starts(lab, job.id, "trial-first") == 1


def test_step_that_lost_a_server_is_repeated(lab: Lab) -> None:
    job = lab.ended(lab.act("lose:3"))
    assert job.state is State.DONE
    assert starts(lab, job.id, "trial-act") == 4
    log = "\n".join(lab.engine.logs(job.id))
    assert log.count("Lost a server: ") == 3
    assert "Traceback" not in log


def test_failed_run_is_settled(idle_lab: Lab) -> None:
    run = idle_lab.new_run()
    with idle_lab.database.begin() as session:
        # The save step finds no run that it could complete.
        session.execute(sa.text("UPDATE aspen.phylo_runs SET tree_type = 'UNKNOWN'"))
        session.execute(
            sa.text("ALTER TABLE aspen.phylo_trees ADD CHECK (tree_type <> 'UNKNOWN') NOT VALID")
        )
    idle_lab.start_worker()
    job = idle_lab.ended(tree_job_id(run))
    assert job.state is State.FAILED
    assert job.reason.startswith("trial-save: exited with code 1: ")
    assert "Traceback" not in job.reason
    assert (idle_lab.status(run), idle_lab.trees(run)) == ("FAILED", 0)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("tree", {"run_id": 0}, "Invalid parameter run_id of a tree job"),
        ("tree", {}, "Invalid parameter run_id"),
        ("trees", {}, "Unknown kind of job: 'trees'"),
    ],
)
def test_invalid_job_is_refused(
    idle_lab: Lab, kind: str, parameters: dict[str, int], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        idle_lab.engine.start(kind, parameters, "job")
    assert [*idle_lab.engine.jobs()] == []


@pytest.mark.parametrize("job", ["../up", "", ".", "a/b", "x" * 129])
def test_job_id_that_is_no_folder_name_is_refused(idle_lab: Lab, job: str) -> None:
    with pytest.raises(EngineError, match="Invalid job ID"):
        idle_lab.engine.start("tree", {"run_id": 1}, job)


def test_engine_without_queue_knows_no_jobs(seeded: Database, tmp_path: Path) -> None:
    lab = Lab(seeded, tmp_path, tmp_path)
    assert [*lab.engine.jobs()] == []
    assert lab.engine.state("phylo-run-1") is None
    with pytest.raises(EngineError, match="No worker has ever run") as caught:
        lab.engine.start("tree", {"run_id": 1}, "phylo-run-1")
    assert "aspencli local up" in caught.value.hint


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_job_continues_at_its_step(lab: Lab, number: signal.Signals) -> None:
    gate = lab.folder.parent / "gate"
    job = lab.act(f"wait:{gate}", "interrupted")
    lab.says(job, "about to wait")
    worker = lab.workers[0]
    worker.send_signal(number)
    worker.wait(30)
    lab.until(lambda: lab.processes() == [], 10)
    assert lab.job(job).state is State.RUNNING
    gate.touch()
    lab.start_worker()
    assert lab.ended(job).state is State.DONE
    assert [starts(lab, job, step) for step in ("trial-first", "trial-act", "trial-last")] == [
        1,
        2,
        1,
    ]
    assert lab.job(job).attempts == 1


def test_step_that_finished_as_worker_was_killed_is_not_repeated(lab: Lab) -> None:
    gate = lab.folder.parent / "gate"
    job = lab.act(f"wait:{gate}", "finished")
    lab.says(job, "about to wait")
    worker = lab.workers[0]
    worker.send_signal(signal.SIGSTOP)  # it cannot record anything
    gate.touch()
    lab.until((lab.folder / job / "done" / "trial-act").exists)
    worker.kill()
    worker.wait()
    lab.start_worker()
    assert lab.ended(job).state is State.DONE
    assert starts(lab, job, "trial-act") == 1


def test_second_worker_waits_for_first(lab: Lab) -> None:
    lab.ended(lab.act("fine", "first"))
    lab.start_worker()
    lab.workers[0].terminate()
    assert lab.workers[0].wait(30) == 0
    assert lab.ended(lab.act("fine", "second")).state is State.DONE


def test_committed_run_without_job_is_found(idle_lab: Lab) -> None:
    run, old = idle_lab.new_run(enqueue=False), idle_lab.new_run(enqueue=False)
    with idle_lab.database.begin() as session:
        age = sa.text(
            "UPDATE aspen.workflows SET start_datetime = start_datetime - interval '8 days'"
            " WHERE id = :run"
        )
        session.execute(age, {"run": old})
    idle_lab.start_worker()
    idle_lab.until(lambda: idle_lab.status(run) == "COMPLETED")
    assert idle_lab.trees(run) == 1
    assert [job.id for job in idle_lab.engine.jobs()] == [tree_job_id(run)]
    assert idle_lab.status(old) == "STARTED"


def test_run_that_is_completed_is_not_built_again(idle_lab: Lab) -> None:
    run = idle_lab.new_run()
    with idle_lab.database.begin() as session:
        text = "UPDATE aspen.workflows SET workflow_status = 'COMPLETED' WHERE id = :run"
        session.execute(sa.text(text), {"run": run})
    idle_lab.start_worker()
    assert idle_lab.ended(tree_job_id(run)).state is State.DONE
    assert idle_lab.trees(run) == 0
    assert [*idle_lab.engine.logs(tree_job_id(run))] == []


def test_run_that_was_deleted_fails(idle_lab: Lab) -> None:
    idle_lab.engine.start("tree", {"run_id": 987_654}, tree_job_id(987_654))
    idle_lab.start_worker()
    job = idle_lab.ended(tree_job_id(987_654))
    assert (job.state, job.reason) == (State.FAILED, "Run 987654 does not exist")


# Cancellation and retries


def test_cancelled_job_ends_with_all_processes_within_two_seconds(lab: Lab) -> None:
    job = lab.act("family")
    lab.until(lambda: len(lab.processes()) >= 5)
    processes = lab.processes()
    began = time.monotonic()
    seconds: list[float] = []

    def watch() -> None:
        while any(start_of(one.pid) for one in processes):
            time.sleep(0.01)
        seconds.append(time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    lab.engine.cancel(job, "no longer needed")
    watcher.join()
    assert lab.processes() == []
    assert seconds[0] < 2
    found = lab.job(job)
    assert (found.state, found.reason) == (State.CANCELLED, "cancelled: no longer needed")
    assert (found.step, found.number) == ("trial-act", 2)
    with pytest.raises(EngineError, match="already ended"):
        lab.engine.cancel(job, "")


def test_cancelled_run_is_failed_and_the_next_job_runs(idle_lab: Lab) -> None:
    lab = idle_lab
    lab.variables = {"TRIAL_SECONDS": "600"}
    lab.start_worker()
    run = lab.new_run()
    lab.running(tree_job_id(run), "trial-work")
    lab.engine.cancel(tree_job_id(run), "")
    assert (lab.status(run), lab.trees(run)) == ("FAILED", 0)
    assert lab.job(tree_job_id(run)).reason == "cancelled"
    assert lab.ended(lab.act("fine")).state is State.DONE


def test_queued_job_can_be_cancelled_without_worker(idle_lab: Lab) -> None:
    run = idle_lab.new_run()
    idle_lab.engine.cancel(tree_job_id(run), "a mistake")
    assert idle_lab.status(run) == "FAILED"
    idle_lab.start_worker()
    assert idle_lab.ended(idle_lab.act("fine")).state is State.DONE
    assert idle_lab.job(tree_job_id(run)).state is State.CANCELLED
    assert [*idle_lab.engine.logs(tree_job_id(run))] == []


def test_cancellation_that_was_interrupted_is_completed(idle_lab: Lab) -> None:
    """The command was killed after it asked the worker, before it told the database."""
    run = idle_lab.new_run()
    JobFolder(idle_lab.folder, tree_job_id(run)).cancel("")
    idle_lab.start_worker()
    assert idle_lab.ended(tree_job_id(run)).state is State.CANCELLED
    idle_lab.until(lambda: idle_lab.status(run) == "FAILED")


def test_retried_run_makes_one_tree(idle_lab: Lab) -> None:
    lab = idle_lab
    lab.variables = {"TRIAL_SECONDS": "600"}
    worker = lab.start_worker()
    run = lab.new_run()
    job = tree_job_id(run)
    lab.running(job, "trial-work")
    with pytest.raises(EngineError, match="has not ended"):
        lab.engine.retry(job)
    lab.engine.cancel(job, "")
    worker.terminate()
    worker.wait()
    lab.variables = {}
    lab.start_worker()
    assert lab.engine.retry(job) == job
    assert lab.status(run) == "STARTED"  # so that it cannot be deleted now
    lab.until(lambda: lab.job(job).state is State.DONE)
    found = lab.job(job)
    assert (lab.status(run), lab.trees(run), found.attempts, found.reason) == (
        "COMPLETED",
        1,
        2,
        "",
    )
    with pytest.raises(EngineError, match="nothing to retry"):
        lab.engine.retry(job)


def test_retried_job_starts_from_its_first_step(lab: Lab) -> None:
    job = lab.ended(lab.act("die:2"))
    assert job.state is State.FAILED
    lab.engine.retry(job.id)
    lab.until(lambda: lab.job(job.id).state is State.DONE)
    assert starts(lab, job.id, "trial-first") == 2


def test_unknown_job_is_reported(idle_lab: Lab) -> None:
    for action in (idle_lab.engine.retry, lambda job: idle_lab.engine.cancel(job, "")):
        with pytest.raises(EngineError, match="No such job: none"):
            action("none")
    with pytest.raises(EngineError, match="No such job: none"):
        next(iter(idle_lab.engine.logs("none")))


def test_logs_are_followed_until_the_job_ends(lab: Lab) -> None:
    gate = lab.folder.parent / "gate"
    job = lab.act(f"wait:{gate}", "followed")
    lab.says(job, "about to wait")
    lines = []
    for line in lab.engine.logs(job, follow=True):
        lines.append(line)
        if "about to wait" in line:
            gate.touch()
    assert "trial-last: finished" in lines[-1]
    assert lines[0].startswith("== ")
    assert "trial-first: started" in lines[0]


def test_only_documented_columns_of_dbos_are_needed() -> None:
    """The engine reads these tables by name; see DBOS's page on its system database."""
    from dbos._schemas.system_database import SystemSchema

    status = SystemSchema.workflow_status.c.keys()
    needed = {"workflow_uuid", "status", "name", "error", "created_at", "started_at_epoch_ms"}
    assert {*needed, "completed_at", "serialization"} <= {*status}
    assert {"workflow_uuid", "inputs"} <= {*SystemSchema.workflow_input.c.keys()}
    assert {"workflow_uuid", "error"} <= {*SystemSchema.workflow_output.c.keys()}
    steps = SystemSchema.operation_outputs.c.keys()
    assert {"workflow_uuid", "function_id", "function_name"} <= {*steps}


def test_job_shows_as_json(lab: Lab) -> None:
    job = lab.ended(lab.act("fine"))
    assert isinstance(job, Job)
    assert json.loads(json.dumps({**job.parameters})) == {"pathogen": "SC2", "file": "fine"}
    assert Kind(job.kind) is Kind.IMPORT_LINEAGES
