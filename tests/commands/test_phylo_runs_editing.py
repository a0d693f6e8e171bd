"""``phylo-runs create``, ``update`` and ``delete``, through the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from db.models import PhyloRun
from tests.clients.conftest import Serving
from tests.commands.api_lab import ApiLab, Relay

FIRST = ("RCPHL-0000001", "RCPHL-0000002")
TARGETED = ("--name", "Cannery", "--tree-type", "targeted")


@pytest.fixture
def lab(api_lab: ApiLab) -> ApiLab:
    return api_lab


def runs(lab: ApiLab, group: int = 1) -> list[dict[str, Any]]:
    path = f"/v2/orgs/{group}/pathogens/SC2/phylo_runs/"
    found: list[dict[str, Any]] = lab.service("GET", path, "gadmin").json()["phylo_runs"]
    return found


def of(lab: ApiLab, status: str) -> int:
    return int(next(run["id"] for run in runs(lab) if run["workflow_status"] == status))


def test_a_run_is_started(lab: ApiLab) -> None:
    command = ("phylo-runs", "create", *FIRST, *TARGETED, "--start-date", "3 Jan 2021")
    ended = lab(*command, "--lineage", "BA.2*", "--location", "1", "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert 'Filter start date: "3 Jan 2021" -> 2021-01-03' in ended.err
    (row,) = ended.json
    run = runs(lab)[-1]
    assert (row["id"], row["outcome"]) == (run["id"], "started")
    assert (run["name"], run["tree_type"], run["workflow_status"]) == (
        "Cannery",
        "TARGETED",
        "STARTED",
    )
    assert run["template_args"] == {
        "filter_start_date": "2021-01-03",
        "filter_pango_lineages": ["BA.2*"],
        "location_id": 1,
    }


def test_a_dry_run_starts_nothing_and_no_yes_is_a_no(lab: ApiLab) -> None:
    before = runs(lab)
    ended = lab("phylo-runs", "create", *FIRST, *TARGETED, "--dry-run")
    assert (ended.code, ended.out) == (0, "")
    assert "Would start the run 'Cannery' of 2 samples of group 1" in ended.err
    assert runs(lab) == before


def test_an_unknown_sample_starts_nothing(lab: ApiLab) -> None:
    before = runs(lab)
    ended = lab("phylo_runs", "create", *FIRST, "nope", *TARGETED, "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "nope" in ended.err
    assert runs(lab) == before
    ended = lab("phylo_runs", "create", *FIRST, "nope", *TARGETED, "--yes", "--skip-missing")
    assert ended.code == 0
    assert len(runs(lab)) == len(before) + 1


@pytest.mark.parametrize("delivered", [True, False])
def test_a_lost_answer_is_looked_into_and_one_run_is_started(
    lab: ApiLab, serving: Serving, delivered: bool
) -> None:
    before = len(runs(lab))
    # The names are looked up by a POST, too: it is read again by itself.
    relay = serving(route=Relay(lab.service.url, "POST", [False, delivered]))
    command = ("phylo-runs", "create", *FIRST, *TARGETED, "--yes", "-o", "json")
    ended = lab("--api", relay.url, *command)
    assert ended.code == 0, ended.err
    assert len(runs(lab)) == before + 1
    assert ended.json[0]["id"] == runs(lab)[-1]["id"]


def test_a_viewer_may_not_start_a_run(lab: ApiLab) -> None:
    shown = lab("samples", "list", "--group", "1", "--public", "--limit", "1", "-o", "json").json
    name = shown[0]["public_identifier"]
    ended = lab("phylo-runs", "create", name, *TARGETED, "--yes", who="viewer")
    assert (ended.code, ended.out) == (4, "")
    assert len(runs(lab)) == 4


def test_a_run_is_renamed_with_its_tree(lab: ApiLab) -> None:
    run = of(lab, "COMPLETED")
    ended = lab("phylo-runs", "update", str(run), "--name", "New", "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["name"], ended.json[0]["outcome"]) == ("New", "renamed")
    assert runs(lab)[0]["phylo_tree"]["name"] == "New"
    again = lab("phylo-runs", "update", str(run), "--name", "New", "--yes", "-o", "json")
    assert (again.code, again.json[0]["outcome"]) == (0, "already so")


def test_runs_are_deleted_and_what_is_not_there_is_named_first(lab: ApiLab) -> None:
    done, failed = of(lab, "COMPLETED"), of(lab, "FAILED")
    ended = lab("phylo-runs", "delete", str(done), "999", "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "there is no run 999" in ended.err
    ended = lab("phylo-runs", "delete", str(done), str(failed), "--dry-run", "-o", "json")
    assert [row["outcome"] for row in ended.json] == ["would be deleted"] * 2
    ended = lab("phylo-runs", "delete", str(done), str(failed), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [(row["id"], row["outcome"]) for row in ended.json] == [
        (done, "deleted"),
        (failed, "deleted"),
    ]
    with lab.service.database.reading() as session:
        left = session.scalars(sa.select(PhyloRun.id).where(PhyloRun.id.in_([done, failed])))
        assert list(left) == []


def test_what_was_deleted_before_a_refusal_is_told(lab: ApiLab) -> None:
    failed, started = of(lab, "FAILED"), of(lab, "STARTED")
    ended = lab("phylo-runs", "delete", str(failed), str(started), "--yes", "-o", "json")
    assert ended.code == 7
    assert json.loads(ended.out)[0]["id"] == failed
    assert "1 of 2 runs were deleted before that" in ended.err
    assert "in-progress" in ended.err


@pytest.mark.parametrize("delivered", [True, False])
def test_a_lost_answer_to_a_deletion_is_looked_into(
    lab: ApiLab, serving: Serving, delivered: bool
) -> None:
    failed = of(lab, "FAILED")
    relay = serving(route=Relay(lab.service.url, "DELETE", [delivered]))
    ended = lab("--api", relay.url, "phylo-runs", "delete", str(failed), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [failed]
