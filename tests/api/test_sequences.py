"""Sequences as FASTA, links to them, and their quality and mutations."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.database.models import Group, Sample
from aspen.local.seed import seed_samples
from tests.api.conftest import Api, ApiFactory, Cloud
from tests.api.test_samples_find import sample_of

PATH = "/v2/orgs/{}/pathogens/SC2/{}"


def ask(api: Api, names: list[str], who: str = "member", group: int = 1, **more: Any) -> Any:
    path = PATH.format(group, "sequences/")
    return api("POST", path, who, json={"sample_ids": names, **more})


def titles(text: str) -> list[str]:
    return [line[1:] for line in text.splitlines() if line.startswith(">")]


def test_fasta_of_own_samples_uses_private_identifiers(shared_roles: Api) -> None:
    ours, hidden = sample_of(shared_roles, 1), sample_of(shared_roles, 1, private=True)
    answer = ask(shared_roles, [hidden.private_identifier, ours.public_identifier, "nobody"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/binary"
    name = "Redwood County Public Health Laboratory_sample_sequences.fasta"
    assert answer.headers["content-disposition"] == f"attachment; filename={name}"
    assert set(titles(answer.text)) == {ours.private_identifier, hidden.private_identifier}
    with shared_roles.database.reading() as session:
        genome = session.get_one(Sample, ours.id).uploaded_pathogen_genome
        assert genome is not None
        assert f">{ours.private_identifier}\n{genome.sequence}\n" in answer.text


def test_fasta_of_granting_groups_samples_uses_public_identifiers(shared_roles: Api) -> None:
    theirs = sample_of(shared_roles, 2)
    named = [theirs.private_identifier]
    answer = ask(shared_roles, named, "g3member", 3)
    assert titles(answer.text) == [theirs.public_identifier]
    answer = ask(shared_roles, named, "g3member", 3, public_repository_name="GenBank")
    assert titles(answer.text) == [
        theirs.public_identifier.replace("hCoV-19/", "SARS-CoV-2/human/")
    ]


def test_fasta_for_repository_uses_public_identifiers(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1, private=True)
    prefixes = {"GISAID": "hCoV-19", "GenBank": "SARS-CoV-2/human"}
    for repository, prefix in prefixes.items():
        answer = ask(shared_roles, [ours.private_identifier], public_repository_name=repository)
        assert titles(answer.text) == [ours.public_identifier.replace("hCoV-19", prefix)]
        name = f"{datetime.now(UTC):%Y%m%d}_{repository}_sequences.fasta"
        assert answer.headers["content-disposition"] == f"attachment; filename={name}"


@pytest.mark.parametrize("name", ["Grün", "东", 'Say "x"', "a;b", "line\nbreak"])
def test_group_name_in_fasta_file_name_is_encoded(api: Api, name: str) -> None:
    with api.database.begin() as session:
        session.get_one(Group, 1).name = name
    header = ask(api, []).headers["content-disposition"]
    encoded = quote(f"{name}_sample_sequences.fasta", safe="")
    assert header == f"attachment; filename*=UTF-8''{encoded}"


@pytest.mark.parametrize(("who", "group"), [("viewer", 1), ("g2admin", 2)])
def test_fasta_for_read_only_access_is_empty(shared_roles: Api, who: str, group: int) -> None:
    ours = sample_of(shared_roles, 1)
    answer = ask(shared_roles, [ours.public_identifier], who, group)
    assert (answer.status_code, answer.text) == (200, "")


def test_fasta_for_repository_without_prefix_returns_400(shared_roles: Api) -> None:
    answer = ask(shared_roles, [], public_repository_name="ENA")
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "no prefix found for given pathogen_slug and public_repository combination"
    }


def test_line_break_in_identifier_does_not_split_fasta_record(api: Api) -> None:
    with api.database.begin() as session:
        sample = session.scalars(sa.select(Sample).order_by(Sample.id)).first()
        assert sample is not None
        sample.private_identifier = "L-1\n>fake"
    answer = ask(api, ["L-1\n>fake"])
    assert titles(answer.text) == ["L-1 >fake"]


def test_fasta_of_many_samples_is_streamed(make_api: ApiFactory, seeded: Database) -> None:
    seed_samples(seeded, 300, group=1)
    api = make_api(seeded)
    with seeded.reading() as session:
        names = list(
            session.scalars(
                sa.select(Sample.public_identifier).where(Sample.submitting_group_id == 1)
            )
        )
    with api.as_("member").stream(
        "POST",
        PATH.format(1, "sequences/"),
        json={"sample_ids": [*names, *map(str, range(40_000))]},
    ) as answer:
        pieces = list(answer.iter_raw())
    assert "content-length" not in answer.headers
    assert b"".join(pieces).count(b">") == len(names)
    assert max(map(len, pieces)) < 4 << 20


@pytest.fixture
def lab(make_api: ApiFactory, roles: Database, aws: Cloud) -> Api:
    return make_api(roles, **aws.settings)


def link(api: Api, names: list[str], **more: Any) -> str:
    path = PATH.format(1, "sequences/getfastaurl")
    answer = api("POST", path, "member", json={"samples": names, **more})
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["url"]
    return str(answer.json()["url"])


def test_fasta_link_works_without_sign_in(lab: Api) -> None:
    ours = sample_of(lab, 1)
    url = link(lab, [ours.public_identifier])
    assert "X-Amz-Expires=3600" in url
    path = unquote(urlsplit(url).path)
    group = "Redwood County Public Health Laboratory"
    assert path.startswith(f"/genepi-external-auspice-data/fasta-url-files/{group}/")
    answer = httpx.get(url, trust_env=False)
    assert titles(answer.text) == [ours.private_identifier]
    assert httpx.get(link(lab, ["nobody"]), trust_env=False).text == ""


def test_fasta_link_for_usher_replaces_spaces_in_identifiers(lab: Api) -> None:
    with lab.database.begin() as session:
        session.get_one(Sample, sample_of(lab, 1).id).private_identifier = "L 1"
    url = link(lab, ["L 1"], downstream_consumer="USHER")
    assert titles(httpx.get(url, trust_env=False).text) == ["L_1"]
    assert titles(httpx.get(link(lab, ["L 1"]), trust_env=False).text) == ["L 1"]


# Quality and mutations


def found(api: Api, names: list[str], who: str = "member", group: int = 1) -> Any:
    return api("POST", PATH.format(group, "qc_mutations/"), who, json={"sample_ids": names})


def test_qc_mutations_are_returned_as_tsv(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = found(shared_roles, [ours.public_identifier, "nobody"])
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/tsv")
    header, row = (line.split("\t") for line in answer.text.splitlines())
    assert len(row) == len(header)
    cells = dict(zip(header, row, strict=True))
    assert header[0] == "seqName"
    assert cells["seqName"] == ours.private_identifier
    assert cells["qc.overallStatus"] in {"good", "mediocre", "bad"}
    assert cells["clade"]
    assert cells["substitutions"]
    assert answer.headers["content-disposition"] == "attachment; filename=sample_mutation.tsv"
    assert answer.headers["content-type"] == "text/tsv"
    assert answer.text.count("\r\n") == answer.text.count("\n") == 2


def test_qc_mutations_columns_are_union_of_all_outputs(api: Api) -> None:
    outputs: list[Any] = [
        {"seqName": "1", "clade": "22F", "note": 'a "b"\tc'},
        {"seqName": "2", "lineage": "B.1", "sites": [1, 2], "gone": None},
        None,
    ]
    with api.database.begin() as session:
        query = sa.select(Sample).where(Sample.submitting_group_id == 1).order_by(Sample.id)
        samples = [one for one in session.scalars(query) if one.qc_metrics][:3]
        names = [sample.private_identifier for sample in samples]
        score = samples[2].qc_metrics[0].qc_score
        for sample, output in zip(samples, outputs, strict=True):
            sample.qc_metrics[0].raw_qc_output = output or sa.null()
    answer = found(api, names)
    rows = list(csv.DictReader(io.StringIO(answer.text), delimiter="\t"))
    assert [row["seqName"] for row in rows] == names
    assert (rows[0]["clade"], rows[0]["note"], rows[0]["lineage"]) == ("22F", 'a "b"\tc', "")
    assert (rows[1]["lineage"], rows[1]["sites"], rows[1]["gone"]) == ("B.1", "[1,2]", "")
    assert rows[2]["qc.overallScore"] == score


def test_qc_mutations_of_another_group_show_public_identifiers(shared_roles: Api) -> None:
    ours = sample_of(shared_roles, 1)
    answer = found(shared_roles, [ours.public_identifier], "g2admin", 2)
    assert ours.public_identifier in answer.text
    assert ours.private_identifier not in answer.text


@pytest.mark.parametrize("names", [[], ["nobody"]])
def test_qc_mutations_without_data_return_404(shared_roles: Api, names: list[str]) -> None:
    answer = found(shared_roles, names)
    assert answer.status_code == 404
    assert answer.json() == {"error": "No associated QC/Mutation data found"}
