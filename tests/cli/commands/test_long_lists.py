"""Lists of many samples from the API: requests for them, the client's memory, and broken ones."""

from __future__ import annotations

import gzip
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aspencli.cli.main import run
from tests.api.conftest import CLIENT_ID, Provider
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.cli.commands.ending import Ended
from tests.cli.commands.renames_lab import write_mapping
from tests.remote.conftest import Serving
from tests.remote.long_list import long_list, sample, stream
from tests.remote.naughty import Naughty, Reply, Route, Seen, reply, reply_json, reset

SC2 = "/v2/orgs/1/pathogens/SC2/samples/"
NONE, ONE, EACH = "no list", "the list of a pathogen", "the list of each pathogen"
ID, PRIVATE, PUBLIC = "7", "RCPHL-0000007", "hCoV-19/USA/CA-RCPHL-3/2020"
READS = (
    (("samples", "list", "--org", "1", "--pathogen", "SC2", "--limit", "3", "--via", "api"), ONE),
    (("samples", "list", "--org", "1", "--via", "api"), EACH),
    (("samples", "show", ID, "--by", "id", "--via", "api"), ONE),
    (("samples", "show", PRIVATE, "--via", "api"), EACH),
    (("samples", "update", ID, "--by", "id", "--private-identifier", "X", "--yes"), ONE),
    (("samples", "update", PRIVATE, "--public-identifier", "X", "--yes"), ONE),
    (("samples", "update", PUBLIC, "--sequencing-date", "none", "--dry-run"), ONE),
    (("samples", "update", "--json-data", '{"samples": [{"id": 7, "private": true}]}'), ONE),
    (("samples", "delete", ID, PRIVATE, PUBLIC, "--yes"), ONE),
    (("samples", "update-public-ids", "--group-id", "1", "-f", "MAPPING", "--yes"), EACH),
    (("samples", "validate-ids", PRIVATE), NONE),
    (("samples", "download", PRIVATE), NONE),
    (("samples", "submission-template", PRIVATE, "--repository", "GISAID"), NONE),
    (("usher", "get-link", PRIVATE), NONE),
    (("phylo-runs", "create", PRIVATE, "--name", "N", "--tree-type", "overview", "--yes"), NONE),
)


@pytest.fixture
def never_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust a list for as long as the test takes."""
    monkeypatch.setattr("aspencli.samples.edit.trusted_for", lambda _seconds: math.inf)


def _lists(server: Naughty) -> Counter[str]:
    """Return how often each list of samples was requested."""
    return Counter(
        seen.target
        for seen in server.seen
        if seen.method == "GET" and seen.target.endswith("/samples/")
    )


@pytest.mark.usefixtures("never_old")
@pytest.mark.parametrize(
    ("command", "reads"), READS, ids=[" ".join(command)[:50] for command, _ in READS]
)
def test_command_requests_lists_once_or_not_at_all(
    api_lab: ApiLab, serving: Serving, tmp_path: Path, command: tuple[str, ...], reads: str
) -> None:
    relay = serving(route=Relay(api_lab.service.url, "", ()))
    mapping = write_mapping(tmp_path / "ids.csv", {PRIVATE: "NEW/7"})
    words = [str(mapping) if word == "MAPPING" else word for word in command]
    if "--json-data" in words:
        words.append("--yes")
    ended = api_lab(*words, "-o", "json", env={"ASPEN_API": relay.url, "ASPEN_VIA": "api"})
    assert ended.code == 0, ended.err
    pathogens = api_lab.service("GET", "/v2/pathogens/", "member").json()["pathogens"]
    slugs = {NONE: [], ONE: ["SC2"], EACH: [each["slug"] for each in pathogens]}[reads]
    assert _lists(relay) == {f"/v2/orgs/1/pathogens/{slug}/samples/": 1 for slug in slugs}


@pytest.mark.parametrize(("waited", "reads"), [(59, 1), (61, 2)])
def test_slow_list_is_read_again_only_after_longer_wait(
    api_lab: ApiLab, serving: Serving, monkeypatch: pytest.MonkeyPatch, waited: int, reads: int
) -> None:
    from aspencli.cli.context import AppContext

    pass_on, clock, asked = Relay(api_lab.service.url, "", ()), [0.0], AppContext.authorize

    def slow(seen: Seen) -> Reply:
        clock[0] += 60 * seen.target.endswith("/samples/")
        return pass_on(seen)

    def wait(self: AppContext, *args: Any, **kwargs: Any) -> None:
        clock[0] += waited
        asked(self, *args, **kwargs)

    monkeypatch.setattr("aspencli.samples.edit.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(AppContext, "authorize", wait)
    server = serving(route=slow)
    command = ("samples", "update", ID, "--private-identifier", "X", "--yes")
    ended = api_lab(*command, env={"ASPEN_API": server.url})
    assert ended.code == 0, ended.err
    assert _lists(server) == {SC2: reads}


@pytest.mark.usefixtures("never_old")
def test_undo_of_update_requests_list_once(
    api_lab: ApiLab, serving: Serving, tmp_path: Path
) -> None:
    relay = serving(route=Relay(api_lab.service.url, "", ()))
    env, undo = {"ASPEN_API": relay.url}, str(tmp_path / "undo.csv")
    update = ("samples", "update", ID, "--sequencing-date", "none", "--undo-file", undo, "--yes")
    assert api_lab(*update, env=env).code == 0
    relay.seen.clear()
    ended = api_lab("samples", "undo", undo, "--yes", "--via", "api", env=env)
    assert ended.code == 0, ended.err
    assert _lists(relay) == {SC2: 1}


# A service with a long list


def _service(*lists: Reply) -> Route:
    """Return a service whose list of samples is each of the replies in turn, then the last one."""
    left = list(lists)

    def route(seen: Seen) -> Reply:
        if seen.target.endswith("/samples/"):
            if seen.method == "PUT":
                record = seen.json["samples"][0]
                return reply_json({"samples": [sample(record["id"])]})
            return left.pop(0) if len(left) > 1 else left[0]
        if seen.target == "/v2/pathogens/":
            return reply_json({"pathogens": [sample(1)["pathogen"]]})
        groups = [{"id": 1, "name": "Redwood", "roles": ["member"]}]
        return reply_json({"id": 3, "name": "Somebody", "groups": groups})

    return route


@pytest.fixture
def signed_in(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_AUTH_URL_LOCAL", provider.url)
    monkeypatch.setenv("ASPEN_AUTH_CLIENT_ID_LOCAL", CLIENT_ID)
    monkeypatch.setenv("ASPEN_TOKEN", provider.token("auth0|member"))
    monkeypatch.setenv("ASPEN_VIA", "api")


_MEASURED = """
import pathlib, resource, sys
from aspencli.cli.main import run
code = run(sys.argv[1:])
status = pathlib.Path("/proc/self/status")
if status.exists():  # the other figure is never below that of the process which started this one
    peak = int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
sys.stderr.write(f"\\n{peak}")
sys.exit(code)
"""
MANY, HALF = 300_000, 150_000  # samples


@pytest.mark.parametrize(
    ("command", "samples", "shown"),
    [
        (("samples", "list", "--limit", "100"), MANY, 100),
        (("samples", "list", "--sort", "public_identifier", "--reverse"), HALF, HALF),
        (("samples", "update", "RCPHL-0000777", "--private", "--yes"), MANY, 1),
        (
            ("samples", "update-public-ids", "--group-id", "1", "-f", "MAPPING", "--dry-run"),
            MANY,
            1,
        ),
    ],
    ids=lambda value: " ".join(value[1:4]) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("signed_in")
def test_memory_does_not_grow_with_list(
    serving: Serving, tmp_path: Path, command: tuple[str, ...], samples: int, shown: int
) -> None:
    server = serving(route=_service(stream(lambda: long_list(samples))))
    mapping = write_mapping(tmp_path / "ids.csv", {"RCPHL-0000777": "NEW/777"})
    words = [str(mapping) if word == "MAPPING" else word for word in command]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *words, "-o", "tsv"],
        env={**os.environ, "ASPEN_API": server.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == shown + 1  # with the header
    assert _lists(server) == {SC2: 1}
    assert float(done.stderr.rsplit("\n", 1)[1]) < 120  # MiB; it takes 60 with an empty list


# Incomplete and odd lists

FEW = 1_000
CUT = stream(lambda: iter(list(long_list(FEW))[:5]), ending=b"")
WHOLE = stream(lambda: long_list(FEW))
LIST = ("samples", "list", "-o", "json")
UPDATE = ("samples", "update", "RCPHL-0000007", "--private", "--yes", "-o", "json")
RENAME = ("samples", "update-public-ids", "--group-id", "1", "-f", "MAPPING", "--yes")


Ask = Callable[..., tuple[Ended, Naughty]]


@pytest.fixture
def ask(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    signed_in: None,
) -> Ask:
    """Return a function that runs a command on a service with these lists."""
    monkeypatch.setattr("aspencli.remote.retry._FIRST_PAUSE_S", 0.001)
    mapping = write_mapping(tmp_path / "ids.csv", {"RCPHL-0000777": "NEW/777"})

    def call(command: tuple[str, ...], *lists: Reply) -> tuple[Ended, Naughty]:
        server = serving(route=_service(*lists))
        monkeypatch.setenv("ASPEN_API", server.url)
        capsys.readouterr()
        code = run([str(mapping) if word == "MAPPING" else word for word in command])
        return Ended(code, *capsys.readouterr()), server

    return call


@pytest.mark.parametrize("command", [LIST, UPDATE, RENAME], ids=" ".join)
def test_interrupted_list_is_read_again_from_firstsample(
    ask: Ask, command: tuple[str, ...]
) -> None:
    ended, server = ask(command, CUT, reset, WHOLE)
    assert ended.code == 0, ended.err
    assert _lists(server) == {SC2: 3}
    if command == LIST:
        assert [row["id"] for row in ended.json] == list(range(1, FEW + 1))


PAGE = reply(200, "<html>Sign in</html>", kind="text/html")
INCOMPLETE = (
    (CUT, 5, "closed before the response was complete"),
    (stream(lambda: iter(list(long_list(FEW))[:5])), 5, "not a complete list"),
    (reply(200, '{"samples": 7}', kind="application/json"), 5, "not a complete list"),
    (reply(200, "[]", kind="application/json"), 5, "not a complete list"),
    (
        reply(200, b"\x1f\x8b nonsense", {"Content-Encoding": "gzip"}, kind="application/json"),
        5,
        "could not be decoded",
    ),
    (reset, 5, "connection reset"),
    (PAGE, 5, "expected JSON, got text/html"),
    (reply_json({"error": "Login failure"}, 401), 4, "rejected"),
)


@pytest.mark.parametrize("command", [LIST, UPDATE, RENAME], ids=" ".join)
@pytest.mark.parametrize(("answer", "code", "words"), INCOMPLETE, ids=[w for *_, w in INCOMPLETE])
def test_nothing_is_shown_or_written_without_complete_list(
    ask: Ask,
    command: tuple[str, ...],
    answer: Reply,
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_FIRST_PAUSE_S", "_LONGEST_PAUSE_S"):  # longer than the patience: one try only
        monkeypatch.setattr(f"aspencli.remote.retry.{name}", 10_000)
    ended, server = ask(command, answer)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert {seen.method for seen in server.seen} == {"GET"}


def test_list_is_read_compressed_and_with_any_text(
    ask: Ask,
) -> None:
    odd = ["\u00e9\U0001f9ec", '"\\/\n\t', "\u2028\u00a0", "e\u0301", "\ufeff", "\x7f", ""]
    samples = [{**sample(n), "private_identifier": text} for n, text in enumerate(odd, 1)]
    text = json.dumps({"samples": samples, "more": [1.5e300, None]})
    data = gzip.compress(text.encode())
    ended, _ = ask(LIST, reply(200, data, {"Content-Encoding": "gzip"}, kind="application/json"))
    assert ended.code == 0, ended.err
    assert [row["private_identifier"] for row in ended.json] == odd


@pytest.mark.parametrize("reverse", [(), ("--reverse",)])
@pytest.mark.parametrize("field", ["id", "private_identifier", "public_identifier"])
def test_list_is_sorted_by_code_point_and_paged(
    ask: Ask, field: str, reverse: tuple[str, ...]
) -> None:
    names = ["b", "B", "\uffff", "\U00010000", "a", "", None, "\u00e9", "ab", "a "]
    samples = [
        {**sample(n), "private_identifier": name, "public_identifier": name}
        for n, name in enumerate(names, 1)
    ]
    answer = reply_json({"samples": samples})
    places = sorted(
        ((number if field == "id" else name or "", number) for number, name in enumerate(names, 1)),
        key=lambda place: place,
        reverse=bool(reverse),
    )
    expected = [number for _, number in places]
    command = (*LIST, "--sort", field, *reverse)
    assert [row["id"] for row in ask(command, answer)[0].json] == expected
    for place, number in enumerate(expected):
        ended, _ = ask((*command, "--limit", "3", "--after", str(number)), answer)
        assert [row["id"] for row in ended.json] == expected[place + 1 : place + 4]
        left = len(expected) - place - 1
        assert (f"3 of {left} samples shown" in ended.err) == (left > 3)


def test_full_disk_is_explained(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def almost_full(path: str) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 10")
        return connection

    monkeypatch.setattr(sqlite3, "connect", almost_full)
    ended, _ = ask(LIST, WHOLE)
    assert (ended.code, ended.out) == (1, "")
    assert "in a temporary file: database or disk is full" in ended.err
    assert "Free disk space" in ended.err
