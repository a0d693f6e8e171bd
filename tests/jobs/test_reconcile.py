"""``jobs reconcile`` settles exactly the rows that nothing will ever change, and can be undone."""

from __future__ import annotations

import datetime as dt
import json

import pytest
import sqlalchemy as sa

from aspencli.jobs import cloud as cloud_jobs
from aspencli.jobs.models import RunRow
from tests.jobs.conftest import NOW, Operator

HOUR = dt.timedelta(hours=1)


def plant(operator: Operator) -> tuple[set[int], set[int]]:
    """Add 20 runs that are stuck among others that are not; return the IDs of both."""
    cloud, prefix, group = operator.cloud, operator.prefix(), operator.group()
    stuck: set[int] = set()
    healthy: set[int] = set()

    def run(status: str, hours: float, ended: str | None, bucket: set[int]) -> str | None:
        started = NOW - hours * HOUR
        number = operator.add_run(status, started)
        bucket.add(number)
        if ended is None:
            return None
        return cloud.tree(
            number,
            prefix,
            started + dt.timedelta(seconds=1),
            group=group,
            status=ended,
            ended=None if ended == "RUNNING" else started + HOUR / 2,
        )

    for number, ended in enumerate(("FAILED", "ABORTED", "TIMED_OUT", "SUCCEEDED") * 3):
        run("STARTED", 2 + number, ended, stuck)  # 12 whose execution has ended
    for number in range(4):  # whose execution never existed
        run("STARTED", 1 + number / 3, None, stuck)
    for number in range(2):  # older than any execution can run
        run("STARTED", 80 + number, None, stuck)
    for number in range(2):  # older than Step Functions remembers, with an archive
        arn = run("STARTED", 24 * 100 + number, "FAILED", stuck)
        assert arn is not None
        cloud.archive(arn)
        cloud.forget(arn)
    for number in range(8):
        run("STARTED", 3.05 + number / 7, "RUNNING", healthy)
    run("STARTED", 0.05, None, healthy)  # its job may not have been started yet
    for status, hours in (("COMPLETED", 5.3), ("FAILED", 5.6)):
        for number in range(5):
            run(status, hours + number, "FAILED", healthy)
    assert len(stuck) == 20
    return stuck, healthy


def test_exactly_the_stuck_rows_are_settled_and_restored(operator: Operator) -> None:
    stuck, healthy = plant(operator)
    before = operator.statuses()

    planned = operator("jobs", "reconcile", "--dry-run", "-o", "json")
    assert planned.code == 0, planned.err
    assert {row["id"] for row in planned.json} == stuck
    assert {row["outcome"] for row in planned.json} == {"update"}
    assert operator.statuses() == before

    refused = operator("jobs", "reconcile")
    assert refused.code == 3
    done = operator("jobs", "reconcile", "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert {row["id"]: row["outcome"] for row in done.json} == dict.fromkeys(stuck, "updated")
    after = operator.statuses()
    assert {number for number, status in after.items() if before[number] != status} == stuck
    assert {after[number] for number in stuck} == {"FAILED"}
    assert all(operator.row(number)[1] is not None for number in stuck)
    assert all(after[number] == before[number] for number in healthy)

    again = operator("jobs", "reconcile", "--yes", "-o", "json")
    assert (again.code, again.json) == (0, [])
    assert "Nothing to change" in again.err

    (run, *_) = operator.json("history", "list")
    assert (run["command"], run["outcome"], run["to_change"]) == ("jobs reconcile", "written", 20)
    undone = operator("jobs", "undo", run["run"], "--yes", "-o", "json")
    assert undone.code == 0, undone.err
    assert operator.statuses() == before
    assert all(operator.row(number)[1] is None for number in stuck)
    same = operator("jobs", "undo", run["run"], "--yes", "-o", "json")
    assert same.code == 0, same.err
    assert {row["outcome"] for row in same.json} == {"unchanged"}


def test_end_is_that_of_the_execution(operator: Operator) -> None:
    started, ended = NOW - 5 * HOUR, NOW - 3 * HOUR
    run = operator.add_run("STARTED", started)
    operator.cloud.tree(run, operator.prefix(), started, status="FAILED", ended=ended)
    assert operator("jobs", "reconcile", "--yes").code == 0
    assert operator.row(run) == ("FAILED", ended.replace(tzinfo=None))


def test_run_with_tree_of_succeeded_execution_is_completed(operator: Operator) -> None:
    run = operator.add_run("STARTED", NOW - 5 * HOUR)
    operator.cloud.tree(run, operator.prefix(), NOW - 5 * HOUR, status="SUCCEEDED")
    with operator.database.writing().begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO aspen.entities (entity_type, producing_workflow_id, group_id)"
                " VALUES ('PHYLO_TREE', :run, 1)"
            ),
            {"run": run},
        )
    assert operator("jobs", "reconcile", "--yes").code == 0
    assert operator.row(run)[0] == "COMPLETED"


def test_run_of_another_stack_with_same_id_is_no_job_of_this_one(operator: Operator) -> None:
    from aspen.workflows.engine.executions import Deployment

    run = operator.add_run("STARTED", NOW - 5 * HOUR)
    other = Deployment("gestaging", "other")
    operator.cloud.tree(run, operator.prefix(), NOW - 5 * HOUR, deployment=other)
    (found,) = operator.json("jobs", "reconcile", "--dry-run")
    assert (found["id"], found["reason"]) == (run, "no execution exists")


def test_run_that_is_retried_after_the_plan_is_skipped(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = operator.add_run("STARTED", NOW - 5 * HOUR)
    usual = cloud_jobs.CloudJobs.live_runs
    calls = []

    def live(self: cloud_jobs.CloudJobs, rows: list[RunRow]) -> set[int]:
        calls.append(rows)
        if len(calls) == 2:
            operator.cloud.tree(run, operator.prefix(), NOW)
        return usual(self, rows)

    monkeypatch.setattr(cloud_jobs.CloudJobs, "live_runs", live)
    done = operator("jobs", "reconcile", "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert [row["outcome"] for row in done.json] == ["skipped"]
    assert operator.row(run) == ("STARTED", None)


def test_run_that_ended_after_the_plan_is_skipped(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = operator.add_run("STARTED", NOW - 5 * HOUR)
    other = operator.add_run("STARTED", NOW - 6 * HOUR)
    usual = cloud_jobs.CloudJobs.stuck

    def stuck(self: cloud_jobs.CloudJobs, *given: object) -> object:
        found = usual(self, *given)  # type: ignore[arg-type]  # passed on as given
        with operator.database.writing().begin() as session:
            query = "UPDATE aspen.workflows SET workflow_status = 'COMPLETED' WHERE id = :id"
            session.execute(sa.text(query), {"id": run})
        return found

    monkeypatch.setattr(cloud_jobs.CloudJobs, "stuck", stuck)
    done = operator("jobs", "reconcile", "--yes", "-o", "json")
    assert {row["id"]: row["outcome"] for row in done.json} == {run: "skipped", other: "updated"}
    assert operator.row(run)[0] == "COMPLETED"


def test_undo_skips_rows_that_were_changed_since(operator: Operator) -> None:
    run = operator.add_run("STARTED", NOW - 5 * HOUR)
    assert operator("jobs", "reconcile", "--yes").code == 0
    (entry, *_) = operator.json("history", "list")
    with operator.database.writing().begin() as session:
        query = "UPDATE aspen.workflows SET workflow_status = 'COMPLETED' WHERE id = :id"
        session.execute(sa.text(query), {"id": run})
    undone = operator("jobs", "undo", entry["run"], "--yes", "-o", "json")
    assert undone.code == 0, undone.err
    assert [row["outcome"] for row in undone.json] == ["skipped"]
    assert operator.row(run)[0] == "COMPLETED"


def test_damaged_undo_file_is_refused(operator: Operator, tmp_path: object) -> None:
    operator.add_run("STARTED", NOW - 5 * HOUR)
    assert operator("jobs", "reconcile", "--yes").code == 0
    (entry, *_) = operator.json("history", "list")
    (shown,) = operator.json("history", "show", entry["run"])
    path = shown["undo_file"]
    with open(path) as file:  # noqa: PTH123 - the path of a JSON value
        lines = file.read().splitlines()
    with open(path, "w") as file:  # noqa: PTH123 - same
        file.write(lines[0] + "\n")
    ended = operator("jobs", "undo", path, "--yes")
    assert ended.code == 2
    assert "damaged" in ended.err
    assert json.loads(lines[1])["before"] == "STARTED"
