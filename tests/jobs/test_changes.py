"""``jobs start``, ``cancel``, and ``retry`` on a cloud target."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import sqlalchemy as sa

from tests.jobs.conftest import NOW, Operator

HOUR = dt.timedelta(hours=1)


def executions(operator: Operator) -> dict[str, dict[str, Any]]:
    """Return the description of each execution, by name."""
    functions = operator.cloud.client("stepfunctions")
    pages = functions.get_paginator("list_executions").paginate(
        stateMachineArn=operator.cloud.machine
    )
    return {
        one["name"]: functions.describe_execution(executionArn=one["executionArn"])
        for page in pages
        for one in page["executions"]
    }


def running(operator: Operator, **more: Any) -> tuple[int, str]:
    run = operator.add_run("STARTED", NOW - HOUR)
    arn = operator.cloud.tree(run, operator.prefix(), NOW - HOUR, group=operator.group(), **more)
    return run, arn


# Cancel


def test_cancel_stops_execution_and_job_and_fails_the_run(operator: Operator) -> None:
    run, arn = running(operator)
    job = operator.cloud.job(arn, status="RUNNING", lines=["align"])
    before = operator.row(run)
    planned = operator("jobs", "cancel", str(run), "--dry-run", "-o", "json")
    assert [row["outcome"] for row in planned.json] == ["update"]
    assert operator("jobs", "cancel", str(run)).code == 3
    assert operator.row(run) == before

    done = operator("jobs", "cancel", str(run), "--reason", "wrong samples", "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert [(row["state"], row["outcome"]) for row in done.json] == [("cancelled", "updated")]
    assert operator.row(run)[0] == "FAILED"
    assert operator.row(run)[1] is not None
    assert executions(operator)[arn.rpartition(":")[2]]["status"] == "ABORTED"
    assert (job["status"], job["statusReason"]) == ("FAILED", "wrong samples")
    (entry, *_) = operator.json("history", "list")
    assert (entry["command"], entry["outcome"]) == ("jobs cancel", "written")
    (listed,) = [row for row in operator.json("jobs", "list") if row["id"] == str(run)]
    assert listed["state"] == "cancelled"

    same = operator("jobs", "cancel", str(run), "--yes", "-o", "json")
    assert same.code == 0, same.err
    assert [row["outcome"] for row in same.json] == ["unchanged"]
    assert "Nothing to change: the job has ended." in same.err


def test_cancel_of_job_without_row(operator: Operator) -> None:
    given = operator.cloud.input("pangolin-ondemand-sfn", {"samples": ["a"]}, "/x")
    operator.cloud.execution("CZI-ondemand-pangolin-2026-01-01", given, NOW - HOUR)
    done = operator("jobs", "cancel", "CZI-ondemand-pangolin-2026-01-01", "--yes")
    assert done.code == 0, done.err
    assert [each["status"] for each in executions(operator).values()] == ["ABORTED"]


def test_cancel_of_stuck_run_points_to_reconcile(operator: Operator) -> None:
    run, _arn = running(operator, status="FAILED")
    ended = operator("jobs", "cancel", str(run), "--yes")
    assert ended.code == 7
    assert "jobs reconcile" in ended.err
    assert operator.row(run) == ("STARTED", None)


# Retry


def failed(operator: Operator) -> tuple[int, str]:
    run, arn = running(operator, status="FAILED")
    with operator.database.writing().begin() as session:
        query = "UPDATE aspen.workflows SET workflow_status = 'FAILED' WHERE id = :id"
        session.execute(sa.text(query), {"id": run})
    return run, arn.rpartition(":")[2]


def test_retry_repeats_the_input_for_the_same_run(operator: Operator) -> None:
    run, name = failed(operator)
    planned = operator("jobs", "retry", str(run), "--dry-run", "-o", "json")
    assert [row["outcome"] for row in planned.json] == ["update"]
    assert len(executions(operator)) == 1
    done = operator("jobs", "retry", str(run), "--yes", "-o", "json")
    assert done.code == 0, done.err
    found = executions(operator)
    (new,) = found.keys() - {name}
    assert new == f"{name}-retry-2"
    assert done.json[0]["job"] == new
    first, second = (json.loads(found[one]["input"]) for one in (name, new))
    assert second.pop("OutputPrefix") == first.pop("OutputPrefix") + "-retry-2"
    assert second == first
    assert operator.row(run) == ("STARTED", None)
    (listed,) = [row for row in operator.json("jobs", "list") if row["id"] == str(run)]
    assert (listed["job"], listed["state"]) == (new, "queued")
    assert len(operator.json("jobs", "list", "--kind", "tree")) == len(
        {row["id"] for row in operator.json("jobs", "list", "--kind", "tree")}
    )


def test_second_retry_is_refused_while_the_first_one_runs(operator: Operator) -> None:
    run, _name = failed(operator)
    assert operator("jobs", "retry", str(run), "--yes").code == 0
    again = operator("jobs", "retry", str(run), "--yes")
    assert again.code == 7
    assert "has not ended" in again.err
    assert len(executions(operator)) == 2


def test_third_attempt_follows_the_second(operator: Operator) -> None:
    run, name = failed(operator)
    assert operator("jobs", "retry", str(run), "--yes").code == 0
    second = operator.cloud._execution(operator.cloud.machine.replace(
        ":stateMachine:", ":execution:") + f":{name}-retry-2")  # fmt: skip
    second.status, second.stop_date = "FAILED", NOW
    assert operator("jobs", "retry", str(run), "--yes").code == 0
    found = executions(operator)
    assert set(found) == {name, f"{name}-retry-2", f"{name}-retry-3"}
    output = json.loads(found[f"{name}-retry-3"]["input"])["OutputPrefix"]
    assert output.count("-retry-") == 1


def test_retry_never_builds_a_second_tree(operator: Operator) -> None:
    run, _arn = running(operator, status="SUCCEEDED")
    with operator.database.writing().begin() as session:
        query = "UPDATE aspen.workflows SET workflow_status = 'COMPLETED' WHERE id = :id"
        session.execute(sa.text(query), {"id": run})
    ended = operator("jobs", "retry", str(run), "--yes")
    assert ended.code == 7
    assert "is done" in ended.err
    assert len(executions(operator)) == 1


def test_retry_of_run_that_was_completed_meanwhile_starts_nothing(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.cli.commands import jobs_changes

    run, _name = failed(operator)
    usual = jobs_changes._retry_run

    def late(*given: Any) -> str:
        with operator.database.writing().begin() as session:
            query = "UPDATE aspen.workflows SET workflow_status = 'COMPLETED' WHERE id = :id"
            session.execute(sa.text(query), {"id": run})
        return usual(*given)

    monkeypatch.setattr(jobs_changes, "_retry_run", late)
    ended = operator("jobs", "retry", str(run), "--yes")
    assert ended.code == 7
    assert "nothing was written" in ended.err
    assert len(executions(operator)) == 1
    assert operator.row(run)[0] == "COMPLETED"


def test_retry_that_aws_refuses_leaves_the_run_as_it_was(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspen.workflows.engine import EngineError
    from aspen.workflows.engine.stepfunctions import StepFunctionsEngine

    run, _name = failed(operator)
    before = operator.row(run)

    def refuse(*_given: Any) -> str:
        raise EngineError("AWS refused it.", "Try again.")

    monkeypatch.setattr(StepFunctionsEngine, "start_input", refuse)
    ended = operator("jobs", "retry", str(run), "--yes")
    assert ended.code == 7
    assert "AWS refused it" in ended.err
    assert operator.row(run) == before


def test_retry_of_run_without_execution_says_what_to_do(operator: Operator) -> None:
    run = operator.add_run("FAILED", NOW - HOUR)
    ended = operator("jobs", "retry", str(run), "--yes")
    assert ended.code == 7
    assert "phylo-runs create" in ended.err


# Start


def test_start_qc_sends_the_input_of_the_workflow(operator: Operator) -> None:
    done = operator(
        *("jobs", "start", "qc", "--pathogen", "SC2", "--group", "1", "--stale", "--yes"),
        *("-o", "json"),
    )
    assert done.code == 0, done.err
    ((name, found),) = executions(operator).items()
    assert done.json[0]["id"] == name
    assert name.startswith(f"{operator.prefix()}-ondemand-SC2-lineage-qc-")
    given = json.loads(found["input"])
    assert given["Input"]["Run"] == {
        **operator.cloud.parameter("lineage-qc-ondemand-sfn")["Input"]["Run"],
        "pathogen_slug": "SC2",
        "run_type": "refresh-stale",
        "sample_ids": [],
    }
    (listed,) = [row for row in operator.json("jobs", "list") if row["id"] == name]
    assert (listed["kind"], listed["pathogen"], listed["group"]) == ("qc", "SC2", operator.group())


def test_start_lineages_names_samples_by_public_identifier(operator: Operator) -> None:
    query = (
        "SELECT id, private_identifier, public_identifier FROM aspen.samples ORDER BY id LIMIT 3"
    )
    with operator.database.reading() as session:
        one, two, three = session.execute(sa.text(query)).all()
    keys = (str(one[0]), two[1], three[2], str(one[0]))
    words = [word for key in keys for word in ("--sample", key)]
    done = operator("jobs", "start", "lineages", "--pathogen", "SC2", *words, "--yes")
    assert done.code == 0, done.err
    ((_name, found),) = executions(operator).items()
    run = json.loads(found["input"])["Input"]["Run"]
    assert run["samples"] == [one[2], two[2], three[2]]
    assert "pathogen_slug" not in run


def test_start_import_sends_the_parameter_of_the_schedule(operator: Operator) -> None:
    words = ("jobs", "start", "import-repository", "--pathogen", "SC2")
    assert operator(*words, "--metadata", "https://x.example/a.zst", "--yes").code == 0
    ((_name, found),) = executions(operator).items()
    given = json.loads(found["input"])
    assert given["RUN_WDL_URI"].endswith("gisaid.wdl-v0.0.1.wdl")
    assert given["Input"]["Run"]["upstream_ndjson_url"] == "https://x.example/a.zst"
    assert "StateMachineArn" not in given


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("tree",), 2, "phylo-runs create"),
        (("qc",), 2, "Choose the samples in one way"),
        (("qc", "--stale", "--all"), 2, "Choose the samples in one way"),
        (("qc", "--sample", "no-such"), 6, "No such sample: no-such"),
        (("qc", "--stale", "--metadata", "x"), 2, "--metadata does not apply"),
        (("qc", "--stale", "--pathogen", "XYZ"), 6, "XYZ"),
        (("import-repository", "--pathogen", "HCV"), 7, "No workflow imports"),
        (("import-lineages",), 2, "needs --file"),
        (("import-locations", "--file", "x.csv"), 7, "cannot be started on a cloud deployment"),
        (("import-locations", "--file", "x.csv", "--stale"), 2, "--stale does not apply"),
    ],
)
def test_start_of_what_cannot_run_is_refused(
    operator: Operator, words: tuple[str, ...], code: int, says: str
) -> None:
    ended = operator("jobs", "start", *words, "--yes")
    assert ended.code == code, ended.err
    assert says in ended.err
    assert not executions(operator)
