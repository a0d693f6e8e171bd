"""``phylo-runs create``, ``update``, and ``delete``, through the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import PhyloRun, Workflow, WorkflowStatus
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.remote.conftest import Serving

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


def test_create_starts_run_with_given_options(lab: ApiLab) -> None:
    command = ("phylo-runs", "create", *FIRST, *TARGETED, "--start-date", "3 Jan 2021")
    ended = lab(*command, "--lineage", "BA.2*", "--location", "1", "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert 'Filter start date: "3 Jan 2021" -> 2021-01-03' in ended.err
    (row,) = ended.json
    run = runs(lab)[-1]
    assert (row["id"], row["outcome"]) == (run["id"], "created")
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


def test_create_with_dry_run_or_without_yes_starts_no_run(lab: ApiLab) -> None:
    before = runs(lab)
    started = lab("phylo-runs", "create", *FIRST, *TARGETED)
    assert (started.code, started.out) == (3, "")
    ended = lab("phylo-runs", "create", *FIRST, *TARGETED, "--dry-run", "-o", "json")
    assert (ended.code, ended.json[0]["outcome"]) == (0, "create")
    assert (ended.json[0]["id"], ended.json[0]["name"]) == (None, "Cannery")
    assert "Would start run 'Cannery' with 2 samples in group 1" in ended.err
    assert runs(lab) == before


def test_create_with_unknown_sample_starts_no_run(lab: ApiLab) -> None:
    before = runs(lab)
    ended = lab("phylo_runs", "create", *FIRST, "nope", *TARGETED, "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "nope" in ended.err
    assert runs(lab) == before
    ended = lab("phylo_runs", "create", *FIRST, "nope", *TARGETED, "--yes", "--skip-missing")
    assert ended.code == 0
    assert len(runs(lab)) == len(before) + 1


@pytest.mark.parametrize("delivered", [True, False])
def test_create_with_lost_response_starts_exactly_one_run(
    lab: ApiLab, serving: Serving, delivered: bool
) -> None:
    before = len(runs(lab))
    # Names are looked up by a POST, too, and that one is retried.
    relay = serving(route=Relay(lab.service.url, "POST", [False, delivered]))
    command = ("phylo-runs", "create", *FIRST, *TARGETED, "--yes", "-o", "json")
    ended = lab("--api", relay.url, *command)
    assert ended.code == 0, ended.err
    assert len(runs(lab)) == before + 1
    assert ended.json[0]["id"] == runs(lab)[-1]["id"]


def test_viewer_cannot_create_run(lab: ApiLab) -> None:
    shown = lab("samples", "list", "--group", "1", "--public", "--limit", "1", "-o", "json").json
    name = shown[0]["public_identifier"]
    ended = lab("phylo-runs", "create", name, *TARGETED, "--yes", who="viewer")
    assert (ended.code, ended.out) == (4, "")
    assert len(runs(lab)) == 4


def test_update_renames_run_and_its_tree(lab: ApiLab) -> None:
    run = of(lab, "COMPLETED")
    ended = lab("phylo-runs", "update", str(run), "--name", "New", "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert (ended.json[0]["name"], ended.json[0]["outcome"]) == ("New", "updated")
    assert runs(lab)[0]["phylo_tree"]["name"] == "New"
    again = lab("phylo-runs", "update", str(run), "--name", "New", "--yes", "-o", "json")
    assert (again.code, again.json[0]["outcome"]) == (0, "unchanged")


def test_delete_removes_runs_but_none_if_one_is_missing(lab: ApiLab) -> None:
    done, failed = of(lab, "COMPLETED"), of(lab, "FAILED")
    ended = lab("phylo-runs", "delete", str(done), "999", "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "No such run in group 1" in ended.err
    assert ": 999" in ended.err
    ended = lab("phylo-runs", "delete", str(done), str(failed), "--dry-run", "-o", "json")
    assert [row["outcome"] for row in ended.json] == ["delete"] * 2
    ended = lab("phylo-runs", "delete", str(done), str(failed), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [(row["id"], row["outcome"]) for row in ended.json] == [
        (done, "deleted"),
        (failed, "deleted"),
    ]
    with lab.service.database.reading() as session:
        left = session.scalars(sa.select(PhyloRun.id).where(PhyloRun.id.in_([done, failed])))
        assert list(left) == []


def test_delete_reads_run_ids_from_stdin_and_table(lab: ApiLab, tmp_path: Path) -> None:
    done, failed = of(lab, "COMPLETED"), of(lab, "FAILED")
    piped = lab("phylo-runs", "delete", "-", "--dry-run", "-o", "json", stdin=f"{done}\n{failed}\n")
    assert [row["id"] for row in piped.json] == [done, failed]
    table = tmp_path / "runs.csv"
    table.write_text(f"id,name\n{failed},x\n{failed},x\n")
    ended = lab("phylo-runs", "delete", "--from", str(table), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [(row["id"], row["outcome"]) for row in ended.json] == [(failed, "deleted")]


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        ((), 2, "No identifiers given"),
        (("seven",), 2, "Invalid run ID: 'seven'"),
        (("-",), 2, "No identifiers given"),
        (("99999999999999",), 2, "Invalid run ID"),
    ],
)
def test_delete_with_missing_or_invalid_ids_deletes_no_run(
    lab: ApiLab, keys: tuple[str, ...], code: int, words: str
) -> None:
    before = runs(lab)
    ended = lab("phylo-runs", "delete", *keys, "--yes", stdin="")
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert runs(lab) == before


@pytest.mark.parametrize("dry", [("--dry-run",), ("--yes",)])
def test_runs_in_progress_cannot_be_deleted_or_renamed(lab: ApiLab, dry: tuple[str, ...]) -> None:
    before = runs(lab)
    failed, started = of(lab, "FAILED"), of(lab, "STARTED")
    ended = lab("phylo-runs", "delete", str(failed), str(started), *dry)
    assert (ended.code, ended.out) == (7, "")
    assert f"Still in progress: run {started}; nothing was changed" in ended.err
    renamed = lab("phylo-runs", "update", str(started), "--name", "New", *dry)
    assert (renamed.code, renamed.out) == (7, "")
    assert runs(lab) == before


def test_delete_of_run_of_another_group_exits_with_6(lab: ApiLab) -> None:
    own = {run["id"] for run in runs(lab) if run["group"]["id"] == 1}
    with lab.service.database.reading() as session:
        foreign = session.scalars(sa.select(PhyloRun.id).where(PhyloRun.id.not_in(own))).first()
    ended = lab("phylo-runs", "delete", str(foreign), "--yes")
    assert (ended.code, ended.out) == (6, "")
    assert "No such run in group 1" in ended.err
    assert f": {foreign}" in ended.err


def test_failed_delete_reports_runs_deleted_before_error(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.cli.context import AppContext

    done, failed = of(lab, "COMPLETED"), of(lab, "FAILED")
    asked = AppContext.authorize

    def meanwhile(self: AppContext, *args: Any, **kwargs: Any) -> None:
        with lab.service.database.begin() as session:
            session.execute(
                sa.update(Workflow)
                .where(Workflow.id == done)
                .values(workflow_status=WorkflowStatus.STARTED)
            )
        asked(self, *args, **kwargs)

    monkeypatch.setattr(AppContext, "authorize", meanwhile)
    ended = lab("phylo-runs", "delete", str(failed), str(done), "--yes", "-o", "json")
    assert ended.code == 7
    assert [row["id"] for row in json.loads(ended.out)] == [failed]
    assert "1 of 2 runs were deleted before the error" in ended.err
    assert "in-progress" in ended.err


def test_interrupted_delete_reports_deleted_runs(lab: ApiLab) -> None:
    done, failed = of(lab, "COMPLETED"), of(lab, "FAILED")
    command = ("phylo-runs", "delete", str(failed), str(done), "--yes", "-o", "json")
    with lab.service.database.begin() as session:
        session.execute(sa.select(Workflow.id).where(Workflow.id == done).with_for_update())
        ended = lab.interrupt(lab.start(*command, "--debug"), "DELETE", count=2)
        session.rollback()
    assert ended.code == 130
    assert [row["id"] for row in ended.json] == [failed]
    assert "1 of 2 runs were deleted before the error (listed above)" in ended.err


@pytest.mark.parametrize("delivered", [True, False])
def test_update_with_lost_response_is_retried(
    lab: ApiLab, serving: Serving, delivered: bool
) -> None:
    run = of(lab, "COMPLETED")
    relay = serving(route=Relay(lab.service.url, "PUT", [delivered]))
    ended = lab(
        *("--api", relay.url, "phylo-runs", "update", str(run), "--name", "New"),
        *("--yes", "-o", "json"),
    )
    assert ended.code == 0, ended.err
    assert (ended.json[0]["name"], ended.json[0]["outcome"]) == ("New", "updated")


@pytest.mark.parametrize("delivered", [True, False])
def test_delete_with_lost_response_deletes_run(
    lab: ApiLab, serving: Serving, delivered: bool
) -> None:
    failed = of(lab, "FAILED")
    relay = serving(route=Relay(lab.service.url, "DELETE", [delivered]))
    ended = lab("--api", relay.url, "phylo-runs", "delete", str(failed), "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [failed]
