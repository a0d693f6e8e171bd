"""A signal, a lost connection, or a declined confirmation leaves nothing behind."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest
import sqlalchemy as sa

from aspencli.__main__ import main
from tests import zygote
from tests.cli.commands.mapping_cases import H
from tests.cli.commands.mapping_lab import SAMPLES, Lab

WRITES = {"L-1": "P-2", "L-2": "P-1", "L-3": "N-3"}
# COMMIT waits for this trigger, which simulates a slow or failing commit.
_AT_COMMIT = """
CREATE FUNCTION aspen.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.submitting_group_id = {group} THEN {action}; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON aspen.samples
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION aspen.at_commit()
"""
_BACKENDS = """
SELECT state, wait_event_type, wait_event, query FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'aspencli/%'
"""


@pytest.fixture
def group(lab: Lab) -> int:
    return lab.group()


@pytest.fixture
def words(group: int, tmp_path: Path) -> list[str]:
    mapping = tmp_path / "ids.csv"
    mapping.write_text(H + "".join(f"\n{lab_id},{new}" for lab_id, new in WRITES.items()))
    undo = str(tmp_path / "undo.csv")
    command = ["samples", "update-public-ids", "--group-id", str(group), "--undo-file", undo]
    return [*command, "-f", str(mapping)]


@contextmanager
def started(
    lab: Lab, words: list[str], stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that does not outlive the test."""
    pipe = subprocess.PIPE
    with zygote.start(
        words, env=lab.environment(words), stdin=stdin, stdout=pipe, stderr=pipe
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def backends(lab: Lab) -> list[Any]:
    with lab.engine.connect() as connection:
        return list(connection.execute(sa.text(_BACKENDS)))


@contextmanager
def locked(lab: Lab, group: int, lab_id: str = "L-2") -> Iterator[sa.Connection]:
    """Lock a sample without committing, as a concurrent user would."""
    with lab.engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT FROM aspen.samples WHERE submitting_group_id = :g "
                "AND private_identifier = :lab FOR UPDATE"
            ),
            {"g": group, "lab": lab_id},
        )
        yield connection
        connection.rollback()


@contextmanager
def at_commit(lab: Lab, group: int, action: str) -> Iterator[None]:
    lab.execute(_AT_COMMIT.format(group=group, action=action))
    try:
        yield
    finally:
        lab.execute("DROP FUNCTION aspen.at_commit CASCADE")


def nothing_left(lab: Lab, group: int, folder: Path) -> None:
    """Check that no row changed, no statement is running, and no undo file is left."""
    wait_until(lambda: not backends(lab), seconds=3)
    assert lab.names(group) == SAMPLES
    assert [path.name for path in folder.iterdir() if "undo" in path.name] == []


SIGNALS = pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
    ids=["INT", "TERM", "KILL"],
)


@SIGNALS
def test_signal_during_slow_mapping_input_leaves_nothing_behind(
    number: signal.Signals, code: int, lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    piped = [*words[:-1], "-", "--yes"]
    with started(lab, piped, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(f"{H},note\nL-1,N-1,{'x' * 100_000}\n".encode())
        process.stdin.flush()
        wait_until(
            lambda: any(
                row.query.startswith("COPY") and row.state == "active" for row in backends(lab)
            )
        )
        time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(timeout=120) == code
        assert process.stderr
        assert (b"Interrupted" in process.stderr.read()) == (code > 0)
        with suppress(BrokenPipeError):
            process.stdin.close()
    nothing_left(lab, group, tmp_path)


def test_ctrl_c_before_first_byte_of_mapping_exits_with_130(
    lab: Lab, group: int, words: list[str]
) -> None:
    with started(lab, [*words[:-1], "-", "--yes"], stdin=subprocess.PIPE) as process:
        time.sleep(0.7)  # there is nothing to observe from outside yet
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    assert lab.names(group) == SAMPLES


@SIGNALS
def test_signal_during_write_rolls_back_immediately(
    number: signal.Signals, code: int, lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    with locked(lab, group), started(lab, [*words, "--yes"]) as process:
        wait_until(lambda: any(row.wait_event_type == "Lock" for row in backends(lab)))
        process.send_signal(number)
        assert process.wait(timeout=120) == code
        nothing_left(lab, group, tmp_path)  # although the lock is still held


def test_signal_during_commit_rolls_back(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    with at_commit(lab, group, "PERFORM pg_sleep(30)"), started(lab, [*words, "--yes"]) as process:
        wait_until(lambda: any(row.wait_event == "PgSleep" for row in backends(lab)))
        assert (tmp_path / "undo.csv").exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130
    nothing_left(lab, group, tmp_path)


def test_update_killed_during_commit_can_be_undone(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    with at_commit(lab, group, "PERFORM pg_sleep(1)"), started(lab, [*words, "--yes"]) as process:
        wait_until(lambda: any(row.wait_event == "PgSleep" for row in backends(lab)))
        process.kill()
        process.wait(timeout=120)
        wait_until(lambda: not backends(lab), seconds=10)
    assert lab.names(group) in (SAMPLES, SAMPLES | WRITES)
    code, _out, err = lab.run("samples", "undo", str(tmp_path / "undo.csv"), "--yes")
    assert code == 0, err
    assert lab.names(group) == SAMPLES


def test_report_failure_after_commit_still_shows_result(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    options = ["--yes", "--report", str(folder / "report.csv")]
    with at_commit(lab, group, "PERFORM pg_sleep(0.5)"), started(lab, words + options) as process:
        wait_until(lambda: any(row.wait_event == "PgSleep" for row in backends(lab)))
        shutil.rmtree(folder)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"Cannot write the report " in err
    assert b"; the change itself is complete" in err
    assert b"3 samples updated." in err
    assert str(tmp_path / "undo.csv").encode() in out
    assert lab.names(group) == SAMPLES | WRITES


def test_failed_commit_leaves_no_undo_file(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    failing = "RAISE EXCEPTION 'not this one' USING ERRCODE = 'check_violation'"
    with at_commit(lab, group, failing), started(lab, [*words, "--yes"]) as process:
        assert process.wait(timeout=120) == 7
    nothing_left(lab, group, tmp_path)


def test_lost_connection_exits_with_5_and_writes_nothing(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    with locked(lab, group), started(lab, [*words, "--yes"]) as process:
        wait_until(lambda: any(row.wait_event_type == "Lock" for row in backends(lab)))
        lab.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE 'aspencli/%'"
        )
        assert process.wait(timeout=120) == 5
        assert process.stderr
        assert b"Connection to the database lost; nothing was written" in process.stderr.read()
    nothing_left(lab, group, tmp_path)


def test_change_committed_while_write_waits_is_conflict(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    with locked(lab, group, "L-1") as other, started(lab, [*words, "--yes"]) as process:
        wait_until(lambda: any(row.wait_event_type == "Lock" for row in backends(lab)))
        other.execute(
            sa.text(
                "UPDATE aspen.samples SET public_identifier = 'theirs' "
                "WHERE submitting_group_id = :g AND private_identifier = 'L-1'"
            ),
            {"g": group},
        )
        other.commit()
        assert process.wait(timeout=120) == 7
        assert process.stderr
        said = process.stderr.read().decode()
    assert 'line 2: sample "L-1" is now named "theirs", expected "P-1"' in said
    assert "nothing was written" in said
    assert lab.names(group) == SAMPLES | {"L-1": "theirs"}
    assert not (tmp_path / "undo.csv").exists()


# At the prompt


class Terminal:
    """The command on a separate terminal."""

    def __init__(self, lab: Lab, words: list[str], *, shell: str = ""):
        options: dict[str, Any] = {
            "env": {**lab.environment(words), "TERM": "xterm", "NO_COLOR": "1"},
            "dimensions": (50, 200),
            "encoding": "utf-8",
            "timeout": 120,
        }
        self._child: Any = (
            pexpect.spawn("/bin/sh", ["-c", shell], **options)
            if shell
            else zygote.at_terminal(words, **options)
        )
        self._child.delaybeforesend = None

    def see(self, pattern: str) -> str:
        self._child.expect(pattern)
        return str(self._child.before + self._child.after)

    def type(self, text: str) -> None:
        self._child.send(text)

    def end(self) -> tuple[int, str]:
        """Return the exit code and the last output."""
        self._child.expect(pexpect.EOF)
        self._child.close()
        return int(self._child.exitstatus), re.sub(r"\x1b\[[\d;?]*\w|\r", "", self._child.before)


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ("y\r", 0, "3 samples updated"),
        ("n\r", 3, "Declined; nothing was written."),
        ("\r", 3, "Declined; nothing was written."),
        ("\x03", 130, "Interrupted"),
        ("\x04", 3, "Declined; nothing was written."),
    ],
    ids=["yes", "no", "Enter", "Ctrl-C", "Ctrl-D"],
)
def test_prompt_answer_decides_whether_update_is_written(
    answer: str, code: int, says: str, lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    terminal = Terminal(lab, words)
    shown = terminal.see(r"Update 3 samples in group .* on local\? \[y/N\] ")
    assert re.search(r"2\s+L-1\s+P-1\s+P-2\s+update", shown)
    assert "3 to update, 0 unchanged" in shown
    assert [row.state for row in backends(lab)] == ["idle"], "a transaction waits for an answer"
    terminal.type(answer)
    ended, last = terminal.end()
    assert (ended, says in last) == (code, True)
    if code == 0:
        assert lab.names(group) == SAMPLES | WRITES
    else:
        nothing_left(lab, group, tmp_path)


@pytest.mark.parametrize(("answer", "code"), [("prod\r", 0), ("y\r", 3)])
def test_update_on_production_requires_target_name(
    answer: str, code: int, lab: Lab, group: int, words: list[str]
) -> None:
    terminal = Terminal(lab, [*words, "--env", "prod", "--yes"])
    terminal.see("Type prod to update 3 samples .*: ")
    terminal.type(answer)
    assert terminal.end()[0] == code
    assert (lab.names(group) == SAMPLES) == (code == 3)


def test_change_made_while_prompt_waits_is_conflict(
    lab: Lab, group: int, words: list[str], tmp_path: Path
) -> None:
    terminal = Terminal(lab, [*words, "--report", str(tmp_path / "report.csv")])
    terminal.see(r"\[y/N\] ")
    lab.rename(group, "L-2", "meanwhile")
    terminal.type("y\r")
    code, last = terminal.end()
    assert code == 7
    assert 'line 3: sample "L-2" is now named "meanwhile", expected "P-2"' in last
    assert "Run the command again to make a new plan." in last
    assert lab.names(group) == SAMPLES | {"L-2": "meanwhile"}
    assert (tmp_path / "report.csv").read_text().count("skipped") == 3


def test_progress_is_shown_during_long_write(lab: Lab, group: int, words: list[str]) -> None:
    with locked(lab, group) as other:
        terminal = Terminal(lab, [*words, "--yes"])
        terminal.see("Writing")
        other.rollback()
        code, last = terminal.end()
    assert (code, "3 samples updated" in last) == (0, True)


def test_mapping_piped_in_on_terminal_requires_yes(lab: Lab, group: int, words: list[str]) -> None:
    command = shlex.join([sys.executable, "-m", "aspencli", *words[:-1], "-"])
    terminal = Terminal(lab, words, shell=f"{command} < {shlex.quote(words[-1])}")
    code, last = terminal.end()
    assert (code, lab.names(group)) == (3, SAMPLES)
    assert "but standard input is the mapping" in last
    assert "add --yes" in last


def test_mapping_from_terminal_input_is_refused(lab: Lab, words: list[str]) -> None:
    code, last = Terminal(lab, [*words[:-1], "-"]).end()
    assert (code, "Standard input is a terminal" in last) == (2, True)


def test_ctrl_c_during_startup_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("aspencli.cli.main.run", load)
    with pytest.raises(SystemExit) as caught:
        main()
    assert (caught.value.code, capsys.readouterr().err) == (130, "Error: Interrupted.\n")
