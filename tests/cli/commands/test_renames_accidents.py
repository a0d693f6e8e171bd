"""Renaming through an API that fails, dies, or is interrupted: it only costs time."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from benchmarks.accidents_api.crasher import Crash, Crasher
from benchmarks.accidents_api.gate import Mishap
from benchmarks.accidents_api.kills import Killing
from benchmarks.accidents_api.site import Site, ended, site_on
from benchmarks.accidents_api.trying import RENAME, Try
from tests.api.conftest import Provider
from tests.cli.commands.renames_lab import write_mapping
from tests.conftest import Server

_ALL: tuple[Mishap, ...] = (
    *("503 before", "504 after", "reset before"),
    *("reset after", "cut answer", "429", "stall"),
)


@pytest.fixture(scope="module")
def shared_site(
    postgres: Server,
    _roles_template: str,
    provider: Provider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with (
        postgres.cloned(_roles_template, writable=True) as database,
        site_on(database, provider, folder) as site,
    ):
        site.renames.give_sequencing_dates()
        yield site


def _at(moment: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Return a function that acts before one change, counted from 0."""
    changes = itertools.count()
    return lambda _number: act() if next(changes) == moment else None


def _kill_last(running: list[subprocess.Popen[str]]) -> None:
    running[-1].kill()


@pytest.fixture
def renaming(shared_site: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Try:
    return Try(shared_site, tmp_path, len(request.node.name))


def test_rename_follows_rules_of_live_service_in_few_requests(renaming: Try) -> None:
    with renaming.gate() as gate:
        done = renaming.site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    renaming.is_done()
    assert len(gate.sizes) < 20


@pytest.mark.parametrize("seed", [1, 2])
def test_rename_completes_despite_random_failures(renaming: Try, tmp_path: Path, seed: int) -> None:
    chances = dict.fromkeys(_ALL, 0.07)
    reading: dict[Mishap, float] = {"503 before": 0.2, "reset after": 0.1, "cut answer": 0.1}
    dice = random.Random(seed)
    with renaming.gate(chances=chances, reading=reading, stall_s=0.2, dice=dice) as gate:
        done = renaming.site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    assert gate.happened
    renaming.is_done()


def test_rename_completes_after_service_is_killed_and_restarted(renaming: Try) -> None:
    site, killed = renaming.site, []

    def kill(number: int) -> None:
        if number in (1, 3) and number not in killed:
            killed.append(number)
            site.api.kill()
            site.api.start()

    with renaming.gate() as gate:
        gate.on_change = kill
        done = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    assert killed == [1, 3]
    renaming.is_done()


def test_killed_rename_can_be_resumed_and_undone(renaming: Try) -> None:
    site, running = renaming.site, list[subprocess.Popen[str]]()
    with renaming.gate() as gate:  # one for all: another address is another group
        for moment in (0, 2, 1):
            gate.on_change = _at(moment, partial(_kill_last, running))
            running.append(site.start(gate.url, renaming.home, *RENAME, renaming.mapping))
            assert ended(running[-1]).code == -signal.SIGKILL
        (run,) = site.run(gate.url, renaming.home, "history", "list", "-o", "json").json
        assert run["outcome"] == "unfinished"
        other = write_mapping(renaming.home / "other.csv", {"a": "b"})
        refused = site.run(gate.url, renaming.home, *RENAME, str(other))
        assert refused.code in (2, 7)
        changes: list[int] = []
        gate.on_change = changes.append
        resume = ("samples", "resume", run["run"])
        rest = site.run(gate.url, renaming.home, *resume, "--dry-run", "-o", "json")
        assert (rest.code, {row["outcome"] for row in rest.json} - {"unchanged"}) == (0, {"update"})
        assert rest.err.splitlines()[-1].strip() == "Dry run: nothing was written."
        assert changes == []
        done = site.run(gate.url, renaming.home, *resume, "--yes")
        assert done.code == 0, done.err
        renaming.is_done()
        again = site.run(gate.url, renaming.home, "samples", "resume", run["run"], "--yes")
        assert (again.code, "has ended" in again.err) == (0, True)
        undone = site.run(gate.url, renaming.home, "samples", "undo", run["run"], "--yes")
        assert undone.code == 0, undone.err
    assert renaming.site.renames.names() == renaming.names


def test_interrupted_rename_leaves_no_temporary_identifier(renaming: Try) -> None:
    site, running = renaming.site, list[subprocess.Popen[str]]()
    with renaming.gate() as gate:
        gate.on_change = _at(1, lambda: running[0].send_signal(signal.SIGINT))
        running.append(site.start(gate.url, renaming.home, *RENAME, renaming.mapping))
        stopped = ended(running[0])
        assert stopped.code == 130, stopped.err
        assert "none has a temporary identifier" in stopped.err
        assert renaming.temporary() == 0
        done = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    renaming.is_done()


def test_unfinished_rename_can_be_undone(renaming: Try) -> None:
    site, running = renaming.site, list[subprocess.Popen[str]]()
    with renaming.gate() as gate:
        gate.on_change = _at(3, partial(_kill_last, running))
        running.append(site.start(gate.url, renaming.home, *RENAME, renaming.mapping))
        assert ended(running[0]).code == -signal.SIGKILL
        assert site.renames.names() != renaming.names
        run = site.run(gate.url, renaming.home, "history", "list", "-o", "json").json[0]["run"]
        back = site.run(gate.url, renaming.home, "samples", "undo", run, "--yes")
        assert back.code == 0, back.err
        assert site.renames.names() == renaming.names
        shown = site.run(gate.url, renaming.home, "history", "show", run, "-o", "json").json[0]
        assert shown["outcome"] == "rolled back"
        done = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    renaming.is_done()


def test_rename_does_not_overwrite_concurrent_change(renaming: Try) -> None:
    site = renaming.site
    fresh = [key for key, name in renaming.wanted.items() if name.startswith("new-0")]
    moved, taker = max(fresh), min(fresh)
    theirs = {moved: "theirs", taker: renaming.wanted[fresh[5]]}

    def meddle(number: int) -> None:
        if number == 1:
            site.renames.set_names(theirs)

    with renaming.gate() as gate:
        gate.on_change = meddle
        stopped = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
        names = site.renames.names()
        assert renaming.temporary() == 0
        if stopped.code == 7:
            resumed = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
            assert resumed.code in (0, 7), resumed.err
        names = site.renames.names()
    left_alone = {key for key in renaming.wanted if names[key] != renaming.wanted[key]}
    assert left_alone <= {moved, taker, fresh[5]}
    assert renaming.temporary() == 0


def test_expired_sign_in_stops_rename_and_suggests_resume(renaming: Try) -> None:
    site = renaming.site
    with renaming.gate() as gate:
        gate.on_change = _at(1, lambda: setattr(gate.rules, "chances", {"401": 1.0}))
        stopped = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
        assert stopped.code == 4, stopped.err
        assert "the run can be resumed" in stopped.err
        assert "samples resume" in stopped.err
        gate.rules.chances = {}
        run = site.run(gate.url, renaming.home, "history", "list", "-o", "json").json[0]
        assert run["outcome"] == "unfinished"
        done = site.run(gate.url, renaming.home, "samples", "resume", run["run"], "--yes")
    assert done.code == 0, done.err
    renaming.is_done()


def test_second_interrupt_stops_rename_and_suggests_resume(renaming: Try) -> None:
    site, running = renaming.site, list[subprocess.Popen[str]]()

    def interrupt_twice() -> None:
        for _ in range(2):
            running[0].send_signal(signal.SIGINT)
            time.sleep(0.3)

    with renaming.gate(cost_s=lambda _rows: 3.0) as gate:
        gate.on_change = _at(1, interrupt_twice)
        running.append(site.start(gate.url, renaming.home, *RENAME, renaming.mapping))
        stopped = ended(running[0])
        assert (stopped.code, "samples resume" in stopped.err) == (130, True), stopped.err
        gate.rules.cost_s = lambda _rows: 0.0
        done = site.run(gate.url, renaming.home, *RENAME, renaming.mapping)
    assert done.code == 0, done.err
    renaming.is_done()


@pytest.fixture(scope="module")
def killing(
    postgres: Server,
    _seeded_template: str,
    provider: Provider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Killing]:
    with postgres.cloned(_seeded_template, writable=True) as database:
        folder = tmp_path_factory.mktemp("killing")
        with site_on(database, provider, folder) as site, Crasher() as crasher:
            yield Killing(site, crasher, folder, random.Random(3), thorough=False)


def test_suggestion_works_after_kill_at_every_durable_step(killing: Killing) -> None:
    """A step is a moment when something is safe on disk: the journals or the undo file."""
    step = 4  # before that, there is only a line in the history
    while killing.kill(Crash(signal.SIGKILL, step)):
        step += 1
    assert step > 10
    assert killing.met["suggested: resume"] > 2
    assert killing.met["ended: written"] > 2


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 6), (signal.SIGTERM, 7), (signal.SIGINT, 12)]
)
def test_suggestion_works_after_interrupt_at_durable_step(
    killing: Killing, number: int, step: int
) -> None:
    killing.kill(Crash(number, step, "after"))
