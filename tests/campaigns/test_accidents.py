"""A quick sample of the failures; ``make accidents`` runs them by the hundred."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.accidents.campaign import meet
from benchmarks.accidents.kinds import KINDS, UnavailableError
from benchmarks.accidents.site import Site

_TIMES = {"kill -9 of the client": 8, "kill -9 of an import": 2, "connection lost at COMMIT": 2}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="aspen-accidents-") as folder:
        site = Site(Path(folder))
        yield site
        site.close()


@pytest.mark.parametrize("kind", KINDS)
def test_accident_leaves_all_or_nothing_and_rerun_completes(kind: str, site: Site) -> None:
    times = _TIMES.get(kind, 1)
    try:
        tally = meet(site, kind, times, seed=7)
    except UnavailableError as error:
        pytest.skip(str(error))
    assert tally.faults == []
    assert (tally.before + tally.after, tally.between) == (times, 0)
    assert (tally.right, tally.completed) == (times, times)
