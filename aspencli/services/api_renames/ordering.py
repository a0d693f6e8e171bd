"""In which order samples are renamed, so that no name is asked for while another still holds it.

A row that takes another's name has to wait for it: rows form chains, and cycles. The live service
writes the rows of one request in ascending id and checks each at once, so a row may stand in the
same request as the one it waits for only where its id is the higher one. A cycle is opened by
giving one of its samples a temporary name; so is a chain that would take too many requests.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

DEEPEST = 8  # how often a chain may have to wait for another request, before it is broken
_WAVE = 1_000  # rows; how many may at most be begun with temporary names before these are ended
# The kinds of waves, in their order; of the last kind there may be many.
_BEGUN, _ALONE, _CHAINED, _BROKEN = range(4)


class Rename(NamedTuple):
    """What a sample is named now, and what it is to be named."""

    id: int
    before: str
    after: str


class Move(NamedTuple):
    """One step of a sample; those with a temporary name have two.

    Attributes:
        id: The sample.
        before: What it is named when its turn comes.
        after: What it is to be named then.
        parks: Whether that is its temporary name.
        wave: Which moves belong together: a wave that was begun should be ended.
    """

    id: int
    before: str
    after: str
    parks: bool = False
    wave: int = _ALONE


class Schedule:
    """The moves that are left, handed out request by request.

    Samples that have their temporary name already come first, with all that they wait for.

    Args:
        renames: The samples; no sample twice, no name twice, and what one takes is free or held by
            another of them.
        temporary: The temporary name of a sample, which nothing else is named.
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
        """How many temporary names are still to be given."""
        return sum(move.parks for move in self._left)

    def take(self, size: int) -> list[Move]:
        """The moves of the next request, in ascending id: at most so many, and at least one.

        It ends early before a move that has to wait for one of its own.
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
        """Take moves back that were not made, to hand them out again first."""
        self._left.extendleft(reversed(list(moves)))

    def only_begun(self) -> None:
        """Forget all moves but those without which a sample would keep a temporary name."""
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
    """The chains, each from the row on whose name is free, and the cycles.

    A cycle comes so that its last row has its highest id: once that one is parked, it may follow
    the one it waits for in the same request.
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
    """On which level each row of a chain comes, and which rows are parked before the first one."""
    parked = {chain[-1].id} if is_cycle else set()
    levels, level = [0], 0
    for before, row in pairwise(chain):
        level += row.id < before.id
        if level > DEEPEST:
            parked.add(before.id)  # so the row need not wait for it
            level = 0
        levels.append(level)
    return levels, parked
