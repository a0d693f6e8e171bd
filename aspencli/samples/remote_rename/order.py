"""The order of renames, so that no name is requested while another sample still holds it.

A row that takes another sample's name has to wait for it: rows form chains and cycles. The live
service writes the rows of one request in ascending ID and checks each at once, so a row may share a
request with the one it waits for only if its ID is higher. A cycle is broken by giving one of its
samples a temporary name, and so is a chain that would take too many requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

DEEPEST = 8  # how often a chain may wait for another request before it is broken
_WAVE = 1_000  # rows that use temporary names before the next such wave begins
# The kinds of waves, in order; there may be many of the last kind.
_BEGUN, _ALONE, _CHAINED, _BROKEN = range(4)


class Rename(NamedTuple):
    """A sample's current name and its new one."""

    id: int
    before: str
    after: str


class Move(NamedTuple):
    """One step of a sample's rename; a rename through a temporary name takes two.

    Attributes:
        id: The sample.
        before: Its name before the step.
        after: Its name after the step.
        parks: True if that is its temporary name.
        wave: The number of a set of moves that should be completed once begun.
    """

    id: int
    before: str
    after: str
    parks: bool = False
    wave: int = _ALONE


class Schedule:
    """The remaining moves, handed out request by request.

    Samples that already have their temporary name come first, with everything they wait for.

    Args:
        renames: The renames, each with a unique sample and unique names; each new name is free or
            held by another of these samples.
        temporary: Returns the temporary name of a sample, which nothing else is named.
    """

    def __init__(self, renames: Iterable[Rename], temporary: Callable[[int], str]):
        self._left = deque(_moves(list(renames), temporary))
        self._open = {_BEGUN}

    def __len__(self) -> int:
        return len(self._left)

    def __iter__(self) -> Iterator[Move]:
        return iter(self._left)

    @property
    def parks(self) -> int:
        """Return the number of temporary names still to be given."""
        return sum(move.parks for move in self._left)

    def take(self, size: int) -> list[Move]:
        """Return the moves of the next request in ascending ID: at most ``size``, and at least one.

        The batch ends early before a move that has to wait for one in the same batch.
        """
        taken: dict[int, Move] = {}
        released: dict[str, int] = {}
        while self._left and len(taken) < max(size, 1):
            move = self._left[0]
            if move.id in taken or released.get(move.after, move.id) > move.id:
                break
            self._left.popleft()
            taken[move.id] = move
            released[move.before] = move.id
        self._open |= {move.wave for move in taken.values() if move.parks}
        return [taken[number] for number in sorted(taken)]

    def put_back(self, moves: Iterable[Move]) -> None:
        """Put moves that were not made back at the front of the queue."""
        self._left.extendleft(reversed(list(moves)))

    def only_begun(self) -> None:
        """Drop all moves except those needed to leave no sample with a temporary name."""
        self._left = deque(move for move in self._left if move.wave in self._open)


def _moves(renames: list[Rename], temporary: Callable[[int], str]) -> list[Move]:
    placed: list[tuple[int, int, Move]] = []  # wave, level within it, move
    wave, rows = _BROKEN, 0
    for chain, is_cycle in _components(renames):
        levels, parked = _levels(chain, is_cycle=is_cycle)
        if any(row.before == temporary(row.id) for row in chain):
            kind = _BEGUN
        elif not parked:
            kind = _ALONE if len(chain) == 1 else _CHAINED
        else:
            if rows >= _WAVE:
                wave, rows = wave + 1, 0
            rows += len(chain)
            kind = wave
        for row, level in zip(chain, levels, strict=True):
            now = row.before
            if row.id in parked:
                now = temporary(row.id)
                placed.append((kind, -1, Move(row.id, row.before, now, parks=True, wave=kind)))
            placed.append((kind, level, Move(row.id, now, row.after, wave=kind)))
    placed.sort(key=lambda place: (place[0], place[1], place[2].id))
    return [move for _wave, _level, move in placed]


def _components(renames: list[Rename]) -> Iterator[tuple[list[Rename], bool]]:
    """Yield the chains, each starting with the row whose new name is free, and the cycles.

    A cycle ends with its highest ID: once that sample has its temporary name, its row may follow
    the row it waits for in the same request.
    """
    holders = {row.before: row for row in renames}
    takers = {row.after: row for row in renames}
    seen: set[int] = set()
    for row in renames:
        if row.after not in holders:
            chain = list(_follow(row, takers))
            seen.update(each.id for each in chain)
            yield chain, False
    for row in renames:
        if row.id not in seen:
            cycle = list(_follow(row, takers))
            seen.update(each.id for each in cycle)
            last = max(range(len(cycle)), key=lambda place: cycle[place].id)
            yield cycle[last + 1 :] + cycle[: last + 1], True


def _follow(first: Rename, takers: dict[str, Rename]) -> Iterator[Rename]:
    row: Rename | None = first
    while row is not None:
        yield row
        row = takers.get(row.before)
        if row is first:
            return


def _levels(chain: list[Rename], *, is_cycle: bool) -> tuple[list[int], set[int]]:
    """Return the level of each row in a chain, and the samples to give temporary names first."""
    parked = {chain[-1].id} if is_cycle else set()
    levels, level = [0], 0
    for before, row in pairwise(chain):
        level += row.id < before.id
        if level > DEEPEST:
            parked.add(before.id)  # so that the row need not wait for it
            level = 0
        levels.append(level)
    return levels, parked
