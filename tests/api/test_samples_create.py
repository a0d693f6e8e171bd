"""Creating samples with their sequences, all or none, and the jobs that follow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from aspen.api.jobs import pangolin_orders
from aspen.database.engine import Database
from aspen.database.models import Group, Location, PathogenGenome, Sample, UploadedPathogenGenome
from tests.api.conftest import Api, ApiFactory, Cloud
from tests.api.test_phylo_runs import COMMON, COPIED

PATH = "/v2/orgs/{}/pathogens/{}/samples/"
YEAR = datetime.now(UTC).year
SEQUENCE = "ACGT" * 240 + "NNNN" + "acgu" * 10 + "RY" + "-"
Record = dict[str, Any]


@pytest.fixture
def lab(make_api: ApiFactory, roles: Database, aws: Cloud) -> Api:
    return make_api(roles, **aws.settings)


def new(api: Api, name: str, **changes: Any) -> Record:
    """Return a new sample; ``changes`` override its fields, ``genome=`` those of its genome."""
    with api.database.reading() as session:
        place = session.scalars(
            sa.select(Location.id).where(Location.country == "USA").order_by(Location.id)
        ).first()
    genome = {"sequence": SEQUENCE, **changes.pop("genome", {})}
    sample = {
        "private_identifier": name,
        "public_identifier": f"hCoV-19/USA/{name}/2023",
        "collection_date": "2023-02-01",
        "location_id": place,
        "private": True,
        **changes,
    }
    return {"sample": sample, "pathogen_genome": genome}


def create(
    api: Api, *samples: Record, who: str = "member", group: int = 1, slug: str = "SC2"
) -> httpx.Response:
    body = json.dumps(list(samples))
    return api("POST", PATH.format(group, slug), who, content=body)


def created(answer: httpx.Response) -> list[Record]:
    assert answer.status_code == 200, answer.text
    found: list[Record] = answer.json()["samples"]
    return found


def count(api: Api) -> int:
    with api.database.reading() as session:
        return session.scalar(sa.select(sa.func.count()).select_from(Sample)) or 0


def refused(api: Api, *samples: Record, status: int = 400, **options: Any) -> Record:
    before = count(api)
    answer = create(api, *samples, **options)
    assert answer.status_code == status, answer.text
    assert count(api) == before
    body: Record = answer.json()
    return body


def test_created_sample_is_stored_with_its_sequence(lab: Api) -> None:
    genome = {"sequencing_date": "2023-02-03", "sequencing_depth": 12.5}
    wanted = new(lab, "L-new", authors="A. One, B. Two", host="Human", genome=genome)
    (sample,) = created(create(lab, wanted))
    assert sample["private_identifier"] == "L-new"
    assert sample["sequencing_date"] == "2023-02-03"
    assert sample["uploaded_by"]["name"] == "Morgan Member"
    assert sample["submitting_group"]["id"] == 1
    listed = lab("GET", PATH.format(1, "SC2"), "member").json()["samples"]
    (found,) = [each for each in listed if each["id"] == sample["id"]]
    assert found == sample
    assert sample["gisaid"] == {"gisaid_id": None, "status": "Not Found"}
    with lab.database.reading() as session:
        row = session.get_one(Sample, sample["id"])
        assert (row.authors, row.host, row.sample_collected_by) == (
            "A. One, B. Two",
            "Human",
            row.submitting_group.name,
        )
        genome_row = row.uploaded_pathogen_genome
        assert genome_row is not None
        assert genome_row.sequence == SEQUENCE
        assert genome_row.sequencing_depth == 12.5
        counts = (
            genome_row.num_unambiguous_sites,
            genome_row.num_missing_alleles,
            genome_row.num_mixed,
        )
        assert counts == (1000, 4, 2)


@pytest.mark.parametrize("public", [None, "", "  "])
def test_missing_public_identifier_is_generated(lab: Api, public: str | None) -> None:
    (sample,) = created(create(lab, new(lab, "L-new", public_identifier=public)))
    assert sample["public_identifier"] == f"hCoV-19/USA/RCPHL-{sample['id']}/{YEAR}"


def test_created_samples_are_returned_in_id_order(lab: Api) -> None:
    before = count(lab)
    samples = created(create(lab, *(new(lab, f"M-{number}") for number in range(300))))
    assert [sample["private_identifier"] for sample in samples] == [f"M-{n}" for n in range(300)]
    assert count(lab) == before + 300


def test_create_of_empty_list_creates_nothing(lab: Api) -> None:
    assert created(create(lab)) == []


def test_create_with_existing_identifier_is_rejected_with_rows(lab: Api) -> None:
    (first,) = created(create(lab, new(lab, "L-1st")))
    body = refused(
        lab,
        new(lab, "good"),
        new(lab, "L-1st", public_identifier="other"),
        new(lab, "third", public_identifier=first["public_identifier"]),
    )
    assert body["error"].startswith(
        "Error inserting data, private_identifiers ['L-1st'] or public_identifiers: "
        "['hCoV-19/USA/L-1st/2023'] already exist"
    )
    assert body["rows"] == [1, 2]


def waiting_for_a_lock(api: Api) -> bool:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND application_name = 'aspen-api' AND datname = current_database()"
    )
    with api.database.reading() as session:  # a transaction sees a single snapshot of it
        return bool(session.execute(sa.text(query)).scalar_one())


@contextmanager
def holding(api: Api, name: str) -> Iterator[sa.Connection]:
    """Yield a connection that is about to give a sample of group 1 a private identifier."""
    with api.database.writing().engine.connect() as connection:
        rename(connection, "RCPHL-0000001", name)
        yield connection


def rename(connection: sa.Connection, before: str, after: str) -> None:
    statement = sa.update(Sample).where(Sample.private_identifier == before)
    connection.execute(statement.values(private_identifier=after))


def test_create_reports_identifier_taken_by_concurrent_transaction(lab: Api) -> None:
    before = count(lab)
    with ThreadPoolExecutor(1) as threads, holding(lab, "b") as connection:
        asked = threads.submit(create, lab, new(lab, "a"), new(lab, "b"))
        while not waiting_for_a_lock(lab):
            assert not asked.done()
        connection.commit()
        answer = asked.result()
    assert answer.status_code == 400
    assert "private_identifiers ['b']" in answer.json()["error"]
    assert answer.json()["rows"] == [1]
    assert count(lab) == before


def test_create_aborted_by_deadlock_returns_503_and_creates_nothing(lab: Api) -> None:
    before = count(lab)
    with ThreadPoolExecutor(1) as threads, holding(lab, "b") as connection:
        asked = threads.submit(create, lab, new(lab, "a"), new(lab, "b"))
        while not waiting_for_a_lock(lab):
            assert not asked.done()
        # The first session to look for a deadlock is aborted: the service's, not this one.
        connection.execute(sa.text("SET LOCAL deadlock_timeout = '60s'"))
        rename(connection, "RCPHL-0000002", "a")  # returns once PostgreSQL aborts the other one
        answer = asked.result()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert count(lab) == before


def test_two_groups_can_use_the_same_identifiers(lab: Api) -> None:
    created(create(lab, new(lab, "L-1st")))
    created(create(lab, new(lab, "L-1st"), who="g2member", group=2))


def test_create_with_duplicate_identifiers_is_rejected_with_rows(lab: Api) -> None:
    body = refused(lab, new(lab, "twice"), new(lab, "once"), new(lab, "twice"))
    assert body["error"].startswith("Error processing data, either duplicate")
    assert body["rows"] == [0, 2]


def test_create_with_unknown_location_is_rejected_with_rows(lab: Api) -> None:
    body = refused(lab, new(lab, "good"), new(lab, "bad", location_id=999_999))
    assert body == {
        "error": "Invalid location id for sample",
        "locations": [999_999],
        "rows": [1],
    }


@pytest.mark.parametrize(("who", "group"), [("viewer", 1), ("g2admin", 1), (None, 1)])
def test_create_without_permission_creates_nothing(lab: Api, who: str | None, group: int) -> None:
    before = count(lab)
    body = json.dumps([new(lab, "L-new")])
    answer = lab("POST", PATH.format(group, "SC2"), who, content=body)
    refusals = {"viewer": (403, "access denied"), "g2admin": (403, "Not authorized")}
    assert (answer.status_code, answer.json()["error"]) == refusals.get(
        who or "", (401, "Login failure")
    )
    assert count(lab) == before


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"genome": {"sequence": "ACGT"}}, ["pathogen_genome", "sequence"]),
        ({"genome": {"sequence": ">L-1\n" + SEQUENCE}}, ["pathogen_genome", "sequence"]),
        ({"genome": {"sequence": SEQUENCE + "\n" + SEQUENCE}}, ["pathogen_genome", "sequence"]),
        ({"collection_date": "01/02/2023"}, ["sample", "collection_date"]),
        ({"collection_date": None}, ["sample", "collection_date"]),
        ({"private_identifier": "L\0"}, ["sample", "private_identifier"]),
        ({"location_id": 2**31}, ["sample", "location_id"]),
    ],
)
def test_create_with_invalid_field_returns_422_with_row_and_field(
    lab: Api, changes: Record, place: list[str]
) -> None:
    body = refused(lab, new(lab, "good"), new(lab, "bad", **changes), status=422)
    assert body["detail"][0]["loc"] == ["body", 1, *place]


def executions(aws: Cloud, job: str) -> list[Record]:
    """Return the input of each execution of a job, newest first."""
    states = aws.client("stepfunctions")
    (machine,) = [
        each["stateMachineArn"]
        for each in states.list_state_machines()["stateMachines"]
        if each["name"] == job
    ]
    found = states.list_executions(stateMachineArn=machine)["executions"]
    return [
        json.loads(states.describe_execution(executionArn=each["executionArn"])["input"])
        for each in found
    ]


@pytest.mark.parametrize(
    ("slug", "jobs"),
    [
        ("SC2", {"pangolin-ondemand-sfn", "lineage-qc-ondemand-sfn"}),
        ("MPX", {"lineage-qc-ondemand-sfn"}),
    ],
)
def test_jobs_for_new_samples_receive_their_workflow_inputs(
    lab: Api, aws: Cloud, slug: str, jobs: set[str]
) -> None:
    samples = [new(lab, f"J-{slug}-{number}") for number in (1, 2)]
    first, second = created(create(lab, *samples, slug=slug))
    publics = [first["public_identifier"], second["public_identifier"]]
    own: dict[str, Record] = {
        "pangolin-ondemand-sfn": {"samples": publics},
        "lineage-qc-ondemand-sfn": {
            "pathogen_slug": slug,
            "run_type": "specified-ids-only",
            "sample_ids": [first["id"], second["id"]],
        },
    }
    deadline = time.monotonic() + 120
    told: dict[str, Record] = {}
    while told.keys() < jobs and time.monotonic() < deadline:
        for job, keys in own.items():
            for given in executions(aws, job):
                if keys.items() <= given["Input"]["Run"].items():
                    told[job] = given
        time.sleep(0.05)
    assert told.keys() == jobs
    for job, given in told.items():
        image = f"genepi-{job.removesuffix('-ondemand-sfn')}:local"
        assert given["Input"]["Run"] == {**COMMON, "docker_image_id": image, **own[job]}
        prefix, _, now = given["OutputPrefix"].rpartition("/")
        assert prefix == f"s3://genepi-batch/{job}/results"
        assert now.startswith(f"{YEAR}-")
        assert set(given) == {"Input", "OutputPrefix", *COPIED}


def test_pangolin_job_above_size_limit_is_split_into_several() -> None:
    group = Group(prefix="G" * 90)
    names = [f"hCoV-19/USA/{number:0{width}}" for number, width in enumerate([90] * 9_000)]
    orders = list(pangolin_orders(group, names))
    assert len(orders) > 1
    assert [name for order in orders for name in order.run["samples"]] == names
    assert max(len(json.dumps(order.run)) for order in orders) < 250_000
    assert not list(pangolin_orders(group, []))


def test_samples_are_created_even_if_no_job_can_start(
    make_api: ApiFactory, roles: Database
) -> None:
    api = make_api(roles, BOTO_ENDPOINT_URL="http://127.0.0.1:9")
    created(create(api, new(api, "L-new")))


def test_genome_of_created_sample_belongs_to_group(lab: Api) -> None:
    (sample,) = created(create(lab, new(lab, "L-new")))
    with lab.database.reading() as session:
        genome = session.scalars(
            sa.select(UploadedPathogenGenome).where(
                UploadedPathogenGenome.sample_id == sample["id"]
            )
        ).one()
        assert isinstance(genome, PathogenGenome)
        assert genome.group_id == 1
