"""Saving of trees: once, completely, and also after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Engine

from aspen.local.aws.content import DB_BUCKET
from aspen.workflows.steps import StepError, Workspace
from aspen.workflows.steps.tree_save import run as run_save
from aspen.workflows.store import Store
from tests.workflows.sub.lab import HOME, Lab, context_row

NAMES = ["hCoV-19/USA/CA-1/2023", "USA/CA-2/2023", "USA/CA-3/2023"]
TIPS = ["USA/CA-1/2023", "USA/CA-2/2023", "USA/CA-3/2023", "Wuhan/Hu-1/2019", "Japan/CTX-1/2022"]
_TREES = """
SELECT t.entity_id, t.s3_key, t.name, t.tree_type, e.group_id,
       array(SELECT sample_id FROM aspen.phylo_tree_samples WHERE phylo_tree_id = t.entity_id
              ORDER BY 1)
  FROM aspen.phylo_trees t JOIN aspen.entities e ON e.id = t.entity_id
 WHERE e.producing_workflow_id = :run
"""
_RUN = """
SELECT workflow_status, end_datetime IS NOT NULL, software_versions
  FROM aspen.workflows WHERE id = :run
"""
_LEFTOVERS = """
SELECT (SELECT count(*) FROM aspen.entities WHERE entity_type = 'PHYLO_TREE')
     - (SELECT count(*) FROM aspen.phylo_trees)
"""


@pytest.fixture
def run(lab: Lab) -> int:
    """Start a run of the first two samples; the third is context. Return its ID."""
    chosen = lab.add_samples(NAMES)[:2]
    dump = lab.context([context_row(1, HOME, date(2022, 5, 1))])
    run = lab.start("OVERVIEW", chosen, dump=dump)
    lab.export()
    lab.assemble(TIPS)
    return run


def key_of(run: int) -> str:
    return f"phylo_run/Alameda County/OVERVIEW/{run}/ncov_aspen.json"


def check_saved(lab: Lab, run: int) -> int:
    """Assert that a run has exactly one complete tree, and return its ID."""
    ((tree, key, name, kind, group, samples),) = lab.rows(_TREES, run=run)
    assert (key, name, kind, group) == (key_of(run), "Cluster", "OVERVIEW", 2)
    assert samples == sorted(lab.samples[one] for one in NAMES[:2])
    ((status, ended, _),) = lab.rows(_RUN, run=run)
    assert (status, ended) == ("COMPLETED", True)
    stored = lab.read_object(key)
    assert stored == (lab.folder / "tree-assemble" / "tree.json").read_bytes()
    assert lab.rows(_LEFTOVERS) == [(0,)]
    return int(tree)


def test_tree_is_saved_with_chosen_samples_only(lab: Lab, run: int) -> None:
    (lab.folder / "tree-align").mkdir()
    (lab.folder / "tree-align" / "versions.json").write_text('{"edlib": "1.3.9"}')
    lab.save()
    check_saved(lab, run)
    ((_, _, versions),) = lab.rows(_RUN, run=run)
    assert versions == {"edlib": "1.3.9", "aspen_workflow": version("aspencli")}
    ((resolved,),) = lab.rows("SELECT resolved_template_args FROM aspen.phylo_trees")
    assert resolved["location"]["division"] == "California"


def test_missing_tip_is_not_linked_and_is_named(
    lab: Lab, run: int, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.assemble(TIPS[1:])
    lab.save()
    ((*_, samples),) = lab.rows(_TREES, run=run)
    assert samples == [lab.samples[NAMES[1]]]
    assert "does not show the chosen sample USA/CA-1/2023" in capsys.readouterr().err


def test_second_execution_changes_nothing(lab: Lab, run: int) -> None:
    lab.save()
    tree = check_saved(lab, run)
    before = lab.rows(_RUN, run=run)
    lab.save()
    assert check_saved(lab, run) == tree
    assert lab.rows(_RUN, run=run) == before


def test_completed_run_keeps_its_tree(lab: Lab, run: int) -> None:
    lab.save()
    tree = check_saved(lab, run)
    path = lab.folder / "tree-assemble" / "tree.json"
    kept = path.read_bytes()
    lab.assemble(TIPS[:2], other=True)
    with pytest.raises(StepError, match=f"^Run {run} is completed with another tree"):
        lab.save()
    path.write_bytes(kept)
    assert check_saved(lab, run) == tree


def test_tree_of_earlier_attempt_is_replaced(lab: Lab, run: int) -> None:
    lab.save()
    with lab.database.begin() as session:
        session.execute(
            sa.text("UPDATE aspen.workflows SET workflow_status = 'FAILED' WHERE id = :run"),
            {"run": run},
        )
    lab.assemble([*TIPS, "Japan/CTX-2/2022"])
    lab.save()
    check_saved(lab, run)


def test_run_deleted_meanwhile_is_refused(lab: Lab, run: int) -> None:
    with lab.database.begin() as session:
        for table, column in (
            ("workflow_inputs", "workflow_id"),
            ("phylo_runs", "workflow_id"),
            ("workflows", "id"),
        ):
            session.execute(
                sa.text(f"DELETE FROM aspen.{table} WHERE {column} = :run"),
                {"run": run},
            )
    with pytest.raises(StepError, match=f"^Run {run} was deleted"):
        lab.save()


def test_sample_deleted_meanwhile_is_left_out(lab: Lab, run: int) -> None:
    gone = lab.samples[NAMES[0]]
    statements = """
        DELETE FROM aspen.workflow_inputs WHERE entity_id IN (
            SELECT pathogen_genome_id FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :gone);
        DELETE FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :gone;
        DELETE FROM aspen.samples WHERE id = :gone
    """
    with lab.database.begin() as session:
        for statement in statements.split(";"):
            session.execute(sa.text(statement), {"gone": gone})
    lab.save()
    ((*_, samples),) = lab.rows(_TREES, run=run)
    assert samples == [lab.samples[NAMES[1]]]


@pytest.mark.parametrize("content", ["{", "[]", '{"tree": {"children": [{}]}}', '{"meta": 1}'])
def test_file_that_is_no_tree_is_refused(lab: Lab, run: int, content: str) -> None:
    (lab.folder / "tree-assemble" / "tree.json").write_text(content)
    with pytest.raises(StepError, match=r"^tree\.json is not a tree"):
        lab.save()
    assert lab.rows(_TREES, run=run) == []


def test_bucket_that_does_not_exist_is_named(lab: Lab, run: int) -> None:
    exported = lab.folder / "tree-export" / "run.json"
    assert DB_BUCKET in exported.read_text()
    made = lab.workspace("tree-save")
    other = type(made.surroundings)(
        **{**vars(made.surroundings), "bucket": "missing-bucket-of-tests"}
    )
    with pytest.raises(StepError, match=r"^Cannot write s3://missing-bucket-of-tests/phylo_run/"):
        run_save(Workspace(lab.folder, "tree-save", other))
    assert lab.rows(_TREES, run=run) == []


class Killed(BaseException):
    """The end of a process; nothing in it runs any more."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """End the process before or after one of its statements or uploads, by number."""
    done: list[str] = []

    def count(what: str) -> None:
        done.append(what)
        if len(done) == number:
            raise Killed

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        count(statement)

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        count(f"after {statement}")

    def at_commit(_connection: Any) -> None:
        count("COMMIT")

    upload = Store.upload

    def uploading(self: Store, path: Path, key: str) -> None:
        count("upload")
        upload(self, path, key)
        count("after upload")

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    event.listen(Engine, "commit", at_commit)
    Store.upload = uploading  # type: ignore[method-assign] # undone below
    try:
        yield done
    finally:
        Store.upload = upload  # type: ignore[method-assign] # as before
        event.remove(Engine, "before_cursor_execute", before)
        event.remove(Engine, "after_cursor_execute", after)
        event.remove(Engine, "commit", at_commit)


def test_kill_at_any_moment_leaves_one_tree_after_repetition(lab: Lab, run: int) -> None:
    lab.save()
    start_again(lab, run)
    with killed_at(0) as statements:
        lab.save()
    moments = len(statements)
    assert moments > 20
    assert statements[-1] == "COMMIT"
    for moment in range(1, moments + 1):
        start_again(lab, run)
        with killed_at(moment), pytest.raises(Killed):
            lab.save()
        ((status, _, _),) = lab.rows(_RUN, run=run)
        assert status == "STARTED"
        lab.save()
        check_saved(lab, run)


def start_again(lab: Lab, run: int) -> None:
    with lab.database.begin() as session:
        session.execute(
            sa.text("UPDATE aspen.workflows SET workflow_status = 'STARTED' WHERE id = :run"),
            {"run": run},
        )


def test_object_is_written_before_its_row(lab: Lab, run: int) -> None:
    with killed_at(0) as done:
        lab.save()
    first_row = next(n for n, what in enumerate(done) if "INSERT INTO aspen.phylo_trees" in what)
    assert done.index("after upload") < first_row < done.index("COMMIT")
    assert json.loads(lab.read_object(key_of(run)))["version"] == "v2"
