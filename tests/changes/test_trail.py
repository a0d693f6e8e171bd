"""The chain of an audit trail: appending, reading, finding, and verifying entries."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aspencli.changes.trail import RECENT, Entry, Trail, newest_runs
from aspencli.errors import UnreachableError

PREFIX = "aspencli/audit/prod/"


class FolderObjects:
    """Objects as files, which the file system creates only if absent.

    Attributes:
        reads: The keys that were read.
        lists: The number of pages that were listed.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.reads: list[str] = []
        self.lists = 0
        self.after_create: Callable[[], None] = lambda: None

    def create(self, key: str, body: bytes) -> bool:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(body)
        try:
            path.hardlink_to(part)
        except FileExistsError:
            return False
        finally:
            part.unlink()
        self.after_create()
        return True

    def read(self, key: str) -> bytes | None:
        self.reads.append(key)
        path = self.folder / key
        return path.read_bytes() if path.exists() else None

    def keys(self, prefix: str, *, after: str = "", most: int = 1_000) -> list[str]:
        self.lists += 1
        found = (f"{prefix}{path.name}" for path in (self.folder / prefix).glob("*.*"))
        return sorted(key for key in found if key > after)[:most]


@pytest.fixture
def objects(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path)


@pytest.fixture
def trail(objects: FolderObjects) -> Trail:
    return Trail(objects, PREFIX)


def run_id(number: int) -> str:
    return f"20261124-{number:06d}-0000"


def event(name: str, run: str, **facts: Any) -> dict[str, Any]:
    return {"event": name, "run": run, "at": "2026-11-24T03:40:12+00:00", "target": "prod", **facts}


def fill(trail: Trail, runs: int) -> list[Entry]:
    """Append the begin and the end of runs."""
    entries: list[Entry] = []
    for number in range(runs):
        for name, facts in (("started", {"user": "ann"}), ("ended", {"outcome": "written"})):
            last = entries[-1] if entries else None
            entries.append(trail.append(event(name, run_id(number), **facts), last))
    return entries


def change(trail: Trail, objects: FolderObjects, number: int, **facts: Any) -> None:
    """Edit an object by hand."""
    path = objects.folder / trail.key(number)
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def faults(trail: Trail, known: dict[int, str] | None = None) -> list[tuple[int | None, str]]:
    """Return what a verification reports, each with the first word of the reason."""
    return [
        (fault.number, fault.reason.partition(":")[0]) for fault in trail.verify(known or {}).faults
    ]


def test_entries_name_the_hash_of_the_entry_before(trail: Trail) -> None:
    first, second, third, _ = fill(trail, 2)
    assert (first.number, first.previous) == (1, None)
    assert second.previous == first.sha256
    assert third.previous == second.sha256
    assert faults(trail) == []


def test_newest_entry_has_the_first_key(trail: Trail, objects: FolderObjects) -> None:
    entries = fill(trail, 10)
    assert objects.keys(PREFIX, most=1) == [trail.key(20)]
    head = trail.head()
    assert head is not None
    assert (head.number, head.sha256) == (20, entries[-1].sha256)


def test_head_of_an_empty_trail_is_none(trail: Trail) -> None:
    assert trail.head() is None
    assert list(trail.newest()) == []
    assert trail.find("20261124") == []
    assert faults(trail) == []


def test_entry_after_an_outdated_head_follows_the_newest_one(trail: Trail) -> None:
    (first, *_) = fill(trail, 3)
    late = trail.append(event("ended", run_id(99)), first)
    assert late.number == 7
    assert faults(trail) == []


def test_operators_who_append_at_once_all_succeed(trail: Trail) -> None:
    heads: list[Entry] = []

    def work(operator: int) -> None:
        last = None
        for number in range(20):
            last = trail.append(event("started", f"20261124-{operator}-{number}"), last)
        heads.append(last) if last else None

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heads) == 4
    verified = trail.verify({})
    assert verified.faults == []
    runs = sorted(link.mention.run for link in verified.links.values())
    assert runs == sorted(f"20261124-{who}-{number}" for who in range(4) for number in range(20))


def test_repeated_request_whose_answer_was_lost_makes_one_entry(
    trail: Trail, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    (*_, last) = fill(trail, 1)
    create = objects.create

    def lose(key: str, body: bytes) -> bool:
        create(key, body)
        return create(key, body)  # a client repeats it, and is told that the key exists

    monkeypatch.setattr(objects, "create", lose)
    entry = trail.append(event("started", run_id(5)), last)
    assert entry.number == 3
    assert len(trail.verify({}).links) == 3


def test_append_gives_up_when_the_key_is_never_free(
    trail: Trail, objects: FolderObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "create", lambda _key, _body: False)
    with pytest.raises(UnreachableError, match="Too many operators"):
        trail.append(event("started", run_id(1)), None)


def test_reading_the_newest_runs_costs_what_is_shown(trail: Trail, objects: FolderObjects) -> None:
    fill(trail, 300)
    objects.reads.clear()
    objects.lists = 0
    runs = newest_runs(trail, pytest.fail)
    assert [next(runs).id for _ in range(3)] == [run_id(299), run_id(298), run_id(297)]
    assert len(objects.reads) <= 12
    assert objects.lists == 1


def test_newest_runs_have_their_outcomes(trail: Trail) -> None:
    last = fill(trail, 1)[-1]
    last = trail.append(event("started", run_id(1), undo_of=run_id(0)), last)
    last = trail.append(event("started", run_id(2), host="elsewhere"), last)
    last = trail.append(event("ended", run_id(1), outcome="written"), last)
    crashed, undo, first = newest_runs(trail, pytest.fail)
    assert (crashed.id, crashed.outcome) == (run_id(2), "unknown")
    assert (undo.id, undo.outcome) == (run_id(1), "written")
    assert (first.outcome, first.undone_by) == ("written", (run_id(1),))


@pytest.mark.parametrize("number", [0, 150, 299])
def test_run_is_found_without_reading_all_entries(
    trail: Trail, objects: FolderObjects, number: int
) -> None:
    fill(trail, 300)
    objects.reads.clear()
    found = trail.find(run_id(number))
    assert [each["event"] for each in found] == ["started", "ended"]
    assert len(objects.reads) <= 2 + 1 + 600 // (RECENT + 1)
    assert trail.find("20261123") == []


def test_run_is_found_beside_a_missing_and_an_unreadable_entry(
    trail: Trail, objects: FolderObjects
) -> None:
    fill(trail, 100)
    (objects.folder / trail.key(200)).write_text("no JSON")
    (objects.folder / trail.key(135)).unlink()
    assert [each["event"] for each in trail.find(run_id(3))] == ["started", "ended"]


def test_unreadable_newest_entry_does_not_stop_the_next(
    trail: Trail, objects: FolderObjects
) -> None:
    fill(trail, 2)
    (objects.folder / trail.key(4)).write_text("no JSON")
    entry = trail.append(event("started", run_id(9)), trail.head())
    assert entry.number == 5
    assert (4, "edited, or added by hand") in faults(trail)
    told: list[str] = []
    assert [run.id for run in newest_runs(trail, told.append)] == [run_id(9), run_id(1), run_id(0)]
    assert told == ["Skipped entry 4 of the audit trail, which cannot be read."]


# Verification


def test_edited_entry_is_named(trail: Trail, objects: FolderObjects) -> None:
    fill(trail, 3)
    change(trail, objects, 3, event=event("started", run_id(1), user="bob"))
    (fault,) = trail.verify({}).faults
    assert (fault.number, fault.run, fault.reason) == (
        3,
        run_id(1),
        "edited: entry 4 follows another one",
    )


def test_missing_entries_are_named(trail: Trail, objects: FolderObjects) -> None:
    fill(trail, 5)
    for number in (1, 4, 5):
        (objects.folder / trail.key(number)).unlink()
    assert [(fault.number, fault.reason) for fault in trail.verify({}).faults] == [
        (1, "missing"),
        (4, "missing (to 5)"),
    ]


def test_missing_end_is_named_if_this_machine_wrote_it(
    trail: Trail, objects: FolderObjects
) -> None:
    entries = fill(trail, 2)
    (objects.folder / trail.key(4)).unlink()
    assert faults(trail) == []  # only the operator who wrote it can tell
    assert faults(trail, {4: entries[-1].sha256}) == [(4, "missing")]


def test_edited_newest_entry_is_named_if_this_machine_wrote_it(
    trail: Trail, objects: FolderObjects
) -> None:
    entries = fill(trail, 2)
    change(trail, objects, 4, event=event("ended", run_id(1), outcome="declined"))
    assert faults(trail, {4: entries[-1].sha256}) == [(4, "edited")]


def test_added_objects_are_named(trail: Trail, objects: FolderObjects) -> None:
    entries = fill(trail, 2)
    objects.create(f"{PREFIX}note.txt", b"x")
    objects.create(trail.key(5), b'{"number": 5, "previous": "0000"}')
    assert faults(trail, {4: entries[-1].sha256}) == [
        (None, "added"),
        (5, "edited, or added by hand"),
    ]


def test_added_entry_with_a_wrong_hash_is_named(trail: Trail, objects: FolderObjects) -> None:
    entries = fill(trail, 2)
    content = {"number": 5, "previous": "0" * 64, "event": event("started", run_id(7))}
    objects.create(trail.key(5), json.dumps(content).encode())
    assert faults(trail, {4: entries[-1].sha256}) == [(5, "edited, or added by hand")]
    (fault,) = trail.verify({}).faults
    assert (fault.number, fault.reason) == (
        4,
        "edited, or entry 5 was edited or added by hand",
    )


def test_replaced_first_entry_is_named(trail: Trail, objects: FolderObjects) -> None:
    fill(trail, 2)
    change(trail, objects, 1, previous="0" * 64)
    assert faults(trail) == [(1, "edited")]


def test_every_single_edit_removal_and_swap_is_found(trail: Trail, objects: FolderObjects) -> None:
    known = {entry.number: entry.sha256 for entry in fill(trail, 6)}
    for number in range(1, 13):
        path = objects.folder / trail.key(number)
        body = path.read_bytes()
        for changed in (body.replace(b"20261124", b"20261125", 1), body + b" ", b"{}"):
            path.write_bytes(changed)
            assert any(fault[0] == number for fault in faults(trail, known))
        path.unlink()
        assert faults(trail, known) == [(number, "missing")]
        path.write_bytes(body)
        if number > 1:
            other = objects.folder / trail.key(number - 1)
            before = other.read_bytes()
            other.write_bytes(body), path.write_bytes(before)
            assert {fault[0] for fault in faults(trail, known)} == {number - 1, number}
            other.write_bytes(before), path.write_bytes(body)
    assert faults(trail, known) == []
