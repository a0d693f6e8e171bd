"""``jobs list``, ``show``, ``logs``, ``outputs``, and ``schedule list`` on a cloud target."""

from __future__ import annotations

import csv
import datetime as dt
import io
import threading
import time
from collections import Counter
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.workflows.engine.executions import Deployment
from aspencli.deployments.aws import Aws
from tests.jobs.conftest import NOW, Operator
from tests.jobs.lab import FILES, CloudLab

HOUR = dt.timedelta(hours=1)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return the number of requests to AWS by operation."""
    from botocore.client import BaseClient

    found: Counter[str] = Counter()
    usual = BaseClient._make_api_call

    def call(self: Any, name: str, options: Any) -> Any:
        found[name] += 1
        return usual(self, name, options)

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    return found


def fill(operator: Operator, count: int) -> None:
    """Add runs in all states, a third of them with executions that are known by name only."""
    cloud, prefix, group = operator.cloud, operator.prefix(), operator.group()
    ends = (
        ("COMPLETED", "SUCCEEDED"),
        ("FAILED", "FAILED"),
        ("STARTED", "RUNNING"),
        ("FAILED", "ABORTED"),
        ("STARTED", "TIMED_OUT"),
    )
    for number in range(count):
        started = NOW - 3 * MINUTE * (number + 1)
        status, ended = ends[number % len(ends)]
        end = started + MINUTE if status != "STARTED" else None
        if number % 3:
            run = operator.add_run(status, started, ended=end, name=f"Run {number}")
            arn = cloud.tree(
                run, prefix, started + dt.timedelta(seconds=1), group=group, status=ended
            )
        else:
            now = f"{started.replace(tzinfo=None)}".translate(str.maketrans(" :.", "---"))
            given = cloud.input("pangolin-ondemand-sfn", {"samples": ["a"]}, f"/{now}")
            name = f"{prefix}-ondemand-pangolin-{now}"
            arn = cloud.execution(name, given, started, status=ended)
        if ended == "RUNNING":
            cloud.job(arn, status="RUNNABLE" if number % 2 else "RUNNING", lines=None)


def test_list_has_one_line_for_each_job(operator: Operator) -> None:
    fill(operator, 30)
    known = len(operator.statuses()) - 20
    found = operator.json("jobs", "list")
    assert len(found) == 30 + known
    assert Counter(row["kind"] for row in found)["lineages"] == 10
    states = {row["state"] for row in found}
    assert {"done", "failed", "cancelled", "queued", "running", "stuck"} <= states
    trees = [row for row in found if row["name"] and row["name"].startswith("Run ")]
    assert len(trees) == 20
    assert all(row["job"] and "nextstrain" in row["job"] for row in trees)
    starts = [row["started"] for row in found if row["started"]]
    assert starts == sorted(starts, reverse=True)


def test_requests_of_list_grow_with_pages_only(operator: Operator, requests: Counter[str]) -> None:
    fill(operator, 10)
    requests.clear()
    operator.json("jobs", "list")
    few = dict(requests)
    prefix, group = operator.prefix(), operator.group()
    for number in range(290):
        started = NOW - HOUR * 2 - MINUTE * number
        run = operator.add_run("STARTED", started, name="More")
        operator.cloud.tree(run, prefix, started, group=group)
    requests.clear()
    found = operator.json("jobs", "list")
    assert len(found) >= 300
    assert dict(requests) == few
    assert "DescribeExecution" not in requests
    assert sum(requests.values()) <= 8


def test_list_filters(operator: Operator) -> None:
    fill(operator, 15)
    other = operator.add_run("FAILED", NOW - HOUR, group=2, name="Other group")
    old = operator.add_run("COMPLETED", NOW - 24 * 40 * HOUR, name="Old")

    def ids(*words: str) -> set[str]:
        return {row["id"] for row in operator.json("jobs", "list", *words)}

    assert {row["kind"] for row in operator.json("jobs", "list", "--kind", "lineages")} == {
        "lineages"
    }
    assert str(other) in ids("--state", "failed")
    assert str(other) in ids("--group", "2")
    assert str(other) not in ids("--group", "1")
    day = (NOW - 24 * 10 * HOUR).date().isoformat()
    assert str(old) in ids()
    assert str(old) not in ids("--since", day)
    assert len(ids("--limit", "4")) == 4
    assert {row["state"] for row in operator.json("jobs", "list", "--state", "stuck")} == {"stuck"}


def test_list_is_written_as_csv_and_as_table(operator: Operator) -> None:
    fill(operator, 3)
    shown = operator("jobs", "list", "--limit", "3", "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert len(rows) == 3
    assert {"id", "kind", "state", "group", "started", "job"} <= rows[0].keys()
    shown = operator("jobs", "list", "-o", "table")
    assert shown.code == 0, shown.err
    assert "Cannery" in shown.out or "Run 1" in shown.out


def test_execution_started_by_schedule_has_its_kind(operator: Operator) -> None:
    cloud = operator.cloud
    arn = cloud.execution(
        "5a0c_77", cloud.input("gisaid-sfn", {}, ""), NOW - HOUR, status="SUCCEEDED"
    )
    cloud.archive(arn)
    (found,) = [row for row in operator.json("jobs", "list") if row["id"] == "5a0c_77"]
    assert (found["kind"], found["state"]) == ("import-repository", "done")


def test_stacks_of_one_machine_are_told_apart(operator: Operator) -> None:
    cloud = operator.cloud
    own, other = Deployment("dev", "one"), Deployment("dev", "two")
    for deployment in (own, other):
        cloud.parametrize(deployment)
    prefix, group = operator.prefix(), operator.group()
    arns = {}
    for number, deployment in enumerate((own, other)):
        started = NOW - HOUR - number * MINUTE
        arns[deployment] = cloud.tree(
            1, prefix, started, group=group, deployment=deployment, status="FAILED"
        )
        cloud.archive(arns[deployment])
    running = cloud.tree(1, prefix, NOW - 2 * MINUTE, group=group, deployment=other)
    cloud.job(running, status="RUNNING", lines=None)
    operator.target = ("--env", "rdev", "--stack", "one")
    url = operator.database.url.render_as_string(hide_password=False)
    ended = operator(
        "jobs", "list", "--kind", "tree", "-o", "json", ASPEN_DATABASE_URL_RDEV=url,
        ASPEN_DATABASE_URL_STAGING="",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    jobs = {row["job"] for row in ended.json if row["job"]}
    assert jobs == {arns[own].rpartition(":")[2]}


def test_list_shows_rows_if_aws_does_not_answer(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, aspen_home: Any
) -> None:
    run = operator.add_run("STARTED", NOW - HOUR)
    broken = CloudLab("http://127.0.0.1:9")
    (aspen_home / "config" / "config.toml").write_text(broken.config())
    ended = operator("jobs", "list", "-o", "json")
    assert ended.code == 0, ended.err
    assert "AWS does not answer" in ended.err
    assert "Check your network" in ended.err
    (found,) = [row for row in ended.json if row["id"] == str(run)]
    assert found["state"] == "running"


def test_list_shows_executions_if_database_does_not_answer(operator: Operator) -> None:
    arn = operator.cloud.tree(7, "CZI", NOW - HOUR)
    address = "postgresql://u:p@127.0.0.1:9/x?connect_timeout=2"
    ended = operator("jobs", "list", "-o", "json", ASPEN_DATABASE_URL_STAGING=address)
    assert ended.code == 0, ended.err
    assert "Runs in the database are not shown" in ended.err
    assert [row["job"] for row in ended.json] == [arn.rpartition(":")[2]]


def test_list_without_deployed_jobs_says_so(operator: Operator) -> None:
    client = operator.cloud.client("ssm")
    from aspen.workflows.engine.executions import APPS

    client.delete_parameters(Names=[operator.cloud.deployment.parameters + app for app in APPS])
    ended = operator("jobs", "list")
    assert ended.code == 0, ended.err
    assert "No jobs are deployed" in ended.err


def test_show_has_input_and_addresses(operator: Operator) -> None:
    run = operator.add_run("FAILED", NOW - HOUR)
    arn = operator.cloud.tree(run, operator.prefix(), NOW - HOUR, status="FAILED", error="E")
    for key in (str(run), f"phylo-run-{run}", arn, arn.rpartition(":")[2]):
        (found,) = operator.json("jobs", "show", key)
        assert found["id"] == str(run)
        assert found["input"]["workflow_id"] == run
        assert found["execution_status"] == "FAILED"
        assert found["output"].startswith("s3://genepi-batch/swipe/nextstrain-ondemand-sfn/")


def test_show_compares_input_and_not_only_name(operator: Operator) -> None:
    """Two runs of a group began within a second; the start of the second one failed."""
    began = NOW - HOUR
    first = operator.add_run("STARTED", began)
    second = operator.add_run("STARTED", began + dt.timedelta(milliseconds=300))
    operator.cloud.tree(first, operator.prefix(), began + dt.timedelta(milliseconds=600))
    (found,) = operator.json("jobs", "show", str(first))
    assert found["input"]["workflow_id"] == first
    (found,) = operator.json("jobs", "show", str(second))
    assert (found["state"], found["job"]) == ("stuck", None)


def test_logs_of_one_attempt(operator: Operator) -> None:
    run = operator.add_run("FAILED", NOW - HOUR)
    arn = operator.cloud.tree(run, operator.prefix(), NOW - HOUR, status="FAILED")
    operator.cloud.job(arn, "RunSPOT", lines=["one", "two"])
    operator.cloud.job(arn, "RunEC2", lines=["three"], created=NOW)
    shown = operator("jobs", "logs", str(run))
    assert (shown.code, shown.out.split()) == (0, ["one", "two", "three"])
    shown = operator("jobs", "logs", str(run), "--step", "RunEC2")
    assert shown.out.split() == ["three"]
    shown = operator("jobs", "logs", str(run), "--step", "RunGPU")
    assert shown.code == 7
    assert "Attempts: RunSPOT, RunEC2" in shown.err


def test_followed_log_ends_with_job(
    operator: Operator, requests: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = operator.cloud
    run = operator.add_run("STARTED", NOW - HOUR)
    arn = cloud.tree(run, operator.prefix(), NOW - HOUR)
    job = cloud.job(arn, status="RUNNING", lines=["first"])
    stream = job["container"]["logStreamName"]
    monkeypatch.setattr("aspen.workflows.engine.stepfunctions._PAUSE_S", 0.05)

    def work() -> None:
        for line in ("second", "third"):
            seen = requests["GetLogEvents"]
            while requests["GetLogEvents"] < seen + 2:
                time.sleep(0.01)
            cloud.log(stream, [line], job["createdAt"] + 10)
        cloud._execution(arn).status = "SUCCEEDED"

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    shown = operator("jobs", "logs", str(run), "--follow")
    worker.join()
    assert shown.code == 0, shown.err
    assert shown.out.split() == ["first", "second", "third"]


def test_outputs_have_sizes(operator: Operator) -> None:
    run = operator.add_run("COMPLETED", NOW - HOUR)
    arn = operator.cloud.tree(
        run, operator.prefix(), NOW - HOUR, group=operator.group(), status="SUCCEEDED"
    )
    operator.cloud.archive(arn)
    place = operator.json("jobs", "outputs", str(run))
    assert all(row["bucket"] == "genepi-batch" for row in place)
    with operator.database.reading() as session:
        stem = session.scalar(
            sa.text(
                "SELECT coalesce(location, division, prefix) || '/OVERVIEW' FROM aspen.groups"
                " WHERE id = 1"
            )
        )
    operator.cloud.put(f"phylo_run/{stem}/{run}/ncov_aspen.json", "x" * 2048, FILES)
    operator.cloud.put(f"phylo_run/{stem}/{run}0/ncov_aspen.json", "another run", FILES)
    found = operator.json("jobs", "outputs", str(run))
    (tree,) = [row for row in found if row["bucket"] == FILES]
    assert (tree["bytes"], tree["size"]) == (2048, "2.0 kB")
    assert len(found) == 3


def test_schedule_lists_rules_of_own_stack(operator: Operator) -> None:
    events = operator.cloud.client("events")
    start = operator.cloud.deployment.rules
    rules = {
        f"{start}gisaid-sfn": "cron(0 1 ? * TUE *)",
        f"{start}pangolin-sfn": "cron(0 23 ? * * *)",
    }
    for name, schedule in {**rules, "genepi-gestaging-other-gisaid-sfn": "rate(1 day)"}.items():
        state = "DISABLED" if "pangolin" in name else "ENABLED"
        events.put_rule(Name=name, ScheduleExpression=schedule, State=state)
    found = operator.json("jobs", "schedule", "list")
    assert {row["name"]: row["enabled"] for row in found} == {
        "gisaid-sfn": True,
        "pangolin-sfn": False,
    }


def test_production_is_read_without_consent(operator: Operator) -> None:
    cloud = operator.cloud
    production = Deployment("geprod")
    cloud.parametrize(production)
    run = operator.add_run("STARTED", NOW - HOUR)
    cloud.tree(run, operator.prefix(), NOW - HOUR, deployment=production)
    operator.target = ("--env", "prod")
    url = operator.database.url.render_as_string(hide_password=False)
    env = {"ASPEN_DATABASE_URL_PROD": url, "ASPEN_DATABASE_URL_STAGING": ""}
    for words in (("list",), ("show", str(run)), ("why", str(run)), ("logs", str(run))):
        ended = operator("jobs", *words, **env)
        assert ended.code == 0, ended.err
    refused = operator("jobs", "cancel", str(run), "--yes")
    assert refused.code == 3
    assert "--confirm prod" in refused.err


def test_target_without_stage_says_what_to_set(operator: Operator, aspen_home: Any) -> None:
    config = aspen_home / "config" / "config.toml"
    config.write_text(config.read_text() + '\n[targets.lab]\ndatabase_url = "postgresql://x/y"\n')
    operator.target = ("--env", "lab")
    ended = operator("jobs", "list")
    assert ended.code == 2
    assert "secret_name" in ended.err


def test_every_call_has_a_purpose(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission, the message says what could not be done."""
    from botocore.exceptions import ClientError

    usual = Aws.use

    def use(self: Aws, what: str, service: str, work: Any) -> Any:
        def denied(_client: Any) -> Any:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "ListExecutions")

        return usual(self, what, service, denied if service == "stepfunctions" else work)

    monkeypatch.setattr(Aws, "use", use)
    ended = operator("jobs", "reconcile", "--dry-run")
    assert ended.code == 4, ended.err
    assert "Could not list the executions: AWS denied it" in ended.err
