"""Checksums of the journal's lines: every change by hand is found, and old journals stay valid."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from aspencli.changes.journal import Journal

AT = "2026-11-24T03:40:12+00:00"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "history")


def fill(journal: Journal, runs: int = 3, *, padding: str = "") -> None:
    for number in range(runs):
        for event in ("started", "ended"):
            run = f"20261124-00000{number}-0000"
            journal.append({"event": event, "run": run, "at": AT, "padding": padding})


def lines_of(journal: Journal) -> list[bytes]:
    return journal.path.read_bytes().splitlines(keepends=True)


def faults(journal: Journal) -> list[tuple[int, str]]:
    return [(fault.line, fault.reason.partition(":")[0]) for fault in journal.verify()[1]]


def test_untouched_journal_has_no_faults(journal: Journal) -> None:
    assert journal.verify() == (0, [])
    fill(journal)
    assert journal.verify() == (6, [])
    assert all(
        set(event) == {"v", "event", "run", "at", "padding"} for event in journal.read().events
    )


@pytest.mark.parametrize("number", range(6))
def test_edited_line_is_found(journal: Journal, number: int) -> None:
    fill(journal)
    lines = lines_of(journal)
    lines[number] = lines[number].replace(b"20261124", b"20261125", 1)
    journal.path.write_bytes(b"".join(lines))
    ((line, run, reason),) = [(f.line, f.run[:8], f.reason) for f in journal.verify()[1]]
    assert (line, run) == (number + 1, "20261125")
    assert reason.startswith("edited")


def test_reformatted_line_is_found(journal: Journal) -> None:
    fill(journal)
    lines = lines_of(journal)
    lines[2] = json.dumps(json.loads(lines[2]), separators=(",", ":")).encode() + b"\n"
    journal.path.write_bytes(b"".join(lines))
    assert faults(journal)[0] == (3, "added by hand, or by an older aspencli")


@pytest.mark.parametrize("number", range(5))
def test_removed_line_is_found(journal: Journal, number: int) -> None:
    fill(journal)
    lines = lines_of(journal)
    del lines[number]
    journal.path.write_bytes(b"".join(lines))
    assert faults(journal) == [(number + 1, "lines before it were removed or added")]


def test_swapped_lines_are_found(journal: Journal) -> None:
    fill(journal)
    lines = lines_of(journal)
    lines[1], lines[2] = lines[2], lines[1]
    journal.path.write_bytes(b"".join(lines))
    assert {line for line, _ in faults(journal)} == {2, 3, 4}


def test_added_line_is_found(journal: Journal) -> None:
    fill(journal)
    lines = lines_of(journal)
    made = {"v": 1, "event": "ended", "run": "20261124-000009-0000", "at": AT}
    lines.insert(3, json.dumps(made).encode() + b"\n")
    journal.path.write_bytes(b"".join(lines))
    assert faults(journal) == [(4, "added by hand, or by an older aspencli")]


def test_torn_line_is_found_and_later_lines_stay_valid(journal: Journal) -> None:
    fill(journal)
    with journal.path.open("ab") as file:
        file.write(b'{"v": 1, "event": "sta')
    fill(journal, 1)
    assert faults(journal) == [(7, "edited, or cut short by a crash")]


@pytest.mark.parametrize("padding", ["", "x" * 200_000])
def test_lines_of_older_versions_are_read_and_not_reported(journal: Journal, padding: str) -> None:
    journal.path.parent.mkdir()
    old = {"v": 1, "event": "started", "run": "20250101-000000-0000", "at": AT, "p": padding}
    journal.path.write_text((json.dumps(old) + "\n") * 3)
    fill(journal)
    assert journal.verify() == (9, [])
    assert len(journal.read().events) == 9


def test_pruned_journal_stays_valid_and_keeps_edited_lines_recognizable(journal: Journal) -> None:
    fill(journal)
    before = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    journal.rewrite(lambda event: event["run"] != "20261124-000000-0000", before)
    assert journal.verify() == (5, [])
    lines = lines_of(journal)
    lines[2] = lines[2].replace(b"ended", b"ENDED")
    journal.path.write_bytes(b"".join(lines))
    journal.rewrite(lambda event: event["run"] != "20261124-000002-0000", before)
    assert faults(journal) == [(3, "edited")]
    fill(journal, 1)
    assert faults(journal) == [(3, "edited")]


def test_journal_keeps_its_id(journal: Journal) -> None:
    made = journal.id
    assert len(made) == 16
    assert Journal(journal.path.parent).id == made
