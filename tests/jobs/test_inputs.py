"""Every execution that is started has exactly the inputs that its workflow declares."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.aws.content import machine_arn
from tests.api.conftest import Api, ApiFactory, Cloud, _cloud, aws, make_api, provider
from tests.jobs.conftest import Operator

__all__ = ["_cloud", "aws", "make_api", "provider"]

COMMON = {"aws_region", "docker_image_id", "genepi_config_secret_name", "remote_dev_prefix"}
OUTER = {
    *("Input", "OutputPrefix", "RUN_WDL_URI"),
    *("RunEC2Memory", "RunEC2Vcpu", "RunSPOTMemory", "RunSPOTVcpu"),
}
DECLARED: dict[str, dict[str, type]] = {
    "nextstrain-ondemand": {"pathogen_slug": str, "workflow_id": int, "s3_filestem": str},
    "pangolin-ondemand": {"samples": list},
    "lineage-qc-ondemand": {"pathogen_slug": str, "run_type": str, "sample_ids": list},
    "gisaid": {"upstream_ndjson_url": str, "upstream_aligned_url": str},
    "genbank-mpx": {"genbank_metadata_url": str, "genbank_alignment_url": str},
    "pangolin": {},
}
"""The inputs of each workflow besides the four common ones."""
OPTIONAL = {"gisaid", "genbank-mpx"}
"""Workflows with defaults for their inputs."""


def check(given: dict[str, Any], workflow: str) -> dict[str, Any]:
    """Check the input of an execution, and return the values of its workflow's own inputs."""
    assert given.keys() == OUTER
    assert given["Input"].keys() == {"Run"}
    run = given["Input"]["Run"]
    declared = DECLARED[workflow]
    own = {name: value for name, value in run.items() if name not in COMMON}
    assert run.keys() >= COMMON, "a required input is missing"
    assert own.keys() <= declared.keys(), "an input is unknown"
    if workflow not in OPTIONAL:
        assert own.keys() == declared.keys(), "a required input is missing"
    assert all(isinstance(value, declared[name]) for name, value in own.items()), own
    assert given["OutputPrefix"].startswith("s3://")
    assert len(json.dumps(given)) < 256 * 1024
    return own


@pytest.fixture
def service(make_api: ApiFactory, roles: Database, aws: Cloud) -> Api:
    return make_api(roles, **aws.settings)


def inputs(cloud: Cloud, job: str) -> list[dict[str, Any]]:
    functions = cloud.client("stepfunctions")
    pages = functions.get_paginator("list_executions").paginate(stateMachineArn=machine_arn(job))
    arns = [one["executionArn"] for page in pages for one in page["executions"]]
    return [json.loads(functions.describe_execution(executionArn=arn)["input"]) for arn in arns]


def started_since(cloud: Cloud, job: str, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [given for given in inputs(cloud, job) if given not in before]


@pytest.mark.parametrize("tree_type", ["OVERVIEW", "TARGETED", "NON_CONTEXTUALIZED"])
def test_tree_started_by_the_service(service: Api, aws: Cloud, tree_type: str) -> None:
    path = "/v2/orgs/1/pathogens/SC2/"
    before = inputs(aws, "nextstrain-ondemand-sfn")
    (sample, *_) = service("GET", f"{path}samples/", "gadmin").json()["samples"]
    wanted = {"name": "A", "tree_type": tree_type, "samples": [sample["private_identifier"]]}
    answer = service("POST", f"{path}phylo_runs/", "gadmin", json=wanted)
    assert answer.status_code == 200, answer.text
    (given,) = started_since(aws, "nextstrain-ondemand-sfn", before)
    own = check(given, "nextstrain-ondemand")
    assert own["workflow_id"] == answer.json()["id"]
    assert own["s3_filestem"].endswith(f"/{tree_type}")


@pytest.mark.parametrize("slug", ["SC2", "MPX"])
def test_jobs_started_for_new_samples(service: Api, aws: Cloud, slug: str) -> None:
    workflows = {"lineage-qc-ondemand-sfn": "lineage-qc-ondemand"}
    if slug == "SC2":
        workflows["pangolin-ondemand-sfn"] = "pangolin-ondemand"
    before = {job: inputs(aws, job) for job in workflows}
    one = f"I-{uuid.uuid4().hex[:8]}"
    with service.database.reading() as session:
        query = "SELECT min(id) FROM aspen.locations WHERE country = 'USA'"
        place = session.scalar(sa.text(query))
    sample = {
        "private_identifier": one,
        "public_identifier": f"hCoV-19/USA/{one}/2023",
        "collection_date": "2023-02-01",
        "location_id": place,
        "private": True,
    }
    wanted = [{"sample": sample, "pathogen_genome": {"sequence": "ACGTACGTACGT" * 2_000}}]
    answer = service("POST", f"/v2/orgs/1/pathogens/{slug}/samples/", "gadmin", json=wanted)
    assert answer.status_code == 200, answer.text
    (created,) = answer.json()["samples"]
    # They are started after the answer.
    deadline = time.monotonic() + 120
    found: dict[str, list[dict[str, Any]]] = {}
    while not all(found.get(job) for job in workflows) and time.monotonic() < deadline:
        found = {job: started_since(aws, job, before[job]) for job in workflows}
        time.sleep(0.05)
    own = {job: check(given, workflows[job]) for job, (given,) in found.items()}
    assert own["lineage-qc-ondemand-sfn"] == {
        "pathogen_slug": slug,
        "run_type": "specified-ids-only",
        "sample_ids": [created["id"]],
    }
    if slug == "SC2":
        assert own["pangolin-ondemand-sfn"]["samples"] == [created["public_identifier"]]


def latest(operator: Operator) -> dict[str, Any]:
    functions = operator.cloud.client("stepfunctions")
    found = functions.list_executions(stateMachineArn=operator.cloud.machine)["executions"]
    newest = max(found, key=lambda one: one["startDate"])
    described = functions.describe_execution(executionArn=newest["executionArn"])
    given: dict[str, Any] = json.loads(described["input"])
    return given


@pytest.mark.parametrize(
    ("words", "workflow", "own"),
    [
        (
            ("qc", "--pathogen", "MPX", "--stale"),
            "lineage-qc-ondemand",
            {"pathogen_slug": "MPX", "run_type": "refresh-stale", "sample_ids": []},
        ),
        (
            ("qc", "--pathogen", "SC2", "--all"),
            "lineage-qc-ondemand",
            {"pathogen_slug": "SC2", "run_type": "force-all", "sample_ids": []},
        ),
        (("lineages", "--pathogen", "SC2", "--stale"), "pangolin", {}),
        (("import-repository", "--pathogen", "SC2"), "gisaid", {}),
        (
            (
                *("import-repository", "--pathogen", "MPX", "--metadata", "https://x/m"),
                *("--sequences", "https://x/a"),
            ),
            "genbank-mpx",
            {"genbank_metadata_url": "https://x/m", "genbank_alignment_url": "https://x/a"},
        ),
    ],
)
def test_job_started_by_the_command(
    operator: Operator, words: tuple[str, ...], workflow: str, own: dict[str, Any]
) -> None:
    done = operator("jobs", "start", *words, "--yes")
    assert done.code == 0, done.err
    given = latest(operator)
    assert check(given, workflow) == own
    assert given["RUN_WDL_URI"].rpartition("/")[2] == f"{workflow}.wdl-v0.0.1.wdl"


def test_retried_job_has_the_same_inputs(operator: Operator) -> None:
    from tests.jobs.conftest import NOW

    run = operator.add_run("FAILED", NOW)
    operator.cloud.tree(run, operator.prefix(), NOW, status="FAILED")
    done = operator("jobs", "retry", str(run), "--yes")
    assert done.code == 0, done.err
    assert check(latest(operator), "nextstrain-ondemand")["workflow_id"] == run


@pytest.mark.parametrize(
    "change", [{"extra": 1}, {"workflow_id": "7"}, {"pathogen_slug": None}], ids=str
)
def test_check_finds_wrong_inputs(operator: Operator, change: dict[str, Any]) -> None:
    own = {"pathogen_slug": "SC2", "workflow_id": 7, "s3_filestem": "x/OVERVIEW"}
    given = operator.cloud.input("nextstrain-ondemand-sfn", own, "/x")
    check(given, "nextstrain-ondemand")
    run = given["Input"]["Run"]
    given["Input"]["Run"] = {k: v for k, v in {**run, **change}.items() if v is not None}
    with pytest.raises(AssertionError):
        check(given, "nextstrain-ondemand")
