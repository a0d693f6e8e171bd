"""The list of samples: who sees which, and the shape of each."""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime
from typing import Any, get_args

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Response
from pydantic import BaseModel

from aspen.api.deps import Db
from aspen.api.main import create_app
from aspen.api.schemas.samples import SampleResponse, SamplesResponse
from aspen.api.streaming import json_list
from aspen.database.engine import Database
from aspen.database.models import (
    Accession,
    AccessionType,
    LineageType,
    Location,
    PathogenGenome,
    QCMetricCaller,
    Sample,
    SampleLineage,
    SampleQCMetric,
)
from tests.api.conftest import Api, ApiFactory, address_of, listener, running

PATH = "/v2/orgs/{}/pathogens/SC2/samples/"


def listed(api: Api, principal: str, group: int = 1, **query: Any) -> list[dict[str, Any]]:
    answer = api("GET", PATH.format(group), principal, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: list[dict[str, Any]] = answer.json()["samples"]
    return found


@pytest.mark.parametrize(
    ("principal", "group", "seen", "of_them_private"),
    [
        *((who, 1, {1: 1000}, 200) for who in ("gadmin", "member", "sysmember", "multi")),
        ("viewer", 1, {1: 800}, 0),
        *((who, 2, {1: 800, 2: 20}, 4) for who in ("g2admin", "g2member", "multi")),
        *((who, 3, {2: 20, 3: 5}, 5) for who in ("g3admin", "g3member")),
    ],
)
def test_sample_list_shows_samples_that_role_permits(
    shared_roles: Api, principal: str, group: int, seen: dict[int, int], of_them_private: int
) -> None:
    samples = listed(shared_roles, principal, group)
    assert Counter(sample["submitting_group"]["id"] for sample in samples) == seen
    assert sum(sample["private"] for sample in samples) == of_them_private
    for sample in samples:
        own = sample["submitting_group"]["id"] == group
        assert (sample["private_identifier"] is not None) == own
    ids = [sample["id"] for sample in samples]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize(
    ("principal", "group"),
    [
        ("sysadmin", 1),
        ("nogroup", 1),
        ("g2admin", 1),
        ("g3admin", 1),
        ("g3member", 2),
        ("member", 2),
        ("member", 99),
    ],
)
def test_sample_list_without_role_in_group_returns_403(
    shared_roles: Api, principal: str, group: int
) -> None:
    answer = shared_roles("GET", PATH.format(group), principal)
    assert (answer.status_code, answer.json()) == (403, {"error": "Not authorized"})


def test_sample_list_without_sign_in_returns_401(shared_roles: Api) -> None:
    answer = shared_roles("GET", PATH.format(1))
    assert (answer.status_code, answer.json()) == (401, {"error": "Login failure"})


def test_sample_list_is_same_for_short_path_and_group_id_query(shared_roles: Api) -> None:
    whole = shared_roles("GET", PATH.format(1), "multi").content
    assert shared_roles("GET", "/v2/orgs/1/samples/", "multi").content == whole
    assert listed(shared_roles, "multi", 1, group_id=2) == listed(shared_roles, "multi", 2)
    assert shared_roles("GET", "/v2/orgs/1/samples", "multi").status_code == 307


def test_sample_list_of_another_pathogen_is_separate(shared_roles: Api) -> None:
    answer = shared_roles("GET", "/v2/orgs/1/pathogens/MPX/samples/", "member")
    assert (answer.status_code, answer.content) == (200, b'{"samples":[]}')


def test_sample_list_built_in_sql_matches_documented_schema(shared_roles: Api) -> None:
    samples = listed(shared_roles, "multi", 2)
    SamplesResponse.model_validate({"samples": samples})
    for sample in samples:
        assert_shaped(SampleResponse, sample)


def assert_shaped(model: type[BaseModel], value: dict[str, Any]) -> None:
    """Check that the keys and their order match the model at every level."""
    assert list(value) == list(model.model_fields)
    for name, field in model.model_fields.items():
        for part in [field.annotation, *get_args(field.annotation)]:
            if isinstance(part, type) and issubclass(part, BaseModel):
                inner = value[name] if isinstance(value[name], list) else [value[name]]
                for one in inner:
                    if one is not None:
                        assert_shaped(part, one)


def test_sample_list_includes_every_field(api: Api) -> None:
    with api.database.begin() as session:
        session.execute(sa.delete(SampleLineage).where(SampleLineage.sample_id == 1))
        session.execute(sa.delete(SampleQCMetric).where(SampleQCMetric.sample_id == 1))
        session.execute(sa.delete(Accession).where(Accession.sample_id == 1))
        sample = session.get_one(Sample, 1)
        assert sample.uploaded_pathogen_genome
        sample.public_identifier = 'quote " back\\slash \n line \u2028 🦠 <script>'
        sample.collection_date = date(2021, 2, 3)
        sample.uploaded_pathogen_genome.sequencing_date = date(2021, 2, 9)
        sample.uploaded_pathogen_genome.upload_date = datetime(2021, 3, 4, 5, 6, 7, 890_000)  # noqa: DTZ001 - naive, like the column
        session.add_all(
            [
                SampleLineage(
                    sample_id=1,
                    lineage_type=LineageType.PANGOLIN,
                    lineage="BA.2",
                    lineage_software_version="4.3.1",
                    lineage_probability=0.25,
                    last_updated=datetime(2021, 3, 5, 23, 59),  # noqa: DTZ001 - naive, like the column
                    raw_lineage_output={
                        "scorpio_call": "Omicron (BA.2-like)",
                        "scorpio_support": "0.97",
                        "qc_status": "pass",
                    },
                ),
                SampleLineage(
                    sample_id=1,
                    lineage_type=LineageType.NEXTCLADE,
                    lineage="21L",
                    lineage_software_version="2",
                    lineage_probability=float("nan"),
                    reference_dataset_name="sars-cov-2",
                    reference_sequence_accession="MN908947",
                    reference_dataset_tag="2022-12-14T12:00:00Z",
                    last_updated=datetime(2023, 1, 1),  # noqa: DTZ001 - naive, like the column
                ),
                SampleQCMetric(
                    sample_id=1,
                    qc_caller=QCMetricCaller.NEXTCLADE,
                    qc_score="31.0",
                    qc_status="mediocre",
                    qc_software_version="2.14.0",
                ),
                Accession(
                    sample_id=1, accession_type=AccessionType.GISAID_ISL, accession="EPI_ISL_7"
                ),
                Accession(sample_id=1, accession_type=AccessionType.GENBANK, accession="OP1"),
            ]
        )
        place, owner, uploader = (
            sample.collection_location,
            sample.submitting_group,
            sample.uploaded_by,
        )
        assert place
        expected = {
            "id": 1,
            "collection_date": "2021-02-03",
            "collection_location": {
                "id": place.id,
                "region": place.region,
                "country": place.country,
                "division": place.division,
                "location": place.location,
            },
            "gisaid": {"gisaid_id": "EPI_ISL_7", "status": "Accepted"},
            "pathogen": {"id": 1, "slug": "SC2", "name": "SARS-CoV-2"},
            "private": False,
            "private_identifier": sample.private_identifier,
            "public_identifier": 'quote " back\\slash \n line \u2028 🦠 <script>',
            "sequencing_date": "2021-02-09",
            "submitting_group": {"id": 1, "name": owner.name},
            "uploaded_by": {"id": uploader.id, "name": uploader.name},
            "upload_date": "2021-03-04T05:06:07+00:00",
            "lineages": [
                {
                    "lineage_type": "PANGOLIN",
                    "lineage": "BA.2",
                    "lineage_software_version": "4.3.1",
                    "last_updated": "2021-03-05",
                    "lineage_probability": 0.25,
                    "reference_dataset_name": None,
                    "reference_sequence_accession": None,
                    "reference_dataset_tag": None,
                    "scorpio_call": "Omicron (BA.2-like)",
                    "scorpio_support": "0.97",
                    "qc_status": "mediocre",
                },
                {
                    "lineage_type": "NEXTCLADE",
                    "lineage": "21L",
                    "lineage_software_version": "2",
                    "last_updated": "2022-12-14",
                    "lineage_probability": None,
                    "reference_dataset_name": "sars-cov-2",
                    "reference_sequence_accession": "MN908947",
                    "reference_dataset_tag": "2022-12-14T12:00:00Z",
                    "scorpio_call": None,
                    "scorpio_support": None,
                    "qc_status": "mediocre",
                },
            ],
            "qc_metrics": [
                {
                    "qc_score": "31.0",
                    "qc_software_version": "2.14.0",
                    "qc_status": "mediocre",
                    "qc_caller": "NEXTCLADE",
                    "reference_dataset_name": None,
                    "reference_sequence_accession": None,
                    "reference_dataset_tag": None,
                }
            ],
        }
    assert listed(api, "member")[0] == expected


def test_sample_list_is_compact_json(shared_roles: Api) -> None:
    body = shared_roles("GET", PATH.format(3), "g3member").text
    assert json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False) == body


def test_samples_without_location_or_sequence_are_listed(api: Api) -> None:
    with api.database.begin() as session:
        bare = Sample(
            submitting_group_id=1,
            private_identifier="bare",
            public_identifier="hCoV-19/bare",
            sample_collected_by="somebody",
            collection_date=date(2021, 1, 1),
            organism="-",
            private=False,
            uploaded_by_id=session.get_one(Sample, 1).uploaded_by_id,
            pathogen_id=1,
        )
        session.add(bare)
        session.flush()
        number = bare.id
        session.get_one(Sample, 1).collection_location = Location(region=None, country="Nowhere")
    samples = {sample["id"]: sample for sample in listed(api, "member")}
    assert len(samples) == 61
    assert samples[number]["collection_location"] is None
    assert samples[number]["upload_date"] is None
    assert samples[number]["sequencing_date"] is None
    assert samples[number]["gisaid"] == {"gisaid_id": None, "status": "Not Found"}
    assert (samples[number]["lineages"], samples[number]["qc_metrics"]) == ([], [])
    assert samples[1]["collection_location"]["region"] == ""
    SamplesResponse.model_validate({"samples": list(samples.values())})


def test_list_that_fails_midway_does_not_look_complete(shared_api: Api) -> None:
    app = create_app(shared_api.settings)

    @app.get("/broken/")
    async def broken(db: Db) -> Response:
        query: sa.Select[Any] = sa.select(sa.literal_column("(1 / (1501 - n))::text")).select_from(
            sa.text("generate_series(1, 3000) AS n")
        )
        return await json_list(db, "numbers", query)

    with (
        listener() as listening,
        running(app, listening),
        httpx.Client(base_url=address_of(listening), timeout=60, trust_env=False) as client,
    ):
        with client.stream("GET", "/broken/") as answer:
            assert answer.status_code == 200
            with pytest.raises(httpx.RemoteProtocolError):
                list(answer.iter_raw())
        assert client.get("/v2/health/").status_code == 200


def test_disconnected_client_releases_database_connection(
    make_api: ApiFactory, crowded: Database
) -> None:
    api = make_api(crowded)
    for _ in range(25):  # more than the service has database connections
        with api.as_("member").stream("GET", PATH.format(1)) as answer:
            assert answer.status_code == 200
    assert len(listed(api, "member")) == 12_060


def test_sequencing_dates_come_from_the_uploaded_sequence(shared_roles: Api) -> None:
    with shared_roles.database.reading() as session:
        query = (
            sa.select(Sample.id, PathogenGenome.sequencing_date)
            .join(Sample.uploaded_pathogen_genome)
            .where(Sample.submitting_group_id == 2)
        )
        dates = dict(session.execute(query).all())
    told = {s["id"]: s["sequencing_date"] for s in listed(shared_roles, "g2member", 2)}
    assert all(told[number] == day.isoformat() for number, day in dates.items() if day)
