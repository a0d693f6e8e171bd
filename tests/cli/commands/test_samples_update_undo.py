"""Undo files of ``samples update``, undo of several columns, and records of deleted samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import Location, Sample
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.cli.commands.ending import Ended
from tests.remote.conftest import Serving
from tests.remote.naughty import Reply, Seen, reply_json

ALL = (
    *("--public-identifier", "NEW/7", "--private-identifier", "=L 7"),
    *("--collection-date", "2021-03-04", "--sequencing-date", "none", "--private"),
)


def _state(lab: ApiLab) -> dict[int, dict[str, Any]]:
    """Return all that the API shows of the samples of group 1, by ID."""
    answer = lab.service("GET", "/v2/orgs/1/pathogens/SC2/samples/", "gadmin").json()
    return {each["id"]: each for each in answer["samples"]}


def _undo_files(aspen_home: Path) -> list[Path]:
    return sorted((aspen_home / "state" / "undo").glob("*"))


def _update(lab: ApiLab, *arguments: str) -> Ended:
    ended = lab("samples", "update", *arguments, "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    return ended


def _undo(lab: ApiLab, what: object, *options: str) -> Ended:
    return lab("samples", "undo", str(what), "-o", "json", *options)


def _last_run(lab: ApiLab) -> dict[str, Any]:
    listed: Sequence[dict[str, Any]] = lab("history", "list", "-o", "json").json
    shown: dict[str, Any] = lab("history", "show", listed[0]["run"], "-o", "json").json[0]
    return shown


def _location(lab: ApiLab) -> int:
    with lab.service.database.reading() as session:
        place = session.scalars(
            sa.select(Location).where(Location.location.is_not(None)).order_by(Location.id)
        ).first()
        assert place is not None
        return place.id


def _set(lab: ApiLab, sample: int, **values: Any) -> None:
    with lab.service.database.begin() as session:
        for name, value in values.items():
            setattr(session.get_one(Sample, sample), name, value)


def test_update_saves_undo_file_listed_in_history(api_lab: ApiLab, aspen_home: Path) -> None:
    before = _state(api_lab)[7]
    place = _location(api_lab)
    ended = _update(api_lab, "7", *ALL, "--location", str(place))
    (file,) = _undo_files(aspen_home)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.name.endswith("-local-group1.csv")
    assert f"Undo it: aspencli --env local --api {api_lab.service.url} samples undo {file}" in (
        " ".join(ended.err.split())
    )
    head, header, row = file.read_text().splitlines()
    origin = json.loads(head.removeprefix("# aspencli undo "))
    run = _last_run(api_lab)
    assert (origin["group_id"], origin["rows"], origin["run"]) == (1, 1, run["run"])
    assert origin["columns"] == [
        *("private_identifier", "public_identifier", "collection_date", "sequencing_date"),
        *("private", "location"),
    ]
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert values == {
        "id": "7",
        "private_identifier": "'=L 7",
        "new_private_identifier": "'=L 7",
        "old_private_identifier": before["private_identifier"],
        "new_public_identifier": "NEW/7",
        "old_public_identifier": before["public_identifier"],
        "new_collection_date": "2021-03-04",
        "old_collection_date": before["collection_date"],
        "new_sequencing_date": "\\N",
        "old_sequencing_date": before["sequencing_date"],
        "new_private": "true",
        "old_private": "false",
        "new_location": str(place),
        "old_location": str(before["collection_location"]["id"]),
    }
    assert (run["outcome"], run["undo_file"]) == ("written", str(file))
    shown = api_lab("history", "show", run["run"])
    assert f"samples undo {run['run']}" in shown.err
    pruned = api_lab("history", "prune", "--older-than", "0", "--dry-run")
    assert f"1 run can no longer be undone: {run['run']}" in pruned.err
    assert "undo files" in pruned.out


@pytest.mark.parametrize("via", ["api", "db"])
def test_update_is_undone_and_redone(api_lab: ApiLab, aspen_home: Path, via: str) -> None:
    before = _state(api_lab)
    place = _location(api_lab)
    _update(api_lab, "7", *ALL, "--location", str(place))
    _update(api_lab, "8", "9", "--sequencing-date", "2022-01-01")
    after, updated = _state(api_lab), _last_run(api_lab)["run"]
    first, second = _undo_files(aspen_home)
    options = ("--via", via)
    planned = _undo(api_lab, first, *options, "--dry-run")
    assert planned.code == 0, planned.err
    assert {row["column"]: row["after"] for row in planned.json} == {
        "private_identifier": before[7]["private_identifier"],
        "public_identifier": before[7]["public_identifier"],
        "collection_date": before[7]["collection_date"],
        "sequencing_date": before[7]["sequencing_date"],
        "private": "false",
        "location": " / ".join(
            before[7]["collection_location"][part]
            for part in ("region", "country", "division", "location")
            if before[7]["collection_location"][part]
        ),
    }
    assert (_state(api_lab), len(_undo_files(aspen_home))) == (after, 2)
    refused = _undo(api_lab, first, *options)
    assert (refused.code, _state(api_lab)) == (3, after)

    ended = _undo(api_lab, updated, *options, "--yes")
    assert (ended.code, ended.json[0]["changed"]) == (0, 2), ended.err
    ended = _undo(api_lab, first, *options, "--yes")
    assert (ended.code, ended.json[0]["changed"]) == (0, 1), ended.err
    assert _state(api_lab) == before
    run = _last_run(api_lab)
    assert (run["command"], run["outcome"], run["via"]) == ("samples undo", "written", via)
    assert run["undo_of"] not in {None, updated}
    again = _undo(api_lab, second, *options, "--yes")
    assert again.code == 0
    assert "Nothing to change." in again.err
    redone = _undo(api_lab, ended.json[0]["undo_file"], *options, "--yes")
    assert redone.code == 0, redone.err
    assert _state(api_lab) == {**before, 7: after[7]}


def test_undo_uses_the_backend_of_the_run(api_lab: ApiLab, aspen_home: Path) -> None:
    _update(api_lab, "7", "--private")
    (file,) = _undo_files(aspen_home)
    (aspen_home / "state" / "history" / "journal.jsonl").unlink()
    assert _undo(api_lab, file, "--yes").code == 0
    assert _last_run(api_lab)["via"] == "api"


@pytest.mark.parametrize("via", ["api", "db"])
def test_undo_skips_values_changed_since(api_lab: ApiLab, aspen_home: Path, via: str) -> None:
    _update(api_lab, "7", "--public-identifier", "NEW/7", "--private")
    (file,) = _undo_files(aspen_home)
    label = _state(api_lab)[7]["private_identifier"]
    _set(api_lab, 7, public_identifier="SOMEBODY/ELSE")
    before = _state(api_lab)
    ended = _undo(api_lab, file, "--yes", "--via", via)
    assert (ended.code, _state(api_lab)) == (7, before)
    assert (
        f'line 3: public_identifier: "{label}" is now named "SOMEBODY/ELSE", expected "NEW/7"'
        in ended.err
    )
    assert "1 of 1 sample skipped (listed above)" in ended.err
    forced = _undo(api_lab, file, "--yes", "--via", via, "--force")
    assert forced.code == 0, forced.err
    assert "SOMEBODY/ELSE" in forced.err
    assert _state(api_lab)[7]["private"] is False


def test_updates_are_undone_in_reverse_order_only(api_lab: ApiLab, aspen_home: Path) -> None:
    before = _state(api_lab)
    _update(api_lab, "7", "--collection-date", "2021-03-04")
    _update(api_lab, "7", "--collection-date", "2021-03-05")
    first, second = _undo_files(aspen_home)
    early = _undo(api_lab, first, "--yes")
    assert early.code == 7
    assert 'now has collection_date "2021-03-05", expected "2021-03-04"' in early.err
    for file in (second, first):
        assert _undo(api_lab, file, "--yes").code == 0
    assert _state(api_lab) == before


def test_update_sends_nothing_if_undo_file_cannot_be_written(
    api_lab: ApiLab, aspen_home: Path, tmp_path: Path, serving: Serving
) -> None:
    before = _state(api_lab)
    taken = tmp_path / "taken.csv"
    taken.write_text("theirs")
    command = ("samples", "update", "7", "--private", "--yes")
    ended = api_lab(*command, "--undo-file", str(taken))
    assert ended.code == 2
    assert "already exists" in ended.err
    ended = api_lab(*command, "--dry-run")
    assert (ended.code, _undo_files(aspen_home)) == (0, [])
    (aspen_home / "state").mkdir(parents=True, exist_ok=True)
    folder = aspen_home / "state" / "undo"
    folder.write_text("a file in the way")
    relay, sent = Relay(api_lab.service.url, "", ()), []

    def watch(seen: Seen) -> Reply:
        sent.append(seen.method)
        return relay(seen)

    ended = api_lab(*command, env={"ASPEN_API": serving(route=watch).url})
    assert ended.code == 1
    assert "Cannot write the undo file" in ended.err
    assert "PUT" not in sent
    assert _last_run(api_lab)["outcome"] == "rolled back"
    chosen = tmp_path / "chosen.csv"
    ended = api_lab(*command, "--undo-file", str(chosen))
    assert ended.code == 0, ended.err
    assert chosen.stat().st_mode & 0o777 == 0o600
    blocked = _undo(api_lab, chosen, "--yes")
    assert blocked.code == 1
    assert _state(api_lab) == {**before, 7: {**before[7], "private": True}}


def test_rejected_update_leaves_no_undo_file(api_lab: ApiLab, aspen_home: Path) -> None:
    taken = _state(api_lab)[8]["public_identifier"]
    ended = api_lab("samples", "update", "7", "--public-identifier", taken, "--yes")
    assert (ended.code, _undo_files(aspen_home)) == (7, [])
    assert _last_run(api_lab)["outcome"] == "rolled back"


def test_update_and_undo_that_fail_midway_can_be_undone(
    api_lab: ApiLab, aspen_home: Path, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.samples.edit.EDIT_CHUNK", 1)
    before = _state(api_lab)
    relay, puts = Relay(api_lab.service.url, "", ()), []

    def fail_second(seen: Seen) -> Reply:
        puts.extend([seen] * (seen.method == "PUT"))
        fails = seen.method == "PUT" and len(puts) == 2
        return reply_json({"detail": "no"}, 500) if fails else relay(seen)

    failing = {"ASPEN_API": serving(route=fail_second).url}
    ended = api_lab("samples", "update", "7", "8", "--private", "--yes", env=failing)
    assert ended.code == 1
    (file,) = _undo_files(aspen_home)
    assert f"samples undo {file}" in " ".join(ended.err.split())
    run = _last_run(api_lab)
    assert run["outcome"] == "unfinished"
    shown = api_lab("history", "show", run["run"])
    assert f"samples undo {run['run']}" in shown.err
    assert api_lab("samples", "update", "8", "--private", "--yes", env=failing).code == 0

    puts.clear()
    ended = api_lab("samples", "undo", str(file), "--yes", env=failing)
    assert ended.code == 1
    assert "1 of 2 samples updated before the error" in ended.err
    shown = api_lab("history", "show", run["run"])
    assert "samples resume" not in shown.err
    assert f"samples undo {run['run']}" in shown.err
    assert api_lab("samples", "undo", str(file), "--yes", env=failing).code == 0
    assert _state(api_lab) == before


def test_history_check_determines_missing_outcome_of_update(
    api_lab: ApiLab, aspen_home: Path
) -> None:
    _update(api_lab, "7", "--private")
    journal = aspen_home / "state" / "history" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    events[0]["pid"], run = 1 << 22, events[0]["run"]
    journal.write_text("".join(json.dumps(event) + "\n" for event in events[:-1]))
    assert _undo(api_lab, run, "--yes").code == 7
    ended = api_lab("history", "check", run, "-o", "json")
    assert (ended.code, ended.json[0]["outcome"]) == (0, "written"), ended.err
    assert _undo(api_lab, run, "--yes").code == 0


def test_undo_of_bulk_update_through_api_skips_swaps(
    api_lab: ApiLab, aspen_home: Path, tmp_path: Path
) -> None:
    before = _state(api_lab)
    labels = {id_: before[id_]["private_identifier"] for id_ in before}
    names = {id_: before[id_]["public_identifier"] for id_ in before}
    rows = [
        (labels[7], names[8], "2021-01-01"),  # a chain, whose undo takes two requests
        (labels[8], "FREE/8", "2021-01-01"),
        (labels[9], names[10], "2021-01-01"),  # a swap
        (labels[10], names[9], "2021-01-01"),
    ]
    file = tmp_path / "changes.csv"
    lines = ["private_identifier,public_identifier,collection_date", *map(",".join, rows)]
    file.write_text("\n".join(lines) + "\n")
    undo = tmp_path / "undo.csv"
    done = api_lab(
        *("samples", "bulk-update", "--group-id", "1", "--from", str(file)),
        *("--yes", "--undo-file", str(undo)),
    )
    assert done.code == 0, done.err
    ended = _undo(api_lab, undo, "--via", "api", "--yes")
    assert ended.code == 7
    assert ended.err.count("the API cannot do that; use --via db") == 2
    assert "moves in a cycle of samples" in ended.err
    now = _state(api_lab)
    assert [now[id_] for id_ in (7, 8)] == [before[id_] for id_ in (7, 8)]
    assert now[9]["public_identifier"] == names[10]
    rest = _undo(api_lab, undo, "--yes")  # the database, which the run used
    assert rest.code == 0, rest.err
    assert _state(api_lab) == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("7,L,\\N,{place}",), "location: would be cleared: the API cannot do that"),
        (("7,L,999999999,{place}",), 'location: there is no location "999999999"'),
        (("999999,L,{place},{place}",), 'sample "L" no longer exists'),
        (("7,L,{other},{place}", "7,L,{other},{place}"), "duplicate of line 3"),
    ],
)
def test_undo_through_api_names_values_it_cannot_restore(
    shared_lab: ApiLab, tmp_path: Path, change: tuple[str, ...], reason: str
) -> None:
    place = _state(shared_lab)[7]["collection_location"]["id"]
    file = tmp_path / "undo.csv"
    origin = {
        "target": "local",
        "group_id": 1,
        "made": "2026-01-01T00:00:00+00:00",
        "rows": len(change),
        "of": "samples",
        "columns": ["location"],
        "place": {"api": shared_lab.service.url},
    }
    rows = [each.format(place=place, other=_location(shared_lab)) for each in change]
    lines = ["id,private_identifier,old_location,new_location", *rows]
    file.write_text("\n".join([f"# aspencli undo {json.dumps(origin)}", *lines]) + "\n")
    ended = _undo(shared_lab, file, "--dry-run")
    assert ended.code in {2, 7}, ended.err
    assert reason in ended.err


def test_delete_saves_metadata_of_deleted_samples(api_lab: ApiLab, aspen_home: Path) -> None:
    before = _state(api_lab)
    folder = aspen_home / "state" / "deleted"
    assert api_lab("samples", "delete", "7", "8", "--dry-run").code == 0
    assert not folder.exists()
    ended = api_lab("samples", "delete", "7", "8", "--yes")
    assert ended.code == 0, ended.err
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    run = _last_run(api_lab)
    assert (run["saved_file"], run["undo_file"], file.stem) == (str(file), None, run["run"])
    kept = json.loads(file.read_text())
    assert (kept["run"], kept["group_id"]) == (run["run"], 1)
    assert {each["id"]: each["private_identifier"] for each in kept["samples"]} == {
        id_: before[id_]["private_identifier"] for id_ in (7, 8)
    }
    assert kept["samples"][0]["collection_location"] == before[7]["collection_location"]
    said = " ".join(ended.err.split())
    assert f"Metadata of the samples: {file}" in said
    assert "It does not include the sequences." in said
    assert "samples create --help" in said
    shown = api_lab("history", "show", run["run"])
    assert "but not their sequences" in shown.err
    assert str(file) in "".join(shown.out.split())
    pruned = api_lab("history", "prune", "--older-than", "0", "--yes")
    assert (pruned.code, list(folder.iterdir())) == (0, []), pruned.err


def test_delete_deletes_nothing_if_metadata_cannot_be_saved(
    api_lab: ApiLab, aspen_home: Path
) -> None:
    before = _state(api_lab)
    (aspen_home / "state").mkdir(parents=True, exist_ok=True)
    (aspen_home / "state" / "deleted").write_text("a file in the way")
    ended = api_lab("samples", "delete", "7", "--yes")
    assert ended.code == 1
    assert "nothing was deleted" in ended.err
    assert _state(api_lab) == before
    assert _last_run(api_lab)["outcome"] == "rolled back"
