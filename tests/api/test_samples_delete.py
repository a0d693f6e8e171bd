"""Deleting samples with everything derived from them, all or none."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import Base, Sample
from tests.api.conftest import Api, ApiFactory

PATH = "/v2/orgs/{}/pathogens/{}/samples/"
TABLES = (
    *("samples", "phylo_tree_samples", "accessions", "sample_lineages", "sample_mutations"),
    *("sample_qc_metrics", "uploaded_pathogen_genomes", "pathogen_genomes", "entities"),
    "workflow_inputs",
)


@pytest.fixture
def lab(make_api: ApiFactory, roles: Any) -> Api:
    return make_api(roles)


def counts(api: Api) -> dict[str, int]:
    with api.database.reading() as session:
        return {
            name: session.scalar(
                sa.select(sa.func.count()).select_from(Base.metadata.tables[f"aspen.{name}"])
            )
            or 0
            for name in TABLES
        }


def ids(api: Api, group: int = 1, *, private: bool = False) -> list[int]:
    with api.database.reading() as session:
        return list(
            session.scalars(
                sa.select(Sample.id)
                .where(Sample.submitting_group_id == group, Sample.private == private)
                .order_by(Sample.id)
            )
        )


def delete(api: Api, numbers: list[Any], who: str = "member", group: int = 1) -> Any:
    path = PATH.format(group, "SC2")
    return api("DELETE", path, who, json={"ids": numbers})


def test_delete_removes_samples_with_genomes_and_lineages(lab: Api) -> None:
    everything, before = ids(lab) + ids(lab, private=True), counts(lab)
    answer = delete(lab, everything)
    assert (answer.status_code, answer.json()) == (200, {"ids": everything})
    after = counts(lab)
    gone = len(everything)
    assert before["samples"] - after["samples"] == gone
    genomes = before["pathogen_genomes"] - after["pathogen_genomes"]
    assert genomes == before["entities"] - after["entities"] > gone  # includes aligned genomes
    with lab.database.reading() as session:
        orphans = session.scalar(
            sa.text("SELECT count(*) FROM aspen.sample_lineages WHERE sample_id IS NULL")
        )
    assert orphans == 0
    assert lab("GET", PATH.format(1, "SC2"), "member").json() == {"samples": []}


def test_single_sample_is_deleted_by_id_in_path(lab: Api) -> None:
    first, second, *_ = ids(lab)
    answer = lab("DELETE", f"{PATH.format(1, 'SC2')}{first}", "member")
    assert (answer.status_code, answer.json()) == (200, {"id": first})
    assert first not in ids(lab)
    assert second in ids(lab)
    again = lab("DELETE", f"{PATH.format(1, 'SC2')}{first}", "member")
    assert (again.status_code, again.json()) == (404, {"error": "sample not found", "ids": [first]})


def test_delete_ignores_pathogen_in_path(lab: Api) -> None:
    first = ids(lab)[0]
    assert lab("DELETE", f"{PATH.format(1, 'HCV')}{first}", "member").status_code == 200


def test_delete_of_empty_list_succeeds(lab: Api) -> None:
    answer = delete(lab, [])
    assert (answer.status_code, answer.json()) == (200, {"ids": []})


def test_delete_is_all_or_nothing(lab: Api) -> None:
    before = counts(lab)
    (theirs, *_), (first, second, *_) = ids(lab, 2), ids(lab)
    for numbers, blamed in (
        ([first, theirs, second], [theirs]),
        ([first, 999_999, -1], [-1, 999_999]),
        ([first, second, first], [first]),
    ):
        answer = delete(lab, numbers)
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": "samples not found", "ids": blamed},
        )
    assert counts(lab) == before


def test_delete_requires_member_role_or_member_grant(lab: Api) -> None:
    (theirs, *_), (ours, *_) = ids(lab, 2), ids(lab)
    assert delete(lab, [theirs], "g3member", 3).status_code == 200
    for who, group in (("viewer", 1), ("g2admin", 2), ("multi", 2)):
        assert delete(lab, [ours], who, group).status_code == 404
    assert delete(lab, [ours], "g2admin").status_code == 403
    assert delete(lab, [ours], "nogroup").status_code == 403


def test_delete_accepts_more_ids_than_sql_parameters(lab: Api) -> None:
    before = counts(lab)
    answer = delete(lab, [*range(1_000_000, 1_040_000)])
    assert answer.status_code == 404
    assert len(answer.json()["ids"]) == 40_000
    assert counts(lab) == before


@pytest.mark.parametrize("numbers", [["x"], [2**31], [None]])
def test_delete_with_invalid_id_returns_422(lab: Api, numbers: list[Any]) -> None:
    answer = delete(lab, numbers)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "ids", 0]
