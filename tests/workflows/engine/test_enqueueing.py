"""The service on a laptop: it enqueues jobs with what they are about, and loads little for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.engine import Job, State, tree_job_id
from tests.api.conftest import Api, ApiFactory, make_api, provider
from tests.workflows.engine.conftest import Lab

__all__ = ["make_api", "provider"]

RUNS = "/v2/orgs/1/pathogens/SC2/phylo_runs/"
SAMPLES = "/v2/orgs/1/pathogens/{}/samples/"


@pytest.fixture
def api(idle_lab: Lab, make_api: ApiFactory) -> Api:
    return make_api(idle_lab.database, JOBS_ENGINE="local")


def post_run(api: Api) -> Any:
    with api.database.reading() as session:
        name = session.scalar(
            sa.text(
                "SELECT s.public_identifier FROM aspen.samples s"
                " JOIN aspen.uploaded_pathogen_genomes g ON g.sample_id = s.id"
                " WHERE s.submitting_group_id = 1 ORDER BY s.id LIMIT 1"
            )
        )
    body = {"name": "New", "tree_type": "OVERVIEW", "samples": [name]}
    return api("POST", RUNS, "member", json=body)


def new_samples(count: int) -> list[dict[str, Any]]:
    return [
        {
            "sample": {
                "private": False,
                "private_identifier": f"new-{number}",
                "collection_date": "2023-01-05",
                "location_id": 1,
            },
            "pathogen_genome": {"sequence": "ACGT" * 300},
        }
        for number in range(count)
    ]


def jobs(lab: Lab) -> list[Job]:
    return [*lab.engine.jobs()]


def test_run_is_enqueued_with_its_row(idle_lab: Lab, api: Api) -> None:
    answer = post_run(api)
    assert answer.status_code == 200, answer.text
    run = answer.json()["id"]
    (job,) = jobs(idle_lab)
    assert (job.id, job.kind, job.state) == (tree_job_id(run), "tree", State.QUEUED)
    assert job.parameters == {"run_id": run}


def test_run_is_built_and_cannot_be_deleted_meanwhile(idle_lab: Lab, api: Api) -> None:
    lab = idle_lab
    run = post_run(api).json()["id"]
    path = f"{RUNS}{run}"
    refused = api("DELETE", path, "member")
    assert (refused.status_code, "in-progress" in refused.text) == (400, True)  # queued
    lab.variables = {"TRIAL_SECONDS": "2"}
    lab.start_worker()
    lab.running(tree_job_id(run), "trial-work")
    assert api("DELETE", path, "member").status_code == 400  # running
    assert lab.ended(tree_job_id(run)).state is State.DONE
    (row,) = [one for one in api("GET", RUNS, "member").json()["phylo_runs"] if one["id"] == run]
    assert (row["workflow_status"], row["phylo_tree"]["name"]) == ("COMPLETED", "New")
    assert api("DELETE", path, "member").status_code == 200
    assert lab.trees(run) == 0


def test_cancelled_run_can_be_deleted(idle_lab: Lab, api: Api) -> None:
    lab = idle_lab
    lab.variables = {"TRIAL_SECONDS": "600"}
    lab.start_worker()
    run = post_run(api).json()["id"]
    lab.running(tree_job_id(run), "trial-work")
    lab.engine.cancel(tree_job_id(run), "")
    assert api("DELETE", f"{RUNS}{run}", "member").status_code == 200


def test_refused_run_leaves_no_job(idle_lab: Lab, api: Api) -> None:
    body = {"name": "New", "tree_type": "OVERVIEW", "samples": ["none"]}
    assert api("POST", RUNS, "member", json=body).status_code == 400
    assert jobs(idle_lab) == []


@pytest.mark.parametrize(("slug", "kinds"), [("SC2", {"qc", "lineages"}), ("MPX", {"qc"})])
def test_new_samples_are_enqueued_for_analysis(
    idle_lab: Lab, api: Api, slug: str, kinds: set[str]
) -> None:
    answer = api("POST", SAMPLES.format(slug), "member", json=new_samples(3))
    assert answer.status_code == 200, answer.text
    ids = sorted(row["id"] for row in answer.json()["samples"])
    found = jobs(idle_lab)
    assert {job.kind for job in found} == kinds
    assert len({job.id for job in found}) == len(kinds)
    for job in found:
        assert sorted(job.parameters["sample_ids"]) == ids
        assert job.parameters["pathogen"] == slug
        assert job.parameters["run_type"] == "specified-ids-only"
    again = api("POST", SAMPLES.format(slug), "member", json=new_samples(1))
    assert again.status_code == 400
    assert len(jobs(idle_lab)) == len(kinds)


def test_run_before_the_first_worker_waits_for_it(
    roles: Database,
    make_api: ApiFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = make_api(roles, JOBS_ENGINE="local")
    answer = post_run(api)
    assert answer.status_code == 200, answer.text
    assert answer.json()["workflow_status"] == "STARTED"
    created = api("POST", SAMPLES.format("SC2"), "member", json=new_samples(1))
    assert created.status_code == 200
    assert "No jobs for 1 new samples" in caplog.text


def test_service_and_commands_load_no_engine() -> None:
    source = """
import sys
import aspen.api.main, aspen.local.services, aspencli.cli.commands.phylo
import aspen.api.jobs, aspencli.cli.waiting
heavy = {"augur", "dbos", "edlib", "numpy", "piqtree", "psycopg"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
