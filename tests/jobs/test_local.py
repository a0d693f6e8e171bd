"""``aspencli jobs`` on this machine: the engine's jobs and the rows of the database as one."""

from __future__ import annotations

import datetime as dt
import sys
from types import ModuleType, SimpleNamespace

import pytest

from aspen.workflows.engine import State
from aspencli.cli import job_access
from tests.jobs.conftest import NOW, Operator
from tests.jobs.memory import MemoryEngine

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def here(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Return an operator whose target is on this machine."""
    url = operator.database.url.render_as_string(hide_password=False)
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", url)
    monkeypatch.delenv("ASPEN_DATABASE_URL_STAGING")
    operator.target = ()
    return operator


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> MemoryEngine:
    found = MemoryEngine()
    monkeypatch.setattr(job_access, "open_engine", lambda _context: found)
    return found


def test_list_shows_rows_and_jobs_as_one(here: Operator, engine: MemoryEngine) -> None:
    run = here.add_run("STARTED", NOW - HOUR)
    waits = here.add_run("STARTED", NOW)
    engine.add(f"phylo-run-{run}", State.RUNNING)
    engine.add("qc-1", State.FAILED, kind="qc", parameters={"pathogen": "MPX"}, reason="no genome")
    found = {row["id"]: row for row in here.json("jobs", "list")}
    assert (found[str(run)]["state"], found[str(run)]["step"]) == ("running", "2 of 7: tree-align")
    assert found[str(run)]["job"] == f"phylo-run-{run}"
    assert found[str(waits)]["state"] == "queued"
    assert (found["qc-1"]["state"], found["qc-1"]["pathogen"]) == ("failed", "MPX")
    kinds = here.json("jobs", "list", "--kind", "qc")
    assert [row["id"] for row in kinds] == ["qc-1"]


def test_why_names_step_reason_and_last_lines(here: Operator, engine: MemoryEngine) -> None:
    run = here.add_run("FAILED", NOW - HOUR, ended=NOW)
    job = f"phylo-run-{run}"
    engine.add(job, State.FAILED, reason="Sample X has no genome.", attempts=2)
    engine.lines[job] = [("tree-export", "old"), ("tree-align", "Sample X has no genome.")]
    (found,) = here.json("jobs", "why", str(run))
    assert (found["cause"], found["reason"]) == ("failed", "Sample X has no genome.")
    assert (found["log"], found["attempts"]) == ("Sample X has no genome.", 2)
    assert "jobs retry" in found["next"]


def test_why_of_run_that_waits_for_the_worker(here: Operator, engine: MemoryEngine) -> None:
    run = here.add_run("STARTED", NOW)
    (found,) = here.json("jobs", "why", str(run))
    assert found["cause"] == "never-started"
    assert "local up" in found["next"]


def test_logs_of_a_step(here: Operator, engine: MemoryEngine) -> None:
    engine.add("qc-1", State.DONE, kind="qc")
    engine.lines["qc-1"] = [("qc-prepare", "a"), ("qc-save", "b\x1b[31m")]
    assert here("jobs", "logs", "qc-1").out.split()[0] == "a"
    shown = here("jobs", "logs", "qc-1", "--step", "qc-save").out
    assert shown.startswith("b")
    assert "\x1b" not in shown


def test_cancel_and_retry_keep_one_job(here: Operator, engine: MemoryEngine) -> None:
    run = here.add_run("STARTED", NOW - HOUR)
    job = f"phylo-run-{run}"
    engine.add(job, State.RUNNING)
    done = here("jobs", "cancel", str(run), "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert engine.known[job].state is State.CANCELLED
    assert here.row(run)[0] == "FAILED"
    again = here("jobs", "retry", str(run), "--yes", "-o", "json")
    assert again.code == 0, again.err
    assert engine.known[job].state is State.QUEUED
    assert list(engine.known) == [job]


def test_cancel_before_the_job_exists_says_when_to_look_again(
    here: Operator, engine: MemoryEngine
) -> None:
    run = here.add_run("STARTED", NOW)
    ended = here("jobs", "cancel", str(run), "--yes")
    assert ended.code == 7
    assert "has not been started yet" in ended.err
    assert here.row(run)[0] == "STARTED"


def test_start_checks_parameters(here: Operator, engine: MemoryEngine) -> None:
    done = here(
        *("jobs", "start", "qc", "--pathogen", "SC2", "--stale", "--yes", "-o", "json"),
    )
    assert done.code == 0, done.err
    (job,) = engine.known.values()
    assert job.parameters == {"pathogen": "SC2", "run_type": "refresh-stale", "sample_ids": []}
    assert done.json[0]["id"] == job.id
    missing = here("jobs", "start", "import-repository", "--metadata", "m.tsv", "--yes")
    assert missing.code == 2
    assert "--repository, --sequences" in missing.err


def test_start_import_has_full_paths(here: Operator, engine: MemoryEngine) -> None:
    words = ("--pathogen", "SC2", "--file", "notes.txt", "--yes")
    assert here("jobs", "start", "import-lineages", *words).code == 0
    (job,) = engine.known.values()
    assert job.parameters["file"].startswith("/")
    assert job.parameters["file"].endswith("/notes.txt")


def test_start_import_of_repository_keeps_its_name(here: Operator, engine: MemoryEngine) -> None:
    words = ("--pathogen", "SC2", "--repository", "GenBank", "--metadata", "m.tsv", "--yes")
    files = ("--sequences", "https://example.org/s.fasta", "--coordinates", "c.tsv")
    assert here("jobs", "start", "import-repository", *words, *files).code == 0
    (job,) = engine.known.values()
    assert job.parameters["repository"] == "GenBank"
    assert job.parameters["sequences"] == "https://example.org/s.fasta"
    assert all(job.parameters[name].startswith("/") for name in ("metadata", "coordinates"))


def test_reconcile_settles_runs_whose_job_ended_or_is_gone(
    here: Operator, engine: MemoryEngine
) -> None:
    runs = {
        name: here.add_run("STARTED", NOW - HOUR)
        for name in ("failed", "gone", "running", "queued")
    }
    new = here.add_run("STARTED", NOW)
    engine.add(f"phylo-run-{runs['failed']}", State.FAILED)
    engine.add(f"phylo-run-{runs['running']}", State.RUNNING)
    engine.add(f"phylo-run-{runs['queued']}", State.QUEUED)
    done = here("jobs", "reconcile", "--yes", "-o", "json")
    assert done.code == 0, done.err
    assert {row["id"] for row in done.json} == {runs["failed"], runs["gone"]}
    statuses = here.statuses()
    assert statuses[runs["failed"]] == statuses[runs["gone"]] == "FAILED"
    assert statuses[runs["running"]] == statuses[runs["queued"]] == statuses[new] == "STARTED"


# Without what runs jobs


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dbos", None)


def test_list_without_engine_shows_runs_and_how_to_install(
    here: Operator, without_engine: None
) -> None:
    run = here.add_run("STARTED", NOW - HOUR)
    ended = here("jobs", "list", "-o", "json")
    assert ended.code == 0, ended.err
    assert "pip install 'aspencli[workflows]', or: make workflows" in ended.err
    (found,) = [row for row in ended.json if row["id"] == str(run)]
    assert found["status"] == "STARTED"


@pytest.mark.parametrize(
    "words",
    [
        ("start", "qc", "--pathogen", "SC2", "--stale", "--yes"),
        ("cancel", "{}", "--yes"),
        ("retry", "{}", "--yes"),
        ("reconcile", "--yes"),
        ("logs", "{}"),
    ],
)
def test_command_without_engine_says_how_to_install(
    here: Operator, without_engine: None, words: tuple[str, ...]
) -> None:
    run = here.add_run("STARTED", NOW - HOUR)
    before = here.statuses()
    ended = here("jobs", *(word.format(run) for word in words))
    assert ended.code == 6, ended.err
    assert "make workflows" in ended.err
    assert here.statuses() == before


def test_database_of_another_deployment_has_no_engine(here: Operator) -> None:
    pytest.importorskip("dbos", reason="make workflows")
    run = here.add_run("STARTED", NOW - HOUR)
    ended = here("jobs", "cancel", str(run), "--yes")
    assert ended.code == 6
    assert "Nothing runs jobs for this target" in ended.err
    assert "local up" in ended.err


# The schedule


def test_schedule_lists_planned_trees(here: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("aspen.workflows.tree.schedule")

    def planned(session: object, today: dt.date) -> list[SimpleNamespace]:
        assert session is not None
        return [
            SimpleNamespace(group="CZI", name="CZI Build", period="12 weeks", skipped="", run_id=9),
            SimpleNamespace(group="X", name="X Build", period="", skipped="no data", run_id=None),
        ]

    module.planned = planned  # type: ignore[attr-defined]  # a stand-in
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found = here.json("jobs", "schedule", "list")
    assert [(row["group"], row["enabled"], row["note"]) for row in found] == [
        ("CZI", True, "run 9"),
        ("X", False, "no data"),
    ]


def test_schedule_without_module_says_how_to_install(
    here: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aspen.workflows.tree.schedule", None)
    ended = here("jobs", "schedule", "list")
    assert ended.code == 0, ended.err
    assert "make workflows" in ended.err
