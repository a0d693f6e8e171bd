"""The journal of a renaming: what remains of it after a crash, and who may resume it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aspencli.changes import request_journal
from aspencli.changes.request_journal import RenameRow, RunFacts, RunState
from aspencli.errors import AspenError, BadInputError, ConflictError

ROWS = [
    RenameRow(2, "LAB-1", 11, "old-1", "new-1"),
    RenameRow(3, "LAB-2 \u2028 \u00e9", 12, "same", "same"),
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_HOME", str(tmp_path))


def head(run: str = "20261124-034012-3f9a", group: int = 1) -> RunFacts:
    command = "samples update-public-ids"
    return RunFacts(
        run, command, "prod", group, "Lab", "SC2", "ids.csv", "ab" * 32, "/tmp/undo.csv"
    )


def test_request_journal_restores_run_state_when_reopened() -> None:
    with request_journal.create(head(), ROWS) as made:
        made.sending([11])
        made.answered(0.25)
        made.sending([12])
    found = request_journal.unfinished("prod", 1)
    assert found == RunState(made.path, head(), begun=True, ended=None, basis=None, busy=False)
    with request_journal.reopen(made.path) as read:
        assert (read.head, read.rows, read.sent, read.ended) == (head(), ROWS, 1, None)
        read.resumed()
        read.end("written")
    assert request_journal.unfinished("prod", 1) is None
    with request_journal.reopen(made.path) as read:
        assert read.ended == "written"


def test_request_journal_is_accessible_to_owner_only() -> None:
    with request_journal.create(head(), ROWS) as made:
        assert made.path.stat().st_mode & 0o777 == 0o600
        assert made.path.parent.stat().st_mode & 0o777 == 0o700


def test_request_journal_in_use_cannot_be_reopened() -> None:
    with (
        request_journal.create(head(), ROWS) as made,
        pytest.raises(ConflictError, match="is using"),
    ):
        request_journal.reopen(made.path)
    request_journal.reopen(made.path).__exit__(None, None, None)


def test_unfinished_run_is_limited_to_its_group_and_target() -> None:
    with request_journal.create(head(), ROWS):
        assert request_journal.unfinished("staging", 1) is None
        assert request_journal.unfinished("prod", 2) is None


def test_truncated_request_journal_is_complete_or_refused() -> None:
    with request_journal.create(head(), ROWS) as made:
        made.sending([11])
        made.answered(1)
    whole = made.path.read_bytes()
    ready = whole.index(b'{"event": "ready"')
    ends = ready + whole[ready:].index(b"\n")
    for length in range(len(whole)):
        made.path.write_bytes(whole[:length])
        if length <= ends:
            with pytest.raises(BadInputError):
                request_journal.reopen(made.path)
            continue
        with request_journal.reopen(made.path) as read:
            assert read.rows == ROWS
            read.end("written")
        with request_journal.reopen(made.path) as read:
            assert read.ended == "written"


def test_file_that_is_not_request_journal_is_refused(tmp_path: Path) -> None:
    for number, text in enumerate(("", "{}\n", "private_identifier\n", "[1]\n", '{"v": 2}\n')):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(text)
        with pytest.raises(BadInputError, match="not the journal"):
            request_journal.reopen(path)
    with pytest.raises(BadInputError, match="Cannot read"):
        request_journal.reopen(tmp_path / "none.jsonl")


def test_request_journal_that_cannot_be_created_prevents_run(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(AspenError, match="nothing was changed"):
        request_journal.create(head(), ROWS)
