"""Reading only the newest runs, replacing the journal, and removing old records."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from aspencli.changes.journal import Journal
from aspencli.changes.retention import plan_pruning, prune, stored
from aspencli.changes.runs import Event, runs_of
from tests.conftest import CliRunner

NOW = dt.datetime(2026, 11, 29, tzinfo=dt.UTC)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASPEN_HOME", str(tmp_path))
    return tmp_path / "state"


@pytest.fixture
def journal(state: Path) -> Journal:
    return Journal(state / "history")


def record(
    journal: Journal, number: int, *, days: int = 0, end: str | None = "written", **facts: Any
) -> str:
    """Append a run that started some days ago, with an undo file of that age."""
    run = f"20261101-{number:06d}-0000"
    at = NOW - dt.timedelta(days=days)
    undo = journal.path.parents[1] / "undo" / f"{run}.csv"
    undo.parent.mkdir(parents=True, exist_ok=True)
    undo.write_text("x" * 100)
    os.utime(undo, (at.timestamp(), at.timestamp()))
    own = {"event": "started", "run": run, "at": at.isoformat(), "target": "local", **facts}
    journal.append(own, begins=True)
    for event in ({"event": "committing", "undo_file": str(undo)}, {"event": "ended"}):
        if end is not None:
            outcome = {"outcome": end} if event["event"] == "ended" else {}
            journal.append({**event, "run": run, "at": at.isoformat(), **outcome})
    return run


def started(events: tuple[Event, ...]) -> list[str]:
    return [event["run"] for event in events if event["event"] == "started"]


@pytest.mark.parametrize("block", [7, 100, 1 << 16])
def test_read_recent_returns_newest_runs(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("aspencli.changes.journal._BLOCK", block)
    runs = [record(journal, number) for number in range(10)]
    assert journal.read_recent(99) == journal.read()
    recent = journal.read_recent(3)
    assert started(recent.events) == runs[-3:]
    assert runs_of(recent.events) == runs_of(journal.read().events)[:3]
    assert journal.count_runs() == 10


def test_read_recent_with_filter_skips_runs_of_other_targets(journal: Journal) -> None:
    wanted = [record(journal, number, target="prod") for number in range(2)]
    for number in range(2, 6):
        record(journal, number)
    recent = journal.read_recent(1, lambda event: event["target"] == "prod")
    assert started(recent.events)[0] == wanted[1]


def test_read_recent_reports_line_numbers_of_torn_lines(journal: Journal) -> None:
    record(journal, 1)
    with journal.path.open("ab") as file:
        file.write(b'{"torn": \n')
    record(journal, 2)
    assert journal.read_recent(9).torn == journal.read().torn == (4,)


def test_read_recent_memory_does_not_grow_with_journal_size(journal: Journal) -> None:
    record(journal, 0)
    many = journal.path.read_bytes() * 20_000
    journal.path.write_bytes(many)
    record(journal, 1)
    code = """
        import resource, sys
        from pathlib import Path
        from aspencli.changes.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        found = journal.read_recent(20)
        assert sum(event["event"] == "started" for event in found.events) == 20
        assert journal.count_runs() == 20_001
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(journal.path.parent)]
    grown = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert grown < 2_000, f"{grown} kB for {len(many):,} bytes"


def test_pruning_removes_old_runs_and_their_undo_files(journal: Journal, state: Path) -> None:
    old = record(journal, 1, days=200)
    failed = record(journal, 2, days=190, end="rolled back")
    recent = record(journal, 3, days=10)
    plan = plan_pruning(runs_of(journal.read().events), NOW - dt.timedelta(days=180))
    assert [run.id for run in plan.runs] == [failed, old]
    assert [run.id for run in plan.undoable] == [old]
    assert plan.size == 200
    assert prune(journal, plan) == []
    assert [run.id for run in runs_of(journal.read().events)] == [recent]
    assert [path.name for path in (state / "undo").iterdir()] == [f"{recent}.csv"]
    again = plan_pruning(runs_of(journal.read().events), NOW - dt.timedelta(days=180))
    assert again.is_empty


def test_pruning_keeps_unfinished_and_unknown_runs(journal: Journal, state: Path) -> None:
    dead = {"host": "elsewhere", "pid": 1, "process_started": "x"}
    open_ = record(journal, 1, days=400, end=None, **dead)
    unknown = record(journal, 2, days=400, end="unknown")
    plan = plan_pruning(runs_of(journal.read().events), NOW)
    assert {run.id for run in plan.kept} == {open_, unknown}
    assert not plan.runs
    # No event names the undo file of the first one, so its age alone decides.
    assert [path.name for kind in plan.files for path in kind.paths] == [f"{open_}.csv"]


@pytest.mark.parametrize("end", ["unknown", "unfinished", None])
def test_pruning_keeps_the_undo_file_of_a_run_whose_undo_did_not_end(
    journal: Journal, state: Path, end: str | None
) -> None:
    elsewhere = {"host": "elsewhere", "pid": 1, "process_started": "x"}
    run = record(journal, 1, days=400)
    record(journal, 2, days=1, end=end, undo_of=run, **elsewhere)
    plan = plan_pruning(runs_of(journal.read().events), NOW - dt.timedelta(days=180))
    assert not plan.runs
    assert (state / "undo" / f"{run}.csv") not in {
        path for kind in plan.files for path in kind.paths
    }


def test_pruning_removes_old_files_that_belong_to_no_run(journal: Journal, state: Path) -> None:
    crashes = state / "crashes"
    crashes.mkdir(parents=True)
    for name, days in (("old.txt", 300), ("new.txt", 1)):
        (crashes / name).write_text("trace")
        at = (NOW - dt.timedelta(days=days)).timestamp()
        os.utime(crashes / name, (at, at))
    plan = plan_pruning([], NOW - dt.timedelta(days=180))
    assert prune(journal, plan) == []
    assert [path.name for path in crashes.iterdir()] == ["new.txt"]
    assert {kind.kind: len(kind.paths) for kind in stored()}["crash reports"] == 1


def test_journal_rewrite_keeps_concurrently_appended_events(journal: Journal) -> None:
    record(journal, 0, days=400)
    code = """
        import sys
        from pathlib import Path
        from aspencli.changes.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        for number in range(300):
            journal.append({"event": "started", "run": f"{sys.argv[2]}-{number}",
                            "at": "2026-11-29T00:00:00+00:00", "target": "local"})
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(journal.path.parent)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b")]
    rewrites = 0
    while any(writer.poll() is None for writer in writers):
        journal.rewrite(lambda event: not event["run"].startswith("20261101"), NOW)
        rewrites += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert rewrites > 2
    runs = started(journal.read().events)
    assert sorted(runs) == sorted(f"{name}-{number}" for name in "ab" for number in range(300))


def test_history_prune_previews_confirms_and_removes_runs(
    journal: Journal, state: Path, run_cli: CliRunner
) -> None:
    old, recent = record(journal, 1, days=20_000), record(journal, 2, days=-1)
    before = journal.path.read_bytes()

    def cli(*words: str) -> tuple[int, str, str]:
        done = run_cli(*words, env={"ASPEN_HOME": str(state.parent)})
        return done.code, done.out, done.err

    code, out, err = cli("history", "prune", "--dry-run", "--output", "json")
    assert (code, journal.path.read_bytes()) == (0, before)
    assert {"kind": "runs", "number": 1, "bytes": None, "outcome": "delete"} in json.loads(out)
    assert f"1 run can no longer be undone: {old}" in err
    code, _, err = cli("history", "prune", "--no-input")
    assert (code, journal.path.read_bytes()) == (3, before)
    code, _, err = cli("history", "prune", "--yes")
    assert code == 0
    assert "Removed 1 run, 100 bytes" in err
    assert [run.id for run in runs_of(journal.read().events)] == [recent]
    code, out, err = cli("history", "prune", "--yes")
    assert code == 0
    assert "Nothing to change." in err


def test_history_total_counts_only_runs_of_given_target(
    journal: Journal, state: Path, run_cli: CliRunner
) -> None:
    for number in range(5):
        record(journal, number, target="prod" if number < 3 else "local")
    words = ("history", "--output", "table", "--limit", "1")
    for target, total in ((("--target", "prod"), 3), ((), 5)):
        done = run_cli(*words, *target, env={"ASPEN_HOME": str(state.parent)})
        assert done.code == 0, done.err
        assert f"1 of {total} runs shown" in done.err


def test_pruning_plan_does_not_compare_runs_pairwise(journal: Journal) -> None:
    run = record(journal, 0, days=400)
    (one,) = runs_of(journal.read().events)
    compared = 0

    class Counted(type(one)):  # type: ignore[misc] # the class of a run, whatever it is called
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return bool(super().__eq__(other))

        __hash__ = type(one).__hash__

    many = [Counted(**{**vars(one), "id": f"{run}-{number}"}) for number in range(500)]
    plan = plan_pruning(many, NOW)
    assert (len(plan.runs), compared) == (500, 0)
