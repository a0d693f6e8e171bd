"""Every write is in the history, from before the question until its outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands.api_lab import ApiLab, Relay
from tests.cli.commands.conftest import Cli
from tests.remote.conftest import Serving
from tests.remote.naughty import Reply, Seen, reply_json

_SAMPLE = ("samples", "update", "7", "--public-identifier", "NEW/7")


def runs(aspen_home: Path) -> list[dict[str, Any]]:
    """Return the events of each run, merged, in order."""
    journal = aspen_home / "state" / "history" / "journal.jsonl"
    found: dict[str, dict[str, Any]] = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        event = json.loads(line)
        found.setdefault(event["run"], {}).update(event)
    return list(found.values())


def short(aspen_home: Path) -> list[tuple[Any, ...]]:
    return [
        (run["command"], run["via"], run["counts"]["rows"], run["event"], run.get("outcome"))
        for run in runs(aspen_home)
    ]


def test_writes_through_the_api_are_recorded(api_lab: ApiLab, aspen_home: Path) -> None:
    for words in (
        (*_SAMPLE, "--yes"),
        ("samples", "delete", "8", "9", "--yes"),
        ("user", "update-me", "--gisaid-submitter-id", "abc", "--yes"),
    ):
        ended = api_lab(*words)
        assert ended.code == 0, ended.err
    assert short(aspen_home) == [
        ("samples update", "api", 1, "ended", "written"),
        ("samples delete", "api", 2, "ended", "written"),
        ("users update-me", "api", 1, "ended", "written"),
    ]
    update, _, _ = runs(aspen_home)
    assert update["group"]["id"] == 1
    assert update["database"]["api"] == api_lab.service.url


def test_dry_runs_and_reads_are_not_recorded(api_lab: ApiLab, aspen_home: Path) -> None:
    assert api_lab(*_SAMPLE, "--dry-run").code == 0
    assert api_lab("samples", "delete", "8", "--dry-run").code == 0
    assert api_lab("samples", "list").code == 0
    assert runs(aspen_home) == []


def test_declined_write_is_recorded_as_declined(api_lab: ApiLab, aspen_home: Path) -> None:
    assert api_lab(*_SAMPLE, "--no-input").code == 3
    assert short(aspen_home) == [("samples update", "api", 1, "ended", "declined")]


def test_write_that_fails_midway_is_recorded_as_unfinished(
    api_lab: ApiLab, aspen_home: Path, serving: Serving
) -> None:
    relay = Relay(api_lab.service.url, "", ())

    def refuse(seen: Seen) -> Reply:
        return reply_json({"detail": "no"}, 500) if seen.method == "DELETE" else relay(seen)

    command = ("samples", "delete", "7", "--yes")
    ended = api_lab(*command, env={"ASPEN_API": serving(route=refuse).url})
    assert ended.code not in {0, 3}
    assert short(aspen_home) == [("samples delete", "api", 1, "ended", "unfinished")]
    (run,) = runs(aspen_home)
    shown = api_lab("history", "show", run["run"])
    assert shown.code == 0
    assert "samples resume" not in shown.err
    undone = api_lab("samples", "undo", run["run"])
    assert undone.code == 2
    assert "has no undo file" in undone.err


@pytest.mark.parametrize("made", [True, False], ids=["deleted late", "not deleted"])
def test_deletion_repeated_after_lost_response_keeps_the_saved_metadata(
    api_lab: ApiLab, aspen_home: Path, serving: Serving, made: bool
) -> None:
    relay = Relay(api_lab.service.url, "", ())
    sent: list[Seen] = []

    def lose(seen: Seen) -> Reply:
        if seen.method != "DELETE":
            return relay(seen)
        sent.append(seen)
        if len(sent) == 1:  # the service is slower than a proxy in front of it
            return reply_json({"detail": "timed out"}, 504)
        if made:
            relay(seen)
        return reply_json({"detail": "samples not found"}, 404)

    command = ("samples", "delete", "7", "--yes")
    ended = api_lab(*command, env={"ASPEN_API": serving(route=lose).url})
    (run,) = runs(aspen_home)
    assert (ended.code, run["outcome"]) == ((0, "written") if made else (5, "unfinished"))
    assert json.loads(Path(run["saved_file"]).read_text())["samples"][0]["id"] == 7


def test_writes_to_the_database_are_recorded(cli: Cli, aspen_home: Path) -> None:
    for words in (
        (
            "users",
            "create",
            "--name",
            "New",
            "--email",
            "new@example.org",
            "--auth0-user-id",
            "auth0|new",
            "--group",
            "1",
            "--yes",
        ),
        ("db", "downgrade", "base", "--yes"),
        ("db", "upgrade", "--yes"),
    ):
        ended = cli(*words)
        assert ended.code == 0, ended.err
    found = short(aspen_home)
    assert [(one[0], one[1], one[3], one[4]) for one in found] == [
        ("users create", "db", "ended", "written"),
        ("db downgrade", "db", "ended", "written"),
        ("db upgrade", "db", "ended", "written"),
    ]


@pytest.mark.parametrize("words", [("history", "prune"), ("history", "list"), ("db", "status")])
def test_commands_that_change_no_target_are_not_recorded(
    cli: Cli, aspen_home: Path, words: tuple[str, ...]
) -> None:
    assert cli(*words, "--yes").code == 0
    assert runs(aspen_home) == []


def test_unwritable_history_stops_the_write(
    api_lab: ApiLab, aspen_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (aspen_home / "state").mkdir(parents=True, exist_ok=True)
    (aspen_home / "state" / "history").write_text("a file in the way")
    before = api_lab.service("GET", "/v2/orgs/1/pathogens/SC2/samples/", "gadmin").json()
    ended = api_lab(*_SAMPLE, "--yes")
    assert ended.code == 1
    assert "nothing was changed" in ended.err.lower()
    after = api_lab.service("GET", "/v2/orgs/1/pathogens/SC2/samples/", "gadmin").json()
    assert after == before


def test_digest_of_a_bulk_run_through_the_api_depends_on_its_rows(
    api_lab: ApiLab, aspen_home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ids.csv"
    words = ("samples", "update-public-ids", "--group-id", "1", "-f", str(path), "--via", "api")
    samples = api_lab.service("GET", "/v2/orgs/1/pathogens/SC2/samples/", "gadmin").json()
    lab = samples["samples"][0]["private_identifier"]
    digests = []
    for name in ("NEW/1", "NEW/2", "NEW/1", "NEW/2"):
        path.write_text(f"private_identifier,public_identifier\n{lab},{name}\n")
        ended = api_lab(*words, "--yes")
        assert ended.code == 0, ended.err
        digests.append(runs(aspen_home)[-1]["digest"])
    assert digests[1] == digests[3]
    assert len(set(digests)) == 3  # the first run had another old value than the third
