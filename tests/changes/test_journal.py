from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aspencli.changes import journal as history
from aspencli.changes.journal import Journal, Recording
from aspencli.changes.runs import (
    Counts,
    InputFile,
    Outcome,
    Place,
    Run,
    Subject,
    find,
    looks_like_id,
    runs_of,
)
from aspencli.config import command_for
from aspencli.errors import BadInputError, NotFoundError
from aspencli.machine import Process, start_of, this_process

AT = "2026-11-24T03:40:12.345678+00:00"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "history")


def event(name: str, run: str = "20261124-034012-3f9a", **facts: Any) -> dict[str, Any]:
    return {"event": name, "run": run, "at": AT, **facts}


def started(run: str = "20261124-034012-3f9a", **facts: Any) -> dict[str, Any]:
    process = this_process()
    own = {"host": process.host, "pid": process.pid, "process_started": process.started}
    return event("started", run, **(own | {"target": "local", **facts}))


def ids(journal: Journal) -> list[str]:
    return [each["run"] for each in journal.read().events]


def only(*events: Mapping[str, Any]) -> Run:
    (run,) = runs_of(events)
    return run


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_reading_missing_journal_returns_no_events(journal: Journal) -> None:
    assert journal.read().events == ()
    assert not journal.path.parent.exists()


def test_journal_events_are_read_in_append_order(journal: Journal) -> None:
    journal.append(event("started", "a", file={"given": "mäp\u2028ping \udcff.csv"}))
    journal.append(event("ended", "a"))
    first, second = journal.read().events
    assert first == {"v": 1, **event("started", "a", file={"given": "mäp\u2028ping \udcff.csv"})}
    assert second["event"] == "ended"


def test_journal_is_readable_by_owner_only(journal: Journal) -> None:
    before = os.umask(0)
    try:
        journal.append(event("started"))
    finally:
        os.umask(before)
    assert (mode(journal.path), mode(journal.path.parent)) == (0o600, 0o700)


@pytest.mark.parametrize(
    "torn", [b'{"v": 1, "event": "sta', b"\xff\xfe\n", b"[1]\n", b'{"run": "x"}\n', b"\0\0\0\0"]
)
def test_torn_journal_line_is_reported_and_others_are_read(journal: Journal, torn: bytes) -> None:
    journal.append(event("started", "a"))
    with journal.path.open("ab") as file:
        file.write(torn)
    assert journal.read().torn == (2,)
    journal.append(event("started", "b"))
    assert ids(journal) == ["a", "b"]
    assert journal.read().torn == (2,)


def test_journal_line_with_invalid_time_is_reported_as_torn(journal: Journal) -> None:
    journal.append(event("started") | {"at": "yesterday"})
    journal.append(event("started") | {"at": "2026-11-24T03:40:12"})
    assert journal.read().torn == (1, 2)


def test_concurrent_journal_writers_lose_no_lines(journal: Journal) -> None:
    code = """
        import sys
        from pathlib import Path
        from aspencli.changes.journal import Journal
        journal = Journal(Path(sys.argv[1]))
        for number in range(100):
            journal.append({"event": "started", "run": f"{sys.argv[2]}-{number}",
                            "at": "2026-11-24T03:40:12+00:00", "file": "x" * 3000})
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(journal.path.parent)]
    writers = [subprocess.Popen([*command, str(number)]) for number in range(4)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        reading = journal.read()
        assert reading.torn == ()
        assert len(reading.events) >= seen
        seen = len(reading.events)
    assert [writer.wait() for writer in writers] == [0] * 4
    assert sorted(ids(journal)) == sorted(f"{w}-{n}" for w in range(4) for n in range(100))


def test_append_to_full_disk_leaves_no_partial_line(journal: Journal) -> None:
    journal.append(event("started", "a"))
    size = journal.path.stat().st_size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            journal.append(event("started", "b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.path.stat().st_size == size
    journal.append(event("started", "c"))
    assert ids(journal) == ["a", "c"]


def test_run_without_end_event_is_running_while_process_is_alive() -> None:
    run = only(started())
    assert (run.outcome, run.changed) == (Outcome.RUNNING, None)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "died before the commit"),
        ([event("writing", transaction=7)], "died before the commit"),
        ([event("committing", transaction=7, undo_file="/u.csv")], "died during the commit"),
    ],
)
def test_run_whose_process_died_has_unknown_outcome(
    events: list[dict[str, Any]], words: str
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    run = only(started(pid=child.pid), *events)
    assert run.outcome is Outcome.UNKNOWN
    assert run.changed is None
    assert words in (run.message or "")


def test_run_whose_pid_was_reused_has_unknown_outcome() -> None:
    assert only(started(process_started="some other boot 12345")).outcome is Outcome.UNKNOWN


def test_zombie_process_is_not_alive() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = Process(this_process().host, child.pid, start_of(child.pid))
        assert process.is_alive
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not process.is_alive


def test_run_from_another_host_has_unknown_outcome() -> None:
    run = only(started(host="elsewhere"))
    assert run.outcome is Outcome.UNKNOWN
    assert run.message == "it ran on elsewhere, and its process cannot be checked from this machine"


def test_ended_run_has_recorded_outcome_and_counts() -> None:
    counts = {"rows": 5, "to_change": 3, "already": 2, "left_out": 0, "problems": 0}
    run = only(
        started(counts=counts),
        event("committing", transaction=7, counts=counts, undo_file="/undo.csv"),
        event("ended", outcome="written", seconds=2, message=None),
    )
    assert (run.outcome, run.changed, run.transaction) == (Outcome.WRITTEN, 3, 7)
    assert (run.undo_file, run.seconds) == (Path("/undo.csv"), 2.0)


def test_later_check_overrides_unknown_outcome_of_run() -> None:
    run = only(
        started(pid=1, process_started="gone"),
        event("ended", outcome="unknown"),
        event("checked", outcome="rolled back", basis="the database said so"),
    )
    assert (run.outcome, run.changed) == (Outcome.ROLLED_BACK, 0)
    assert run.basis == "the database said so"


def test_run_lists_completed_runs_that_undid_it() -> None:
    runs = runs_of(
        [
            started("20260101-000000-aaaa"),
            event("ended", "20260101-000000-aaaa", outcome="written"),
            started("20260102-000000-bbbb", undo_of="20260101-000000-aaaa"),
            event("ended", "20260102-000000-bbbb", outcome="written"),
            started("20260103-000000-cccc", undo_of="20260101-000000-aaaa"),
            event("ended", "20260103-000000-cccc", outcome="declined"),
        ]
    )
    assert [run.id[-4:] for run in runs] == ["cccc", "bbbb", "aaaa"]
    assert runs[2].undone_by == ("20260102-000000-bbbb",)


def test_journal_reader_ignores_unknown_events_and_invalid_fields(journal: Journal) -> None:
    lines = [
        started(v=1, target=None, database="none", file=[1], counts={"rows": "many"}, group=7),
        event("invented", v=9, more={}),
        event("ended", v=9, outcome="transcended", seconds="long"),
        event("ended", "20000101-000000-0000", v=1, outcome="written"),
    ]
    journal.path.parent.mkdir(parents=True)
    journal.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = only(*journal.read().events)
    assert (run.target, run.group, run.file.given, run.counts.rows) == ("", None, None, None)
    assert run.outcome is Outcome.UNKNOWN
    assert run.seconds is None


def test_unique_run_id_prefix_finds_run() -> None:
    runs = runs_of([started(f"2026010{day}-000000-aaaa") for day in (1, 2, 2, 3)])
    assert find(runs, "20260102").id == "20260102-000000-aaaa"
    with pytest.raises(BadInputError, match="3 run IDs begin with 2026"):
        find(runs, "2026")
    with pytest.raises(NotFoundError, match="No such run: 2027"):
        find(runs, "2027")


def test_exact_run_id_wins_over_longer_ids_with_same_prefix() -> None:
    runs = runs_of([started("20260101-000000-aaaa"), started("20260101-000000-aaaab")])
    assert find(runs, "20260101-000000-aaaa").id == "20260101-000000-aaaa"


@pytest.mark.parametrize("text", ["20261124-034012-3f9a", "20261124-0340", "20261124"])
def test_run_ids_are_distinguished_from_file_names(text: str) -> None:
    assert looks_like_id(text)
    assert not looks_like_id(f"{text}.csv")
    assert not looks_like_id(f"./{text}")


def test_suggested_command_names_stack_and_quotes_arguments() -> None:
    assert command_for("rdev/mine", "history", "check", "x y") == (
        "aspencli --env rdev --stack mine history check 'x y'"
    )


def test_runs_started_at_same_time_have_different_ids(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(["20261124-034012-3f9a", "20261124-034012-3f9a", "20261124-034012-3f9b"])
    monkeypatch.setattr(history, "new_id", lambda: next(moments))
    subject = Subject("c", "local", Place(), 1, "Lab", InputFile(), Counts())
    with (
        Recording(journal, subject, pytest.fail) as first,
        Recording(journal, subject, pytest.fail) as second,
    ):
        assert (first.id[-4:], second.id[-4:]) == ("3f9a", "3f9b")
    assert {run.id for run in runs_of(journal.read().events)} == {first.id, second.id}
