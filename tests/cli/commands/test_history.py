from __future__ import annotations

import contextlib
import csv
import getpass
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import sqlalchemy as sa

from aspen.database import engine as committing
from aspencli.cli.commands.history import CHECK_COLUMNS, LIST_COLUMNS, SHOW_COLUMNS
from aspencli.cli.main import run
from tests import zygote
from tests.cli.commands.mapping_lab import Lab
from tests.cli.commands.proxy import CommitProxy

SAMPLES = {"L-1": "P-1", "L-2": "P-2", "L-3": "P-3"}
RENAMED = {"L-1": "N-1", "L-2": "P-2", "L-3": "N-3"}
_PATIENCE_S = 120


Cli = Callable[..., tuple[int, str, str]]


class Desk:
    """An operator's machine, with its own history, and a group to work on.

    Args:
        lab: The database.
        folder: The folder for files.
        cli: Runs a command in this process, which is faster.
    """

    def __init__(self, lab: Lab, folder: Path, cli: Cli):
        self.lab = lab
        self.cli = cli
        self.folder = folder
        self.group = lab.group(SAMPLES)
        self.mapping = self.write("ids.csv", {"L-1": "N-1", "L-3": "N-3"})
        self.journal = folder / "home" / "state" / "history" / "journal.jsonl"

    def write(self, name: str, renames: dict[str, str]) -> Path:
        path = self.folder / name
        lines = [f"{lab},{public}\n" for lab, public in renames.items()]
        path.write_text("private_identifier,public_identifier\n" + "".join(lines))
        return path

    @property
    def names(self) -> dict[str, str]:
        return self.lab.names(self.group)

    def update_words(self, mapping: Path | str | None = None) -> list[str]:
        words = ["samples", "update-public-ids", "--group-id", str(self.group)]
        return [*words, "--private-to-public-id-mapping", str(mapping or self.mapping)]

    def update(self, *options: str, mapping: Path | str | None = None) -> tuple[int, str, str]:
        return self.cli(*self.update_words(mapping), *(options or ("--yes",)))

    def begin(self, address: str | None = None) -> subprocess.Popen[str]:
        """Start an update, through another address if one is given."""
        address = address or self.lab.address
        return zygote.start(
            [*self.update_words(), "--yes"],
            env={**self.lab.environment(), "ASPEN_DATABASE_URL_LOCAL": address},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def history(self, *options: str) -> list[dict[str, Any]]:
        code, out, err = self.cli("history", *options, "--output", "json")
        assert code == 0, err
        found: list[dict[str, Any]] = json.loads(out)
        return found

    def only(self) -> dict[str, Any]:
        (run,) = self.history()
        return self.show(run["run"])

    def show(self, run: str) -> dict[str, Any]:
        (shown,) = json.loads(self.run("history", "show", run, "--output", "json"))
        assert isinstance(shown, dict)
        return shown

    def check(self, run: str) -> dict[str, Any]:
        (told,) = json.loads(self.run("history", "check", run, "--output", "json"))
        assert isinstance(told, dict)
        return told

    def run(self, *words: str) -> str:
        code, out, err = self.cli(*words)
        assert code == 0, err
        return out

    def forge(self, **facts: Any) -> None:
        """Change facts in the journal."""
        events = [json.loads(line) for line in self.journal.read_text().splitlines()]
        changed = ({key: facts.get(key, value) for key, value in event.items()} for event in events)
        self.journal.write_text("".join(json.dumps(event) + "\n" for event in changed))

    def forget_end(self) -> None:
        """Remove the end of the last run, as if its process had died during the commit."""
        lines = self.journal.read_text().splitlines(keepends=True)
        assert '"ended"' in lines[-1]
        self.journal.write_text("".join(lines[:-1]))


@pytest.fixture
def desk(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    own = Lab(lab.address, tmp_path)
    for name, value in own.environment().items():
        monkeypatch.setenv(name, value)

    def cli(*arguments: str) -> tuple[int, str, str]:
        elsewhere = "--env" in arguments
        if elsewhere:  # a test may have given local another address
            own.use(monkeypatch, arguments)
        capsys.readouterr()
        code = run(arguments)
        if elsewhere:
            own.use(monkeypatch, ())
        return code, *capsys.readouterr()

    return Desk(own, tmp_path, cli)


@contextlib.contextmanager
def lock_on(lab: Lab, group: int) -> Iterator[Callable[[], None]]:
    """Hold the rows of a group, and yield a function that waits until a session is blocked."""
    rows = "SELECT id FROM aspen.samples WHERE submitting_group_id = :group FOR UPDATE"
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE :pid = ANY(pg_blocking_pids(pid))"
    with lab.engine.connect() as holder:
        holder.execute(sa.text(rows), {"group": group})
        pid = holder.scalar(sa.text("SELECT pg_backend_pid()"))

        def wait() -> None:
            deadline = time.monotonic() + _PATIENCE_S
            while True:
                with lab.engine.connect() as connection:  # each transaction sees one snapshot of it
                    if connection.scalar(sa.text(waiting), {"pid": pid}):
                        return
                assert time.monotonic() < deadline
                time.sleep(0.02)

        yield wait


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=_PATIENCE_S)
    return process.returncode, out, err


# Recorded runs


def test_run_is_recorded_with_all_its_details(desk: Desk) -> None:
    code, out, _err = desk.update("--yes", "--output", "json")
    assert code == 0
    (result,) = json.loads(out)
    run = desk.only()
    content = desk.mapping.read_bytes()
    assert result["run"] == run["run"]
    assert run["outcome"] == "written"
    assert (run["user"], run["host"]) == (getpass.getuser(), socket.gethostname())
    assert (run["target"], run["command"]) == ("local", "samples update-public-ids")
    assert (run["group_id"], run["group"]) == (desk.group, result["group"])
    assert (run["file"], run["path"]) == (str(desk.mapping), str(desk.mapping))
    assert (run["size"], run["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert [run[key] for key in ("rows", "to_change", "changed", "already")] == [2, 2, 2, 0]
    assert run["undo_file"] == result["undo_file"]
    assert run["database"].endswith(sa.make_url(desk.lab.address).database or "")
    password = sa.make_url(desk.lab.address).password
    assert not password or str(password) not in desk.journal.read_text()


def test_journal_has_one_event_per_step_of_run(desk: Desk) -> None:
    desk.update()
    events = [json.loads(line) for line in desk.journal.read_text().splitlines()]
    assert [each["event"] for each in events] == ["started", "writing", "committing", "ended"]
    assert {each["v"] for each in events} == {1}
    assert events[1]["transaction"] == events[2]["transaction"] > 0
    assert events[0]["database"]["oid"] > 0
    assert int(events[0]["database"]["system"]) > 0


def test_run_from_stdin_is_recorded_with_checksum(desk: Desk) -> None:
    content = desk.mapping.read_bytes()
    code, _, err = desk.lab.run(*desk.update_words("-"), "--yes", stdin=content)
    assert code == 0, err
    run = desk.only()
    assert (run["file"], run["path"]) == ("-", None)
    assert run["sha256"] == hashlib.sha256(content).hexdigest()


def test_run_checksum_is_that_of_file_as_stored(desk: Desk) -> None:
    packed = desk.folder / "ids.csv.gz"
    packed.write_bytes(gzip.compress(desk.mapping.read_bytes()))
    book = openpyxl.Workbook()
    for row in (("private_identifier", "public_identifier"), ("L-1", "N-1"), ("L-3", "N-3")):
        book.worksheets[0].append(row)
    book.save(desk.folder / "ids.xlsx")
    for name in ("ids.csv.gz", "ids.xlsx"):
        path = desk.folder / name
        assert desk.update("--yes", mapping=path)[0] == 0
        run = desk.show(desk.history()[0]["run"])
        content = path.read_bytes()
        assert (run["path"], run["size"]) == (str(path), len(content))
        assert run["sha256"] == hashlib.sha256(content).hexdigest()


def test_run_without_changes_is_recorded_with_reason(desk: Desk) -> None:
    bad = desk.write("bad.csv", {"L-1": "N-1", "L-9": "N-9"})
    assert desk.update("--yes", mapping=bad)[0] == 2
    assert desk.update("--no-input")[0] == 3
    same = desk.write("same.csv", {"L-1": "P-1"})
    assert desk.update("--yes", mapping=same)[0] == 0
    nothing, declined, refused = desk.history()
    assert [refused["outcome"], refused["rows"], refused["changed"]] == ["refused", 2, 0]
    assert [declined["outcome"], declined["to_change"], declined["changed"]] == ["declined", 2, 0]
    assert [nothing["outcome"], nothing["changed"]] == ["nothing to do", 0]
    assert "cannot be applied: 1 problem" in desk.show(refused["run"])["message"]


def test_dry_runs_are_not_recorded(desk: Desk) -> None:
    assert desk.update("--dry-run")[0] == 0
    assert desk.history() == []
    assert not desk.journal.exists()


def test_interrupted_run_is_recorded_as_rolled_back(desk: Desk) -> None:
    with lock_on(desk.lab, desk.group) as wait, desk.begin() as process:
        wait()
        assert desk.only()["outcome"] == "running"
        process.send_signal(signal.SIGINT)
        code, _, _ = finish(process)
    assert code == 130
    run = desk.only()
    assert (run["outcome"], run["changed"], run["message"]) == ("rolled back", 0, "interrupted")
    assert desk.names == SAMPLES


def test_concurrent_runs_are_both_recorded(desk: Desk, tmp_path: Path) -> None:
    other = Desk(desk.lab, tmp_path, desk.cli)
    with desk.begin() as first, other.begin() as second:
        assert finish(first)[0] == finish(second)[0] == 0
    runs = desk.history()
    assert {run["group_id"] for run in runs} == {desk.group, other.group}
    assert [run["outcome"] for run in runs] == ["written", "written"]


# Processes that died


def test_check_of_run_killed_at_lock_reports_rolled_back(desk: Desk) -> None:
    with lock_on(desk.lab, desk.group) as wait, desk.begin() as process:
        wait()
        kill(process)
        run = desk.only()
        assert run["outcome"] == "unknown"
        assert run["changed"] is None
        assert run["message"].endswith("died before the commit")
    told = checked_when_settled(desk, run["run"])
    assert told["outcome"] == "rolled back"
    assert desk.only()["outcome"] == "rolled back"
    assert desk.names == SAMPLES


def test_check_of_run_killed_after_commit_reports_written(desk: Desk) -> None:
    with CommitProxy(desk.lab.address, deliver=True) as wire, desk.begin(wire.address) as process:
        assert wire.asked.wait(_PATIENCE_S)
        kill(process)
    run = desk.only()
    assert run["outcome"] == "unknown"
    assert run["message"].endswith("died during the commit")
    assert desk.cli("samples", "undo", run["run"], "--yes")[0] == 7
    told = checked_when_settled(desk, run["run"])
    assert told["outcome"] == "written"
    assert told["basis"] == f"transaction {run['transaction']} was committed"
    assert [told[key] for key in ("written", "before", "otherwise", "gone")] == [2, 0, 0, 0]
    assert desk.names == RENAMED
    run = desk.only()
    assert (run["outcome"], run["changed"]) == ("written", 2)
    desk.run("samples", "undo", run["run"], "--yes")
    assert desk.names == SAMPLES


def test_check_of_run_killed_before_commit_reports_rolled_back(desk: Desk) -> None:
    with CommitProxy(desk.lab.address, deliver=False) as wire, desk.begin(wire.address) as process:
        assert wire.asked.wait(_PATIENCE_S)
        kill(process)
        run = desk.only()
        assert run["message"].endswith("died during the commit")
        code, _, err = desk.cli("history", "check", run["run"])
        assert code == 7
        assert f"Transaction {run['transaction']} of run {run['run']} is still open" in err
        assert desk.only()["outcome"] == "unknown"
    told = checked_when_settled(desk, run["run"])
    assert told["outcome"] == "rolled back"
    assert told["basis"] == f"transaction {run['transaction']} was rolled back"
    assert desk.names == SAMPLES


def cut_when_asked(wire: CommitProxy) -> None:
    assert wire.asked.wait(_PATIENCE_S)
    wire.cut()


def test_connection_lost_at_commit_is_recorded_as_unknown(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "_LOOK_UP_S", (0.01,))  # the server stays unreachable
    with CommitProxy(desk.lab.address, deliver=True) as wire:
        breaker = threading.Thread(target=cut_when_asked, args=[wire])
        breaker.start()
        monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", wire.address)
        code, _, err = desk.update()
        breaker.join()
    monkeypatch.setenv("ASPEN_DATABASE_URL_LOCAL", desk.lab.address)
    run = desk.only()
    assert code == 1
    assert f"run: aspencli --env local history check {run['run']}" in err
    assert run["undo_file"] in err
    assert run["outcome"] == "unknown"
    assert "it is unknown whether the changes were written" in run["message"]
    assert checked_when_settled(desk, run["run"])["outcome"] == "written"


def checked_when_settled(desk: Desk, run: str) -> dict[str, Any]:
    """Return the verdict, once the server has noticed that its client is gone."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        code, out, err = desk.cli("history", "check", run, "--output", "json")
        if code != 7:
            assert code == 0, err
            (told,) = json.loads(out)
            assert isinstance(told, dict)
            return told
        assert time.monotonic() < deadline


def test_check_refuses_run_in_progress(desk: Desk) -> None:
    with lock_on(desk.lab, desk.group) as wait, desk.begin() as process:
        wait()
        run = desk.only()
        assert run["outcome"] == "running"
        code, _, err = desk.cli("history", "check", run["run"])
        assert code == 7
        assert f"is still in progress (process {process.pid})" in err
        process.terminate()
        finish(process)


# Transactions that the server no longer knows


@pytest.fixture
def forgotten(desk: Desk) -> str:
    """Return a committed run without an end, whose transaction the server no longer knows."""
    desk.update()
    desk.forget_end()
    desk.forge(transaction=3, pid=1)  # older than any it knows
    return str(desk.only()["run"])


def test_check_infers_written_from_samples(desk: Desk, forgotten: str) -> None:
    told = desk.check(forgotten)
    assert (told["outcome"], told["written"]) == ("written", 2)
    assert told["basis"] == "every sample has the value that it wrote"


def test_check_infers_rolled_back_from_samples(desk: Desk, forgotten: str) -> None:
    for lab, public in SAMPLES.items():
        desk.lab.rename(desk.group, lab, public)
    told = desk.check(forgotten)
    assert (told["outcome"], told["before"]) == ("rolled back", 2)
    assert told["basis"] == "every sample has its previous value"


def test_check_with_inconsistent_samples_stays_unknown(desk: Desk, forgotten: str) -> None:
    desk.lab.rename(desk.group, "L-1", "somebody's")
    code, out, err = desk.cli("history", "check", forgotten)
    assert (code, out) == (7, "")
    assert "with the value that it wrote: 1\n" in err
    assert "with their previous value: 0\n" in err
    assert "with another value: 1\n" in err
    assert desk.only()["outcome"] == "unknown"


def test_check_fails_if_undo_file_is_missing(desk: Desk, forgotten: str) -> None:
    Path(desk.only()["undo_file"]).unlink()
    code, _, err = desk.cli("history", "check", forgotten)
    assert code == 1
    assert "undo file of run" in err
    assert "is missing: " in err


def test_check_fails_if_undo_file_is_damaged(desk: Desk, forgotten: str) -> None:
    path = Path(desk.only()["undo_file"])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    code, _, err = desk.cli("history", "check", forgotten)
    assert code == 2
    assert "is damaged" in err


@pytest.mark.parametrize("other", [{"transaction": 10**7}, {"database": {}}])
def test_check_ignores_transaction_id_of_possibly_other_server(
    desk: Desk, other: dict[str, Any]
) -> None:
    desk.update()
    desk.forget_end()
    desk.forge(pid=1, **other)
    assert desk.check(desk.only()["run"])["basis"] == "every sample has the value that it wrote"


@pytest.mark.parametrize("other", [{"oid": 1}, {"system": "1"}])
def test_check_refuses_another_database(desk: Desk, other: dict[str, Any]) -> None:
    desk.update()
    desk.forget_end()
    desk.forge(pid=1, database=other)
    code, _, err = desk.cli("history", "check", desk.only()["run"])
    assert code == 3
    assert "was made on" in err
    assert desk.only()["outcome"] == "unknown"


def test_check_warns_if_no_sample_has_committed_value(desk: Desk) -> None:
    desk.update()
    desk.forget_end()
    desk.forge(pid=1)
    for lab, public in SAMPLES.items():
        desk.lab.rename(desk.group, lab, public)
    code, _, err = desk.cli("history", "check", desk.only()["run"])
    assert code == 0
    assert "None of its samples has the value that it wrote" in err


def test_check_of_run_killed_before_write_reports_rolled_back(desk: Desk) -> None:
    desk.update()
    first = desk.journal.read_text().splitlines(keepends=True)[0]
    desk.journal.write_text(first)
    desk.forge(pid=1)
    told = desk.check(desk.only()["run"])
    assert (told["outcome"], told["basis"]) == ("rolled back", "it ended before it wrote anything")


def test_check_of_known_outcome_does_not_query_database(desk: Desk) -> None:
    desk.update()
    code, out, err = desk.cli("history", "check", desk.only()["run"], "--env", "staging")
    assert code == 0
    assert "\twritten\t" in out
    assert "was not asked" in err


def test_check_requires_target_of_run(desk: Desk, forgotten: str) -> None:
    code, _, err = desk.cli("--env", "prod", "history", "check", forgotten)
    assert code == 2
    assert f"aspencli --env local history check {forgotten}" in err


# A journal that cannot be written


def test_unwritable_journal_stops_run_before_write(desk: Desk) -> None:
    desk.journal.mkdir(parents=True)
    code, out, err = desk.update()
    assert (code, out) == (1, "")
    assert f"Cannot write the journal {desk.journal}: Is a directory; nothing was" in err
    assert "ASPEN_HOME" in err
    assert desk.names == SAMPLES


def test_symlinked_journal_is_refused(desk: Desk, tmp_path: Path) -> None:
    desk.journal.parent.mkdir(parents=True)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    desk.journal.symlink_to(victim)
    code, out, err = desk.update()
    assert (code, out) == (1, "")
    assert f"Cannot write the journal {desk.journal}: it is a symbolic link; nothing" in err
    assert victim.read_text() == "precious"
    assert desk.names == SAMPLES


def obedient(desk: Desk, *words: str) -> tuple[int, str, str]:
    """Run a command that file permissions apply to, even if root runs the tests."""
    root = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere")
    done = subprocess.run(
        [*(root if os.geteuid() == 0 else []), sys.executable, "-m", "aspencli", *words],
        env=desk.lab.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_read_only_state_folder_stops_run_before_write(desk: Desk) -> None:
    state = desk.journal.parent.parent
    state.mkdir(parents=True)
    state.chmod(0o500)
    code, _, err = obedient(desk, *desk.update_words(), "--yes")
    state.chmod(0o700)
    assert code == 1
    assert "Permission denied; nothing was changed" in err
    assert desk.names == SAMPLES


def test_journal_failure_before_commit_rolls_back(desk: Desk) -> None:
    with lock_on(desk.lab, desk.group) as wait:
        process = desk.begin()
        wait()
        desk.journal.unlink()
        desk.journal.mkdir()
    with process:
        code, out, err = finish(process)
    assert (code, out) == (1, "")
    assert "nothing was changed" in err
    assert desk.names == SAMPLES
    assert list((desk.journal.parent.parent / "undo").iterdir()) == []


def test_journal_failure_after_commit_is_a_warning(desk: Desk) -> None:
    with CommitProxy(desk.lab.address, deliver=True) as wire, desk.begin(wire.address) as process:
        assert wire.asked.wait(_PATIENCE_S)
        desk.journal.unlink()
        desk.journal.mkdir()
        wire.let_go()
        code, out, err = finish(process)
    assert code == 0
    assert "Warning: Cannot write the journal" in err
    assert "It does not show the outcome of run " in err
    assert ": written." in err
    assert "2 samples updated" in err
    assert desk.names == RENAMED
    assert Path(next(csv.DictReader(out.splitlines(), dialect="excel-tab"))["undo_file"]).exists()


def test_check_shows_outcome_that_cannot_be_recorded(desk: Desk, forgotten: str) -> None:
    desk.journal.chmod(0o400)
    code, out, err = obedient(desk, "history", "check", forgotten)
    assert code == 0
    assert "written" in out
    assert "The outcome could not be recorded" in err


def test_torn_journal_line_is_reported_and_skipped(desk: Desk) -> None:
    desk.update()
    with desk.journal.open("a") as file:
        file.write('{"v": 1, "event": "star')
    code, out, err = desk.cli("history")
    assert code == 0
    assert out.count("\n") == 2
    assert f"Skipped unreadable line 5 of {desk.journal}" in err
    desk.update("--yes", mapping=desk.write("more.csv", {"L-2": "N-2"}))
    assert [run["outcome"] for run in desk.history()] == ["written", "written"]


# Undo


def test_undo_by_run_id_can_be_undone(desk: Desk) -> None:
    desk.update()
    first = desk.history()[0]["run"]
    out = desk.run("samples", "undo", first, "--dry-run", "--output", "json")
    assert {row["public_identifier_after"] for row in json.loads(out)} == {"P-1", "P-3"}
    desk.run("samples", "undo", first[:13], "--yes")
    assert desk.names == SAMPLES
    second = desk.history()[0]
    assert (second["command"], second["outcome"]) == ("samples undo", "written")
    assert desk.show(second["run"])["undo_of"] == first
    assert desk.show(first)["undone_by"] == [second["run"]]
    desk.run("samples", "undo", second["run"], "--yes")
    assert desk.names == RENAMED
    assert len(desk.history()) == 3


def test_undo_by_file_is_linked_to_its_run(desk: Desk) -> None:
    desk.update()
    first = desk.only()
    desk.run("samples", "undo", first["undo_file"], "--yes")
    assert desk.show(desk.history()[0]["run"])["undo_of"] == first["run"]


def test_undo_prefers_file_over_run_id_of_same_name(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.update()
    run = desk.only()
    monkeypatch.chdir(desk.folder)
    Path(run["undo_file"]).rename(run["run"])
    assert "P-1" in desk.run("samples", "undo", run["run"], "--dry-run")


def test_undo_of_run_that_wrote_nothing_is_refused(desk: Desk) -> None:
    desk.update("--no-input")
    run = desk.only()["run"]
    code, _, err = desk.cli("samples", "undo", run, "--yes")
    assert code == 2
    assert f"Run {run} wrote nothing (declined)" in err


def test_undo_of_run_without_undo_file_is_not_found(desk: Desk) -> None:
    desk.update()
    run = desk.only()
    Path(run["undo_file"]).unlink()
    code, _, err = desk.cli("samples", "undo", run["run"], "--yes")
    assert code == 6
    assert f"The undo file of run {run['run']} is missing" in err


def test_unknown_run_id_is_not_found(desk: Desk) -> None:
    assert desk.cli("samples", "undo", "20200101-000000-ffff")[0] == 6
    assert desk.cli("history", "show", "20200101-000000-ffff")[0] == 6
    assert desk.cli("history", "check", "20200101")[0] == 6


def test_undo_skips_samples_changed_since_unless_forced(desk: Desk) -> None:
    desk.update()
    run = desk.only()["run"]
    desk.lab.rename(desk.group, "L-1", "somebody's")
    code, _, err = desk.cli("samples", "undo", run, "--yes")
    assert code == 7
    assert "skipped" in err
    assert "--force" in err
    assert desk.names == {"L-1": "somebody's", "L-2": "P-2", "L-3": "P-3"}

    code, out, err = desk.cli("samples", "undo", run, "--force", "--dry-run")
    assert code == 0, err
    assert "L-1\tN-1\tsomebody's\n" in err
    assert desk.names["L-1"] == "somebody's"

    code, out, err = desk.cli("samples", "undo", run, "--force", "--yes", "--output", "json")
    assert code == 0, err
    assert "L-1\tN-1\tsomebody's\n" in err
    assert json.loads(out)[0]["changed"] == 1
    assert desk.names == SAMPLES

    desk.run("samples", "undo", desk.history()[0]["run"], "--yes")
    assert desk.names == {"L-1": "somebody's", "L-2": "P-2", "L-3": "P-3"}


def test_forced_undo_shows_later_changes_before_confirmation(desk: Desk) -> None:
    desk.update()
    run = desk.only()["run"]
    desk.lab.rename(desk.group, "L-1", "somebody's")
    code, _, err = desk.cli("samples", "undo", run, "--force")
    assert code == 3
    assert err.index("somebody's") < err.index("Confirmation required")
    assert desk.names["L-1"] == "somebody's"


def test_forced_undo_writes_long_list_of_changes_to_file(desk: Desk) -> None:
    many = {f"L-{number}": f"P-{number}" for number in range(250)}
    desk.group = desk.lab.group(many)
    desk.update("--yes", mapping=desk.write("many.csv", {lab: f"N-{lab}" for lab in many}))
    for lab in many:
        desk.lab.rename(desk.group, lab, f"=S-{lab}")
    run = desk.only()["run"]
    code, _, err = desk.cli("samples", "undo", run, "--force", "--dry-run")
    assert code == 0
    assert err.count("'=S-") == 200
    name = err.partition("50 more changed since that run. Full list: ")[2].partition("\n")[0]
    rows = Path(name).read_text().splitlines()
    assert rows[:2] == [
        "private_identifier,public_identifier_written,public_identifier_now",
        "L-0,N-L-0,'=S-L-0",
    ]
    assert len(rows) == 251
    assert Path(name).stat().st_mode & 0o777 == 0o600


def test_forced_undo_skips_samples_that_cannot_be_restored(desk: Desk) -> None:
    desk.update()
    run = desk.only()["run"]
    desk.lab.rename(desk.group, "L-2", "P-1")
    code, _, err = desk.cli("samples", "undo", run, "--force", "--yes")
    assert code == 7
    assert "is already used by sample" in err
    assert desk.names == {"L-1": "N-1", "L-2": "P-1", "L-3": "P-3"}


# Display


@pytest.fixture
def three(desk: Desk) -> Desk:
    desk.update("--no-input")
    desk.update("--yes")
    desk.update("--confirm", "prod", "--env", "prod")
    return desk


def test_history_lists_newest_first_and_filters_by_target(three: Desk) -> None:
    runs = three.history()
    assert [run["outcome"] for run in runs] == ["nothing to do", "written", "declined"]
    assert [run["run"] for run in runs] == sorted((run["run"] for run in runs), reverse=True)
    assert three.history("--target", "prod") == runs[:1]
    assert three.history("--limit", "2") == three.history("list", "--limit", "2") == runs[:2]
    assert three.history("--target", "nowhere") == []


def test_history_list_has_documented_columns_in_every_format(three: Desk) -> None:
    keys = [
        *("run", "started_at", "user", "target", "command", "group_id", "group"),
        *("file", "sha256", "rows", "to_change", "changed", "outcome", "undone_by"),
        "assistant",
    ]
    assert [column.key for column in LIST_COLUMNS] == keys
    assert three.run("history").splitlines()[0] == "\t".join(keys)
    assert three.run("history", "--output", "csv").splitlines()[0] == ",".join(keys)
    lines = three.run("history", "--output", "jsonl").splitlines()
    assert [list(json.loads(line)) for line in lines] == [keys] * 3
    table = three.run("history", "--output", "table").splitlines()
    assert len(table) == 4
    assert table[0].startswith("Run ")
    assert "nothing to do" in table[1]


def test_history_show_and_check_have_documented_columns(three: Desk) -> None:
    shown = three.show(three.history()[1]["run"])
    assert (
        list(shown)
        == [column.key for column in SHOW_COLUMNS]
        == [
            *("run", "outcome", "message", "started_at", "ended_at", "seconds", "user", "host"),
            *("pid", "version", "command", "target", "database", "group_id", "group", "file"),
            *("path", "size", "sha256", "rows", "to_change", "already", "left_out", "problems"),
            *("changed", "transaction", "undo_file", "undo_of", "undone_by", "checked_at", "basis"),
            *(
                "via",
                "renames",
                "saved_file",
                "steps",
                "argv",
                "account",
                "account_id",
                "account_name",
                "aws",
                "digest",
            ),
            *("reason", "audit", "statements", "assistant"),
        ]
    )
    told = three.check(shown["run"])
    assert (
        list(told)
        == [column.key for column in CHECK_COLUMNS]
        == [
            *("run", "outcome", "basis", "written", "before", "otherwise", "gone"),
        ]
    )


def test_digest_depends_on_the_rows_that_change(desk: Desk) -> None:
    def digest() -> str:
        run = desk.show(desk.history()[0]["run"])
        return str(run["digest"])

    assert desk.update()[0] == 0
    first = digest()
    assert desk.cli("samples", "undo", desk.history()[0]["run"], "--yes")[0] == 0
    assert digest() != first
    assert desk.update()[0] == 0
    assert digest() == first  # the same plan
    assert desk.cli("samples", "undo", desk.history()[0]["run"], "--yes")[0] == 0
    desk.lab.rename(desk.group, "L-3", "P-other")
    assert desk.update()[0] == 0
    assert digest() != first  # the same file, and as many rows, but another old value


def test_history_show_names_undo_command(three: Desk) -> None:
    run = three.history()[1]["run"]
    _, _, err = three.cli("history", "show", run)
    assert f"Undo it: aspencli --env local samples undo {run}" in err


def test_ambiguous_run_id_prefix_is_refused(three: Desk) -> None:
    code, _, err = three.cli("history", "show", "2")
    assert code == 2
    assert "3 run IDs begin with 2" in err


def test_empty_history_is_not_an_error(desk: Desk) -> None:
    assert desk.cli("history") == (
        0,
        "\t".join(c.key for c in LIST_COLUMNS) + "\n",
        "No runs found.\n",
    )


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["list", "--help"]])
def test_history_help_is_shown(desk: Desk, words: list[str]) -> None:
    code, out, _ = desk.cli("history", *words)
    assert code == 0
    assert "history" in out


def test_unknown_history_command_is_refused(desk: Desk) -> None:
    code, _, err = desk.cli("history", "shwo")
    assert code == 2
    assert "show" in err
