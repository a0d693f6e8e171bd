"""Phylogenetic runs: listing, starting with their job or not at all, renaming, and deleting."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from aspen.api.schemas.phylo_runs import PhyloRunsListResponse
from aspen.database.engine import Database
from aspen.database.models import (
    AlignedRepositoryData,
    Base,
    Entity,
    EntityType,
    Group,
    PhyloRun,
    PhyloTree,
    Sample,
    UploadedPathogenGenome,
    WorkflowStatus,
)
from aspen.local.aws.content import machine_arn
from aspen.local.seed.phylo import strains
from tests.api.conftest import Api, ApiFactory, Cloud

PATH = "/v2/orgs/{}/pathogens/{}/phylo_runs/"
SC2, MPX, HCV = PATH.format(1, "SC2"), PATH.format(1, "MPX"), PATH.format(1, "HCV")
MACHINE = machine_arn("nextstrain-ondemand-sfn")
COMMON = {
    "aws_region": "us-west-2",
    "genepi_config_secret_name": "genepi-config",
    "remote_dev_prefix": "",
}
COPIED = ("RUN_WDL_URI", "RunEC2Memory", "RunEC2Vcpu", "RunSPOTMemory", "RunSPOTVcpu")
TABLES = (
    *("workflows", "phylo_runs", "entities", "phylo_trees"),
    *("phylo_tree_samples", "workflow_inputs"),
)


@pytest.fixture
def lab(make_api: ApiFactory, roles: Database, aws: Cloud) -> Api:
    return make_api(roles, **aws.settings)


def runs(api: Api, who: str = "member", path: str = SC2) -> list[dict[str, Any]]:
    answer = api("GET", path, who)
    assert answer.status_code == 200, answer.text
    PhyloRunsListResponse.model_validate(answer.json())
    found: list[dict[str, Any]] = answer.json()["phylo_runs"]
    return found


def run_that_is(api: Api, status: str) -> int:
    return next(int(run["id"]) for run in runs(api) if run["workflow_status"] == status)


def start(api: Api, *samples: str, path: str = SC2, **changes: Any) -> httpx.Response:
    body = {"name": "New", "tree_type": "TARGETED", "samples": samples, **changes}
    return api("POST", path, "member", json=body)


def executions(aws: Cloud) -> dict[str, dict[str, Any]]:
    """Return the description of each execution, by its ARN."""
    states = aws.client("stepfunctions")
    found = states.list_executions(stateMachineArn=MACHINE)["executions"]
    return {
        each["executionArn"]: states.describe_execution(executionArn=each["executionArn"])
        for each in found
    }


def counts(api: Api) -> dict[str, int]:
    with api.database.reading() as session:
        return {
            name: session.scalar(
                sa.select(sa.func.count()).select_from(Base.metadata.tables[f"aspen.{name}"])
            )
            or 0
            for name in TABLES
        }


# Listing


def test_runs_are_listed_with_their_trees(shared_roles: Api) -> None:
    found = runs(shared_roles)
    assert [run["id"] for run in found] == sorted(run["id"] for run in found)
    first = found[0]
    assert first["start_datetime"] == "2023-01-09T17:02:11+00:00"
    assert first["end_datetime"] == "2023-01-09T17:41:50+00:00"
    assert (first["name"], first["tree_type"]) == ("Redwood County, overview", "OVERVIEW")
    assert first["phylo_tree"]["name"] == first["name"]
    assert (first["pathogen"]["slug"], first["contextual_data_source"]) == ("SC2", "GISAID")
    waiting = next(run for run in found if run["workflow_status"] == "STARTED")
    assert (waiting["end_datetime"], waiting["phylo_tree"]) == (None, None)


def test_runs_without_user_or_name_are_listed(lab: Api) -> None:
    number = run_that_is(lab, "FAILED")
    with lab.database.begin() as session:
        run = session.get_one(PhyloRun, number)
        run.user_id = run.start_datetime = run.name = None
    found = next(each for each in runs(lab) if each["id"] == number)
    assert (found["user"], found["start_datetime"], found["name"]) == (None, None, None)


# Starting


def test_run_starts_with_requested_samples_and_arguments(lab: Api, aws: Cloud) -> None:
    with lab.database.reading() as session:
        own = session.scalars(sa.select(Sample).where(Sample.submitting_group_id == 1)).first()
        assert own
        assert own.uploaded_pathogen_genome
        genome = own.uploaded_pathogen_genome.entity_id
    first, second, third = strains()[:3]
    arguments = {"filter_start_date": "2022-3-1", "filter_pango_lineages": ["BA.2* / 21L"]}
    names = [own.private_identifier, own.public_identifier, first.strain, second.isl]
    answer = start(
        lab, *names, f"hCoV-19/{third.strain}", tree_type="Overview", template_args=arguments
    )
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert runs(lab)[-1] == made
    assert (made["workflow_status"], made["tree_type"]) == ("STARTED", "OVERVIEW")
    assert made["template_args"] == {**arguments, "filter_start_date": "2022-03-01"}
    assert made["group"]["id"] == 1
    with lab.database.reading() as session:
        run = session.get_one(PhyloRun, made["id"])
        assert run.gisaid_ids == sorted([first.strain, second.strain, third.strain])
        dump = next(entity for entity in run.inputs if isinstance(entity, AlignedRepositoryData))
        assert dump.public_repository.name == made["contextual_data_source"] == "GenBank"
        assert {entity.id for entity in run.inputs} == {genome, dump.entity_id}


def test_job_of_run_receives_its_workflow_inputs(lab: Api, aws: Cloud) -> None:
    with lab.database.begin() as session:
        group = session.get_one(Group, 1)
        group.prefix, group.location = "RC/PHL é", "San Mateo County"
        name = group.name
    made = start(lab, tree_type="targeted").json()
    ((told, execution),) = [
        (json.loads(each["input"]), each["name"])
        for each in executions(aws).values()
        if f'"workflow_id": {made["id"]},' in each["input"].replace("}", ",")
        and "San Mateo County" in each["input"]
    ]
    assert told["Input"]["Run"] == {
        **COMMON,
        "docker_image_id": "genepi-nextstrain:local",
        "s3_filestem": "San Mateo County/TARGETED",
        "pathogen_slug": "SC2",
        "workflow_id": made["id"],
    }
    prefix, _, now = told["OutputPrefix"].rpartition("/")
    assert prefix == f"s3://genepi-batch/nextstrain-ondemand-sfn/results/{name}"
    assert execution == f"RC-PHL---ondemand-nextstrain-{re.sub('[^0-9T]', '-', now)}"
    assert set(told) == {"Input", "OutputPrefix", *COPIED}


def test_run_requires_aligned_dump_of_its_pathogen(lab: Api) -> None:
    assert start(lab, path=MPX).json()["contextual_data_source"] == "GenBank"
    refused = start(lab, path=HCV)
    assert refused.status_code == 400
    assert refused.json() == {"error": "No aligned upstream dump for run", "pathogen": "HCV"}


def test_run_with_unknown_samples_lists_them_once_in_request_order(lab: Api) -> None:
    before = counts(lab)
    refused = start(lab, "zzz", "RCPHL-0000001", "aaa", "zzz")
    assert refused.json() == {"error": "missing ids", "ids": ["zzz", "aaa"]}
    assert counts(lab) == before


def test_run_with_private_identifier_of_another_group_is_rejected(lab: Api) -> None:
    with lab.database.reading() as session:
        theirs = session.scalars(sa.select(Sample).where(Sample.submitting_group_id == 1)).first()
    assert theirs
    names = [theirs.public_identifier, theirs.private_identifier]
    body = {"name": "x", "tree_type": "TARGETED", "samples": names}
    refused = lab("POST", PATH.format(2, "SC2"), "g2member", json=body)
    assert refused.json() == {"error": "missing ids", "ids": [theirs.private_identifier]}


def test_run_with_samples_without_sequence_is_rejected(lab: Api) -> None:
    first = sa.select(Sample.id).where(Sample.submitting_group_id == 1).order_by(Sample.id).limit(2)
    with lab.database.begin() as session:
        uploaded = UploadedPathogenGenome.metadata.tables["aspen.uploaded_pathogen_genomes"]
        session.execute(sa.delete(uploaded).where(uploaded.c.sample_id.in_(first)))
    refused = start(lab, "RCPHL-0000001", "RCPHL-0000003", "RCPHL-0000002")
    assert refused.status_code == 400
    assert refused.json() == {
        "error": "some samples have no sequence",
        "ids": ["RCPHL-0000001", "RCPHL-0000002"],
    }


def test_identifier_used_by_two_groups_selects_both_samples(lab: Api) -> None:
    with lab.database.begin() as session:
        theirs, own = (
            session.scalars(
                sa.select(Sample).where(Sample.submitting_group_id == group, ~Sample.private)
            ).first()
            for group in (1, 2)
        )
        assert theirs
        assert own
        own.public_identifier = theirs.public_identifier
        both = [theirs.uploaded_pathogen_genome, own.uploaded_pathogen_genome]
        genomes = {genome.entity_id for genome in both if genome}
        name = own.public_identifier
    body = {"name": "x", "tree_type": "TARGETED", "samples": [name]}
    made = lab("POST", PATH.format(2, "SC2"), "g2member", json=body)
    with lab.database.reading() as session:
        inputs = session.get_one(PhyloRun, made.json()["id"]).inputs
        assert genomes < {entity.id for entity in inputs}


def test_run_waits_for_concurrent_rename_of_its_sample(lab: Api) -> None:
    with ThreadPoolExecutor(1) as threads, lab.database.begin() as session:
        first = session.scalars(
            sa.select(Sample).where(Sample.private_identifier == "RCPHL-0000030").with_for_update()
        ).one()
        asked = threads.submit(start, lab, "RCPHL-0000030")
        with pytest.raises(TimeoutError):
            asked.result(0.5)
        first.private_identifier = "another"
        session.commit()
        assert asked.result().json() == {"error": "missing ids", "ids": ["RCPHL-0000030"]}


def test_run_can_include_all_samples_of_group(lab: Api) -> None:
    with lab.database.reading() as session:
        names = list(
            session.scalars(
                sa.select(Sample.private_identifier).where(Sample.submitting_group_id == 1)
            )
        )
    made = start(lab, *names, *(f"nobody {number}" for number in range(40_000)))
    assert len(made.json()["ids"]) == 40_000
    made = start(lab, *names)
    with lab.database.reading() as session:
        assert len(session.get_one(PhyloRun, made.json()["id"]).inputs) == 1001


# Jobs that fail to start


@pytest.fixture(params=["away", "refusing"])
def failing(
    request: pytest.FixtureRequest, make_api: ApiFactory, roles: Database, aws: Cloud
) -> tuple[Api, int]:
    """Return a service that cannot start jobs, and the status that it answers with."""
    if request.param == "away":
        return make_api(roles, **{**aws.settings, "BOTO_ENDPOINT_URL": "http://127.0.0.1:9"}), 503
    return make_api(roles, **aws.settings, DEPLOYMENT_STAGE="elsewhere"), 502


def test_run_is_not_created_if_its_job_does_not_start(failing: tuple[Api, int]) -> None:
    api, status = failing
    before = counts(api)
    answer = start(api, "RCPHL-0000001")
    assert answer.status_code == status
    assert answer.json()["error"] in {"AWS cannot be reached", "the job could not be started"}
    assert counts(api) == before


def test_job_is_stopped_if_its_run_cannot_be_committed(lab: Api, aws: Cloud) -> None:
    with lab.database.begin() as session:
        session.execute(
            sa.text("""
            CREATE FUNCTION aspen.full() RETURNS trigger LANGUAGE plpgsql
                AS $$BEGIN RAISE 'the disk is full'; END$$;
            CREATE CONSTRAINT TRIGGER full_at_commit AFTER INSERT ON aspen.phylo_runs
                DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION aspen.full()
            """)
        )
    before, known = counts(lab), executions(aws)
    assert start(lab).status_code == 500
    assert counts(lab) == before
    (new,) = (each for arn, each in executions(aws).items() if arn not in known)
    assert new["status"] == "ABORTED"


# Renaming and deleting


def test_rename_changes_run_and_its_tree(lab: Api) -> None:
    run = run_that_is(lab, "COMPLETED")
    answer = lab("PUT", f"{SC2}{run}", "member", json={"name": "  Renamed "})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["phylo_tree"]["name"]) == ("Renamed", "Renamed")
    assert [each for each in runs(lab) if each["id"] == run] == [answer.json()]
    assert sum(each["name"] == "Renamed" for each in runs(lab)) == 1


def test_delete_removes_run_with_its_tree_and_nothing_else(lab: Api) -> None:
    run, before = run_that_is(lab, "COMPLETED"), counts(lab)
    with lab.database.reading() as session:
        tree = session.scalars(
            sa.select(PhyloTree)
            .join(Entity.producing_workflow)
            .where(Entity.producing_workflow_id == run)
        ).one()
        shown, inputs = len(tree.samples), len(session.get_one(PhyloRun, run).inputs)
    assert lab("DELETE", f"{SC2}{run}", "member").json() == {"id": run}
    assert lab("DELETE", f"{SC2}{run}", "member").status_code == 404
    assert shown
    assert inputs
    assert {name: before[name] - after for name, after in counts(lab).items()} == {
        **dict.fromkeys(("workflows", "phylo_runs", "entities", "phylo_trees"), 1),
        "phylo_tree_samples": shown,
        "workflow_inputs": inputs,
    }


def test_delete_of_run_keeps_other_entities_it_produced(lab: Api) -> None:
    run = run_that_is(lab, "COMPLETED")
    made = sa.insert(Entity).values(
        entity_type=EntityType.ALIGNED_GISAID_DUMP, producing_workflow_id=run
    )
    with lab.database.begin() as session:
        number = session.scalar(made.returning(Entity.id))
    assert lab("DELETE", f"{SC2}{run}", "member").json() == {"id": run}
    of = sa.select(Entity.producing_workflow_id).where(Entity.id == number)
    with lab.database.reading() as session:
        assert session.execute(of).all() == [(None,)]


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_run_in_progress_cannot_be_renamed_or_deleted(lab: Api, method: str) -> None:
    run, before = run_that_is(lab, "STARTED"), runs(lab)
    answer = lab(method, f"{SC2}{run}", "member", json={"name": "x"})
    assert answer.status_code == 400
    assert answer.json() == {"error": "Can't modify an in-progress phylo run"}
    assert runs(lab) == before
    with lab.database.begin() as session:
        session.get_one(PhyloRun, run).workflow_status = WorkflowStatus.FAILED
    assert lab(method, f"{SC2}{run}", "member", json={"name": "x"}).status_code == 200
