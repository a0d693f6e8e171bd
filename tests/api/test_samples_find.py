"""Names that match no sample, and the forms of public repositories."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from aspen.api import in_process
from aspen.database.models import Sample
from aspen.local.seed.phylo import strains
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


def test_validate_ids_recognizes_every_kind_of_identifier(shared_roles: Api) -> None:
    ours, strain = sample_of(shared_roles, 1, private=True), strains()[0]
    names = [
        ours.public_identifier,
        ours.private_identifier,
        strain.strain,
        f"hCoV-19/{strain.strain}",
        strain.isl,
    ]
    assert missing(shared_roles, names) == []


def test_validate_ids_lists_missing_ids_once_in_request_order(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    names = ["z", ours.public_identifier, "a", "z", ours.public_identifier.lower(), ""]
    assert missing(shared_roles, names) == ["z", "a", ours.public_identifier.lower(), ""]


def test_validate_ids_looks_up_identifiers_in_batches(shared_roles: Api) -> None:
    ours, strain = sample_of(shared_roles, 1, private=True), strains()[0]
    known = [ours.public_identifier, ours.private_identifier, f"hCoV-19/{strain.strain}"]
    unknown = [str(number) for number in range(25_000)]
    names = [known[0], *unknown[:12_000], known[1], *unknown[12_000:], known[2], *known]
    sizes: list[int] = []

    @contextmanager
    def watched(engine: AsyncEngine) -> Iterator[None]:
        def note(_connection: Any, _cursor: Any, _sql: str, parameters: Any, *_: Any) -> None:
            sizes.extend(len(one) for one in parameters if isinstance(one, list))

        sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
        yield

    body = json.dumps({"sample_ids": names}).encode()
    asked = in_process.Asked(
        "POST", PATH.format(1, "validate_ids/"), user="auth0|member", body=body
    )
    found = in_process.answer(shared_roles.settings, asked, watched)
    assert json.loads(found.body) == {"missing_sample_ids": unknown}
    # Two queries for each batch of names, and two for its spellings; a strain has two spellings.
    assert sum(size > 5_000 for size in sizes) == 12
    assert max(sizes) <= 10_001


@pytest.mark.parametrize(("who", "group"), [("viewer", 1), ("g2admin", 2)])
def test_validate_ids_does_not_reveal_private_identifiers(
    shared_roles: Api, who: str, group: int
) -> None:
    """A sample's public identifier in the same request must not reveal its private one."""
    ours = sample_of(shared_roles, 1)
    both = [ours.public_identifier, ours.private_identifier]
    assert missing(shared_roles, both, who, group) == [ours.private_identifier]
    hidden = sample_of(shared_roles, 1, private=True)
    both = [hidden.public_identifier, hidden.private_identifier]
    assert missing(shared_roles, both, who, group) == both


def test_validate_ids_accepts_more_ids_than_sql_parameters(shared_roles: Api) -> None:
    names = [f"nobody-{number}" for number in range(40_000)]
    assert missing(shared_roles, names) == names


def form(api: Api, names: list[str], repository: str, who: str = "member", group: int = 1) -> Any:
    body = {"sample_ids": names, "public_repository_name": repository}
    return api("POST", PATH.format(group, "submission_template"), who, json=body)


def test_gisaid_template_matches_live_service(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = form(shared_roles, [ours.private_identifier, "nobody"], "GISAID")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    name = f"{datetime.now(UTC):%Y%m%d}_GISAID_metadata.csv"
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"
    assert answer.text.count("\r\n") == answer.text.count("\n") == 3
    labels, row = csv.DictReader(io.StringIO(answer.text))
    assert (labels["submitter"], labels["covv_specimen"]) == ("Submitter", "Specimen source")
    assert row["fn"] == name.replace("metadata.csv", "sequences.fasta")
    assert row["covv_virus_name"] == ours.public_identifier
    assert row["covv_specimen"] == "Nasopharyngeal/oropharyngeal swab"
    assert row["covv_collection_date"] == ours.collection_date.isoformat()
    assert row["covv_subm_lab"] == "Redwood County Public Health Laboratory"
    assert row["covv_location"].startswith("North America / USA / California")


def test_genbank_template_matches_live_service(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = form(shared_roles, [ours.public_identifier], "GenBank")
    assert answer.headers["content-type"].startswith("text/tsv")
    name = f"{datetime.now(UTC):%Y%m%d}_GenBank_metadata.tsv"
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"
    columns = "Sequence_ID collection-date country host isolate isolation-source BioProject"
    assert answer.text.startswith("\t".join([*columns.split(), "BioSample"]) + "\r\n")
    (row,) = csv.DictReader(io.StringIO(answer.text), delimiter="\t")
    there = ours.public_identifier.replace("hCoV-19/", "SARS-CoV-2/human/")
    assert (row["Sequence_ID"], row["isolate"]) == (there, there)
    assert row["country"].startswith("USA: California")
    assert row["host"] == "Homo sapiens"


@pytest.mark.parametrize("repository", ["GISAID", "GenBank"])
@pytest.mark.parametrize("kind", ["submission_template", "sequences/"])
def test_files_for_public_repositories_hold_no_private_identifier(
    shared_roles: Api, kind: str, repository: str
) -> None:
    with shared_roles.database.reading() as session:
        query = sa.select(Sample).where(Sample.submitting_group_id == 1)
        ours = [one.private_identifier for one in session.scalars(query.order_by(Sample.id))]
    base = PATH.format(1, "") if kind == "submission_template" else PATH.format(1, "")[:-8]
    for who in ("member", "gadmin", "viewer"):
        body = {"sample_ids": ours, "public_repository_name": repository}
        answer = shared_roles("POST", base + kind, who, json=body)
        assert answer.status_code == 200
        # Without the genomes, which are letters only, so that the search does not take minutes.
        written = re.sub(r"^[A-Z]+$", "", answer.text, flags=re.MULTILINE)
        assert not [name for name in ours if name in written]


@pytest.mark.parametrize("repository", ["gisaid", "ENA", ""])
def test_template_for_unknown_repository_returns_400_with_valid_names(
    shared_roles: Api, repository: str
) -> None:
    answer = form(shared_roles, [], repository)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "public_repository_name is unknown",
        "repositories": ["GISAID", "GenBank"],
        "given": repository,
    }


def test_template_without_samples_has_headers_only(shared_roles: Api) -> None:
    answer = form(shared_roles, [], "GISAID")
    assert answer.text.count("\n") == 2
    assert answer.text.startswith("submitter,fn,covv_virus_name,")
