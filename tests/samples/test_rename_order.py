"""The order of renames, checked against the live service's rules within and between requests."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspencli.samples.rename_run import DEEPEST, Move, Rename, Schedule


def temporary(number: int) -> str:
    return f"temporary-{number}"


class LiveService:
    """A service that checks and writes a request's rows in ascending ID order, all or none."""

    def __init__(self, names: dict[int, str]):
        self.names = dict(names)
        self.requests = 0

    def put(self, moves: list[Move]) -> None:
        self.requests += 1
        assert len({move.id for move in moves}) == len(moves)
        for move in sorted(moves):
            assert self.names[move.id] == move.before
            assert move.after not in self.names.values(), "a name that another still holds"
            self.names[move.id] = move.after


@st.composite
def renamings(draw: st.DrawFn) -> list[Rename]:
    """Draw samples that pass names on in any way: chains, cycles, and new names."""
    count = draw(st.integers(1, 40))
    ids = draw(st.permutations(range(1, count + 1)))
    wanted = draw(
        st.permutations([f"n{n}" for n in range(count)] + [f"f{n}" for n in range(count)])
    )
    rows = [Rename(i, f"n{n}", new) for n, (i, new) in enumerate(zip(ids, wanted, strict=False))]
    kept = {row.before for row in rows if row.before == row.after}
    while True:  # a name is free only if its holder gives it up
        stays = {row.before for row in rows if row.before == row.after or row.after in kept}
        if stays <= kept:
            return [row for row in rows if row.before not in kept]
        kept |= stays


@given(renames=renamings(), size=st.integers(1, 50))
@settings(max_examples=400)
def test_rename_never_requests_identifier_still_in_use(renames: list[Rename], size: int) -> None:
    service = LiveService({row.id: row.before for row in renames})
    schedule = Schedule(renames, temporary)
    while schedule:
        service.put(schedule.take(size))
    assert service.names == {row.id: row.after for row in renames}


@given(renames=renamings(), size=st.integers(1, 50), stop=st.integers(0, 60))
@settings(max_examples=400)
def test_rename_ended_early_leaves_no_temporary_identifier(
    renames: list[Rename], size: int, stop: int
) -> None:
    service = LiveService({row.id: row.before for row in renames})
    schedule = Schedule(renames, temporary)
    while schedule:
        if service.requests == stop:
            schedule.only_begun()
            if not schedule:
                break
        service.put(schedule.take(size))
    ends = {row.id: {row.before, row.after} for row in renames}
    assert all(name in ends[number] for number, name in service.names.items())


@given(renames=renamings(), size=st.integers(1, 50), data=st.data())
@settings(max_examples=200)
def test_remaining_renames_can_be_rescheduled_at_any_point(
    renames: list[Rename], size: int, data: st.DataObject
) -> None:
    service = LiveService({row.id: row.before for row in renames})
    schedule = Schedule(renames, temporary)
    for _ in range(data.draw(st.integers(0, len(schedule)))):
        if schedule:
            service.put(schedule.take(size))
    left = [Rename(row.id, service.names[row.id], row.after) for row in renames]
    schedule = Schedule([row for row in left if row.before != row.after], temporary)
    while schedule:
        service.put(schedule.take(size))
    assert service.names == {row.id: row.after for row in renames}


def _shifted(count: int, step: int) -> list[Rename]:
    """Return renames to the neighbor's name; the last sample gets a new name."""
    numbers = range(1, count + 1)
    return [Rename(n, f"n{n}", f"n{n + step}" if n + step in numbers else "new") for n in numbers]


@pytest.mark.parametrize("step", [1, -1])
def test_long_rename_chain_takes_few_requests(step: int) -> None:
    renames = _shifted(10_000, step)
    service = LiveService({})
    service.names = {row.id: row.before for row in renames}
    schedule = Schedule(renames, temporary)
    parks, requests = schedule.parks, 0
    while schedule:
        schedule.take(500)
        requests += 1
    assert parks <= 10_000 / DEEPEST
    assert requests <= 40


def test_swap_takes_one_temporary_identifier_and_few_more_requests() -> None:
    renames = [
        row
        for n in range(0, 1_000, 2)
        for row in (Rename(n, f"n{n}", f"n{n + 1}"), Rename(n + 1, f"n{n + 1}", f"n{n}"))
    ]
    random.Random(7).shuffle(renames)
    schedule = Schedule(renames, temporary)
    assert schedule.parks == 500
    assert len(schedule) == 1_500
    requests = 0
    while schedule:
        schedule.take(500)
        requests += 1
    assert requests <= 4


def test_moves_that_were_put_back_come_first() -> None:
    schedule = Schedule(_shifted(5, 7), temporary)
    first = schedule.take(3)
    schedule.put_back(first)
    assert schedule.take(5)[:3] == first
