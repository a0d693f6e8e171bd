"""The order of renames through the API, and the number of them in one request.

No name is requested while another sample still holds it: a row that takes another sample's name has
to wait for it, so that rows form chains and cycles. The live service writes the rows of one request
in ascending ID and checks each at once, so a row may share a request with the one it waits for only
if its ID is higher. A cycle is broken by giving one of its samples a temporary name, and so is a
chain that would take too many requests.

The cost of a request has a fixed part, a part per row, and, at the live service, a part that grows
with the square of the rows. None of these is known in advance, and they vary from day to day. So
the size is doubled as long as that pays off, and then stays near the best one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

DEEPEST = 8  # how often a chain may wait for another request before it is broken
_WAVE = 1_000  # rows that use temporary names before the next such wave begins
# The kinds of waves, in order; there may be many of the last kind.
_BEGUN, _ALONE, _CHAINED, _BROKEN = range(4)

FIRST, SMALLEST, LARGEST = 100, 10, 5_000  # rows
_PAYS = 0.93  # A step pays off if a row costs at most this fraction of what it cost before.
_LONGEST_S = 20.0  # maximum expected time of a request
_STEP, _SIDESTEP = 2.0, 1.4
_REST = 6  # requests between two tries of a size near the best one
_CHANGED = 2.5  # times the known cost; above that, the server's performance has changed
_MOST_FALLS = 4  # failures at the wanted size, with no success in between
_MOST_DELAYS = 2  # the same for slow responses; a single one may be chance
_FORGETS = 1.01  # factor by which the maximum size after failures grows, with each sidestep
_WEIGHT = 0.5  # weight of a new measurement against the known cost of its size


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


class Steering:
    """A controller for the size of the next request, steered by the response times so far.

    Args:
        first: The initial size.
    """

    def __init__(self, first: int = FIRST):
        self._best = first
        self._costs: dict[int, float] = {}  # seconds per row, by size
        self._trying: int | None = None
        self._cap = LARGEST
        self._falls = self._delays = 0
        self._ceiling: float = LARGEST
        self._climbing = True
        self._rested = 0
        self._up = False

    @property
    def size(self) -> int:
        """Return the number of rows for the next request."""
        return min(self._wanted, self._cap)

    @property
    def _wanted(self) -> int:
        return self._trying or self._best

    def took(self, size: int, seconds: float) -> None:
        """Learn from a successful request.

        Args:
            size: Its number of rows; ignored unless it is the current size.
            seconds: Its response time.
        """
        if size != self.size:
            return
        if size < self._wanted:  # still recovering from a failure
            self._cap = size * 2
            return
        self._cap, self._falls = LARGEST, 0
        known = self._costs.get(size)
        cost = seconds / size
        if seconds > _LONGEST_S or (known is not None and cost > _CHANGED * known):
            self._delays += 1
            if self._delays >= _MOST_DELAYS:
                self._begin_again(size)
                self._delays = _MOST_DELAYS - 1  # until one is fast again
            return
        self._delays = 0
        self._costs[size] = cost if known is None else known + _WEIGHT * (cost - known)
        if self._trying is not None:
            self._judge()
        else:
            self._rested += 1
        self._choose(seconds)

    def stumbled(self) -> None:
        """Learn that a request failed or its response was lost; smaller ones lose less."""
        if self.size == self._wanted:  # If smaller requests fail too, the size is not the cause.
            self._falls += 1
        self._cap = max(SMALLEST, self.size // 2)
        if self._falls >= _MOST_FALLS:  # The size is the cause.
            self._ceiling = max(SMALLEST, 0.9 * self._wanted)
            self._begin_again(self._wanted)
            self._falls = 0

    def _begin_again(self, size: int) -> None:
        """Forget the known costs, because the server's performance has changed."""
        self._costs.clear()
        self._best = max(SMALLEST, size // 2)
        self._trying, self._climbing, self._rested = None, True, 0

    def _judge(self) -> None:
        """Decide if the size just tried becomes the best one."""
        tried, self._trying = self._trying or self._best, None
        if self._costs[tried] <= self._costs.get(self._best, math.inf) * _PAYS:
            self._best = tried
        elif self._climbing:
            self._climbing = False
            if self._costs[tried] < self._costs.get(self._best, math.inf):
                self._best = tried
        self._rested = 0

    def _choose(self, seconds: float) -> None:
        """Decide if another size is tried next, and which one."""
        if self._climbing:
            factor = _STEP
        elif self._rested >= _REST:
            self._up = not self._up
            self._ceiling = min(self._ceiling * _FORGETS, LARGEST)
            factor = _SIDESTEP if self._up else 1 / _SIDESTEP
        else:
            return
        wanted = min(max(round(self._best * factor), SMALLEST), int(self._ceiling))
        # Assume the worst case, that the time grows with the square of the rows.
        expected = seconds * max(1.0, wanted / self._best) ** 2
        if wanted == self._best or expected > _LONGEST_S:
            self._climbing, self._rested = False, 0
            return
        self._trying = wanted
