"""How many samples a request should have: found out from the answers, while they come.

What a request costs has a part that every request costs, a part for each row, and, at the live
service, one that grows with the square of the rows. None of it is known beforehand, nor the same
tomorrow. So the size is doubled as long as that pays, and then stays near the best one.
"""

from __future__ import annotations

import math

FIRST, SMALLEST, LARGEST = 100, 10, 5_000  # rows
_PAYS = 0.93  # a step is one where a row costs at most this part of what it cost before
_LONGEST_S = 20.0  # no request should be expected to take longer
_STEP, _SIDESTEP = 2.0, 1.4
_REST = 6  # requests between two looks beside the best size
_CHANGED = 2.5  # times as long as before: the server is not the same any more
_MOST_FALLS = 4  # of requests of the wanted size, with none in between that went well
_MOST_DELAYS = 2  # the same, of those that went well but late; one may be chance
_FORGETS = 1.01  # how much larger a size may be than one that failed, with each look beside
_WEIGHT = 0.5  # of a new measurement against what was known of its size


class Steering:
    """Tells the size of the next request.

    Args:
        first: The size to begin with.
    """

    def __init__(self, first: int = FIRST):
        self._best = first
        self._costs: dict[int, float] = {}  # seconds a row, by size
        self._trying: int | None = None
        self._cap = LARGEST
        self._falls = self._delays = 0
        self._ceiling: float = LARGEST
        self._climbing = True
        self._rested = 0
        self._up = False

    @property
    def size(self) -> int:
        """How many rows the next request should have."""
        return min(self._wanted, self._cap)

    @property
    def _wanted(self) -> int:
        return self._trying or self._best

    def took(self, size: int, seconds: float) -> None:
        """Learn from a request.

        Args:
            size: How many rows it had; only those of the wanted size tell anything.
            seconds: How long it took.
        """
        if size != self.size:
            return
        if size < self._wanted:  # after a failure
            self._cap = size * 2
            return
        self._cap, self._falls = LARGEST, 0
        known = self._costs.get(size)
        cost = seconds / size
        if seconds > _LONGEST_S or (known is not None and cost > _CHANGED * known):
            self._delays += 1
            if self._delays >= _MOST_DELAYS:
                self._begin_again(size)
                self._delays = _MOST_DELAYS - 1  # until one is in time
            return
        self._delays = 0
        self._costs[size] = cost if known is None else known + _WEIGHT * (cost - known)
        if self._trying is not None:
            self._judge()
        else:
            self._rested += 1
        self._choose(seconds)

    def stumbled(self) -> None:
        """Learn that a request failed, or its answer was lost: smaller ones lose less."""
        if self.size == self._wanted:  # where smaller ones fail as well, it is not the size
            self._falls += 1
        self._cap = max(SMALLEST, self.size // 2)
        if self._falls >= _MOST_FALLS:  # it is the size that fails
            self._ceiling = max(SMALLEST, 0.9 * self._wanted)
            self._begin_again(self._wanted)
            self._falls = 0

    def _begin_again(self, size: int) -> None:
        """Forget what was known of a server that answers otherwise now."""
        self._costs.clear()
        self._best = max(SMALLEST, size // 2)
        self._trying, self._climbing, self._rested = None, True, 0

    def _judge(self) -> None:
        """Take the size that was tried for the best one, or not."""
        tried, self._trying = self._trying or self._best, None
        if self._costs[tried] <= self._costs.get(self._best, math.inf) * _PAYS:
            self._best = tried
        elif self._climbing:
            self._climbing = False
            if self._costs[tried] < self._costs.get(self._best, math.inf):
                self._best = tried
        self._rested = 0

    def _choose(self, seconds: float) -> None:
        """Whether to try another size next, and which."""
        if self._climbing:
            factor = _STEP
        elif self._rested >= _REST:
            self._up = not self._up
            self._ceiling = min(self._ceiling * _FORGETS, LARGEST)
            factor = _SIDESTEP if self._up else 1 / _SIDESTEP
        else:
            return
        wanted = min(max(round(self._best * factor), SMALLEST), int(self._ceiling))
        # Were it the square that counts, so many rows would take so long.
        expected = seconds * max(1.0, wanted / self._best) ** 2
        if wanted == self._best or expected > _LONGEST_S:
            self._climbing, self._rested = False, 0
            return
        self._trying = wanted
