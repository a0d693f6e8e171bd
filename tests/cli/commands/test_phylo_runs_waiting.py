"""``phylo-runs create --wait`` through an API whose jobs run elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from aspen.database.models import PhyloTree, WorkflowStatus
from tests.cli.commands.api_lab import ApiLab

CREATE = (
    *("phylo-runs", "create", "RCPHL-0000001", "RCPHL-0000002"),
    *("--name", "Cannery", "--tree-type", "targeted", "--yes", "--wait"),
)
_NEW = "SELECT max(workflow_id) FROM aspen.phylo_runs WHERE name = 'Cannery'"


@pytest.fixture
def lab(api_lab: ApiLab) -> ApiLab:
    return api_lab


def end_run(lab: ApiLab, status: WorkflowStatus, *, tree: bool) -> Callable[[], None]:
    """Return a function that waits for the run to start, and ends it as its job would."""

    def act() -> None:
        run = None
        while run is None:
            with lab.service.database.begin() as session:
                run = session.scalar(sa.text(_NEW))
                if run is None:
                    continue
                if tree:
                    known = session.scalars(sa.select(PhyloTree).limit(1)).one()
                    made = PhyloTree(
                        producing_workflow_id=run,
                        group_id=known.group_id,
                        pathogen_id=known.pathogen_id,
                        contextual_repository_id=known.contextual_repository_id,
                        s3_bucket="genepi-db-data",
                        s3_key=f"new/{run}",
                        name="Cannery",
                    )
                    session.add(made)
                text = "UPDATE aspen.workflows SET workflow_status = :status WHERE id = :run"
                session.execute(sa.text(text), {"status": status.value, "run": run})

    return act


def test_wait_ends_with_tree(lab: ApiLab) -> None:
    job = threading.Thread(target=end_run(lab, WorkflowStatus.COMPLETED, tree=True))
    job.start()
    ended = lab(*CREATE, "-o", "json")
    job.join()
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert (row["workflow_status"], row["outcome"]) == ("COMPLETED", "created")
    assert row["phylo_tree"] > 0
    assert f"Run {row['id']} completed: tree {row['phylo_tree']}." in ended.err
    assert f"phylo-trees download {row['phylo_tree']}" in ended.err


def test_wait_for_run_that_fails_ends_with_code_1(lab: ApiLab) -> None:
    job = threading.Thread(target=end_run(lab, WorkflowStatus.FAILED, tree=False))
    job.start()
    ended = lab(*CREATE, "-o", "json")
    job.join()
    assert ended.code == 1
    (row,) = ended.json
    assert row["workflow_status"] == "FAILED"
    assert f"Run {row['id']} failed." in ended.err


def test_wait_that_takes_too_long_leaves_run_going(lab: ApiLab) -> None:
    ended = lab(*CREATE, "--timeout", "1", "-o", "json")
    assert ended.code == 5
    (row,) = ended.json
    assert row["workflow_status"] == "STARTED"
    assert f"Run {row['id']} has not ended after 1 second; it continues." in ended.err
    assert "phylo-runs list" in ended.err


def test_interrupted_wait_leaves_run_going(lab: ApiLab) -> None:
    process = lab.start(*CREATE, "-o", "json")
    ended = lab.interrupt(process, "Started run")
    assert ended.code == 130
    (row,) = ended.json
    assert row["workflow_status"] == "STARTED"
    assert f"Run {row['id']} continues in the background." in ended.err
    assert "phylo-runs list" in ended.err


def test_timeout_without_wait_is_refused(lab: ApiLab) -> None:
    ended = lab(*CREATE[:-1], "--timeout", "1")
    assert (ended.code, ended.out) == (2, "")
    assert "--timeout requires --wait" in ended.err


def test_dry_run_does_not_wait(lab: ApiLab) -> None:
    ended = lab(*CREATE, "--dry-run", "-o", "json")
    assert (ended.code, ended.json[0]["outcome"]) == (0, "create")
