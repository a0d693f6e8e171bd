"""Names that name nothing, and the forms of public repositories."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
import sqlalchemy as sa

from db.models import Sample
from local.seed.upstream import strains
from tests.api.conftest import Api

PATH = "/v2/orgs/{}/pathogens/SC2/samples/{}"


def sample_of(api: Api, group: int, *, private: bool = False) -> Sample:
    with api.database.reading() as session:
        found = session.scalars(
            sa.select(Sample)
            .where(Sample.submitting_group_id == group, Sample.private == private)
            .order_by(Sample.id)
        ).first()
        assert found is not None
        session.expunge(found)
        return found


def missing(api: Api, names: list[str], who: str = "member", group: int = 1) -> list[str]:
    answer = api("POST", PATH.format(group, "validate_ids/"), who, json={"sample_ids": names})
    assert answer.status_code == 200, answer.text
    found: list[str] = answer.json()["missing_sample_ids"]
    return found


def test_every_kind_of_name_is_known(shared_roles: Api) -> None:
    ours, strain = sample_of(shared_roles, 1, private=True), strains()[0]
    names = [
        ours.public_identifier,
        ours.private_identifier,
        strain.strain,
        f"hCoV-19/{strain.strain}",
        strain.isl,
    ]
    assert missing(shared_roles, names) == []


def test_what_is_missing_comes_in_its_order_and_once(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    names = ["z", ours.public_identifier, "a", "z", ours.public_identifier.lower(), ""]
    assert missing(shared_roles, names) == ["z", "a", ours.public_identifier.lower(), ""]


@pytest.mark.parametrize(("who", "group"), [("viewer", 1), ("g2admin", 2)])
def test_private_identifiers_are_no_oracle(shared_roles: Api, who: str, group: int) -> None:
    """Naming a sample by its public identifier, too, does not tell that its private one exists."""
    ours = sample_of(shared_roles, 1)
    both = [ours.public_identifier, ours.private_identifier]
    assert missing(shared_roles, both, who, group) == [ours.private_identifier]
    hidden = sample_of(shared_roles, 1, private=True)
    both = [hidden.public_identifier, hidden.private_identifier]
    assert missing(shared_roles, both, who, group) == both


def test_more_names_than_a_statement_has_parameters(shared_roles: Api) -> None:
    names = [f"nobody-{number}" for number in range(40_000)]
    assert missing(shared_roles, names) == names


def form(api: Api, names: list[str], repository: str, who: str = "member", group: int = 1) -> Any:
    body = {"sample_ids": names, "public_repository_name": repository}
    return api("POST", PATH.format(group, "submission_template"), who, json=body)


def test_the_form_of_gisaid(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = form(shared_roles, [ours.private_identifier, "nobody"], "GISAID")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == "attachment; filename=gisaid_metadata.csv"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["covv_virus_name"] == ours.public_identifier
    assert row["covv_provider_sample_id"] == ours.private_identifier
    assert row["covv_collection_date"] == ours.collection_date.isoformat()
    assert row["covv_subm_lab"] == "Redwood County Public Health Laboratory"
    assert row["covv_location"].startswith("North America / USA / California")


def test_the_form_of_genbank(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = form(shared_roles, [ours.public_identifier], "GenBank")
    assert answer.headers["content-type"].startswith("text/tsv")
    (row,) = csv.DictReader(io.StringIO(answer.text), delimiter="\t")
    assert row["Sequence_ID"] == ours.public_identifier
    assert row["geo_loc_name"].startswith("USA: California")


def test_a_form_tells_no_private_identifier_of_others(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = form(shared_roles, [ours.public_identifier], "GISAID", "g2admin", 2)
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["covv_provider_sample_id"] == ""
    assert ours.private_identifier not in answer.text


@pytest.mark.parametrize("repository", ["gisaid", "ENA", ""])
def test_an_unknown_repository_is_told(shared_roles: Api, repository: str) -> None:
    answer = form(shared_roles, [], repository)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "public_repository_name is unknown",
        "repositories": ["GISAID", "GenBank"],
        "given": repository,
    }


def test_a_form_without_samples_has_its_header(shared_roles: Api) -> None:
    answer = form(shared_roles, [], "GISAID")
    assert answer.text.count("\n") == 1
    assert answer.text.startswith("submitter,fn,covv_virus_name,")
