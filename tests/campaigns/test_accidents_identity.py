"""A quick sample of what ``make accidents-identity`` does by the hundred."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.accidents_identity import (
    FAILURES,
    Site,
    bulk,
    fail_once,
    kill_once,
    opened,
    pair_once,
)
from tests.conftest import Server

# The others wait for a minute until the command gives up.
_QUICK = [kind for kind in FAILURES if "after" in kind or "with effect" in kind or "409" in kind]
_QUICK += [kind for kind in FAILURES if "429" in kind or "database" in kind or "commit" in kind]


@pytest.fixture(scope="module")
def site(postgres: Server) -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="aspen-accidents-") as folder,
        opened(Path(folder), postgres) as site,
    ):
        yield site


@pytest.mark.parametrize("seed", range(8))
def test_killed_run_is_completed_by_the_same_command(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    while kill_once(site, dice) is None:
        pass


@pytest.mark.parametrize("kind", _QUICK)
def test_failed_step_leaves_nothing_unnamed(site: Site, kind: str) -> None:
    fail_once(site, kind)


def test_second_operator_reports_the_first(site: Site) -> None:
    dice = random.Random(1)
    assert {pair_once(site, dice) for _ in range(3)} <= {
        "found it complete",
        "reported the other one",
    }


def test_file_keeps_to_the_limit(postgres: Server) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="aspen-accidents-") as folder,
        opened(Path(folder), postgres, "--burst", "30", "--rate", "40") as site,
    ):
        timing = bulk(site, 25)
    assert timing.requests >= 100
    assert timing.refused <= 8
