"""Dumps, restores, and copies that are killed at any point, and the run after that."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests import zygote
from tests.copies.lab import Lab, built, content

pytestmark = pytest.mark.unpooled("restores need a direct connection")
SEEDS = range(2)  # make accidents-copies does it 100 times


def words_of(lab: Lab, kind: str, dump: Path) -> tuple[str, ...]:
    confirmed = ("--confirm", "staging", "--no-input")
    if kind == "dump":
        return "--env", "source", "db", "dump", str(lab.folder / "killed"), "--no-scrub"
    if kind == "restore":
        return "--env", "staging", "db", "restore", str(dump), *confirmed
    return "db", "copy", "--from", "source", "--to", "staging", "--no-scrub", *confirmed


def kill(lab: Lab, words: tuple[str, ...], after: float, number: int) -> int:
    """Start a command, kill it after some seconds, and return its exit code."""
    silent: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with zygote.start(words, env=lab.environment(), **silent) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, number)
        return process.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["dump", "restore", "copy"])
def test_killed_run_changes_nothing_or_everything_and_the_next_completes(
    kind: str, number: int, lab: Lab
) -> None:
    dump = lab.dump("dump", "--no-scrub")
    before, after = content(lab.target), content(lab.source)
    lab.storage.put("other.json", b"mine")
    words = words_of(lab, kind, dump)
    began = time.monotonic()
    chance = random.Random(f"{kind} {number}")
    longest = 2.5
    for _ in SEEDS:
        killed = lab.folder / "killed"
        code = kill(lab, words, chance.uniform(0.2, longest), number)
        found = content(lab.target)
        assert found in (before, after) if kind != "dump" else found == before
        if code == 0:
            assert found == after or kind == "dump"
        files = set(lab.storage.objects())
        assert lab.referenced() <= files, "a tree of the destination has no file"
        if number != signal.SIGKILL and kind != "dump":
            assert built(lab.target) == [], "an interrupt cleans up"
            assert files == {"other.json", *lab.referenced()}
        if killed.exists():
            assert lab("db", "dumps", "verify", str(killed)).code == 0
            for file in killed.iterdir():
                file.unlink()
            killed.rmdir()
    assert time.monotonic() - began < 120
    done = lab(*words)
    assert done.code == 0, done.err
    assert built(lab.target) == []
    assert not list(lab.folder.glob(".killed.*"))
    assert content(lab.target) == (before if kind == "dump" else after)
    assert set(lab.storage.objects()) == {"other.json", *lab.referenced()}
    assert lab.storage.read("other.json") == b"mine"
