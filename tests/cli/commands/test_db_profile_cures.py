"""A deliberate N+1: reported with its line and its fix, and gone after the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aspen.database.engine import Database
from tests.cli.commands.profile_lab import (
    CURE,
    ENDPOINT,
    SCRIPT,
    Profiling,
    add_two_hundred,
    line_of,
    plug_in,
)

REQUEST = ("--request", "GET /v2/slow", "--as", "1")


@pytest.fixture(autouse=True)
def _samples(seeded: Database) -> None:
    add_two_hundred(seeded)


def repeated(document: Any) -> list[tuple[Any, ...]]:
    return [
        (one["calls"], one["lazily_loaded"], one["file"], one["line"], flag["cure"])
        for one in document["statements"]
        for flag in one["flags"]
        if flag["name"] == "n+1"
    ]


def cured(changes: Any) -> list[tuple[int, int]]:
    return [
        (one["calls_before"], one["calls_after"])
        for one in changes
        if one["verdict"] == "gone, n+1 fixed"
    ]


def test_n_plus_1_in_script_is_reported_and_gone_after_fix(
    profile: Profiling, tmp_path: Path
) -> None:
    script, before = tmp_path / "slow.py", tmp_path / "before.json"
    slow = SCRIPT.format(cure="")
    script.write_text(slow)
    done = profile(str(script))
    assert done.code == 0, done.err
    line = line_of(slow, "list(")
    assert repeated(done.json) == [(200, "Sample.lineages", str(script), line, CURE)]
    before.write_text(done.out)

    script.write_text(SCRIPT.format(cure=CURE))
    assert repeated(profile(str(script)).json) == []
    done = profile("--compare", str(before), "--budget", "queries<=2,n+1=0", str(script))
    assert done.code == 0, done.err
    assert cured(done.json) == [(200, 0)]


def test_n_plus_1_in_request_is_reported_and_gone_after_fix(
    profile: Profiling, tmp_path: Path
) -> None:
    slow, before = ENDPOINT.format(cure=""), tmp_path / "before.json"
    done = profile(*REQUEST, env=plug_in(tmp_path, slow))
    assert done.code == 0, done.err
    assert "GET /v2/slow: 200" in done.err
    place = str(tmp_path / "slow_endpoint.py"), line_of(slow, "one.lineages")
    assert repeated(done.json) == [(200, "Sample.lineages", *place, CURE)]
    before.write_text(done.out)

    better = plug_in(tmp_path, ENDPOINT.format(cure=CURE))
    assert repeated(profile(*REQUEST, env=better).json) == []
    done = profile("--compare", str(before), "--budget", "n+1=0", *REQUEST, env=better)
    assert done.code == 0, done.err
    assert cured(done.json) == [(200, 0)]


@pytest.mark.parametrize("asked", ["script", "request"])
def test_n_plus_1_report_names_line_and_fix(profile: Profiling, tmp_path: Path, asked: str) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SCRIPT.format(cure=""))
    slow = ENDPOINT.format(cure="")
    words = (str(script),) if asked == "script" else REQUEST
    where = script if asked == "script" else tmp_path / "slow_endpoint.py"
    line = line_of(SCRIPT, "list(") if asked == "script" else line_of(slow, "one.lineages")
    budget = ("--budget", "queries<=12,n+1=0")
    done = profile(*budget, *words, form="table", env=plug_in(tmp_path, slow))
    assert done.code == 1
    assert f"n+1: Sample.lineages loaded one by one, 200 times ({where}:{line})" in done.err
    assert f"→ {CURE}" in done.err
    assert "n+1: 1 (limit = 0)" in done.err
