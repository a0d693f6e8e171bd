"""Choose the number of samples per request from the response times so far.

The cost of a request has a fixed part, a part per row, and, at the live service, a part that grows
with the square of the rows. None of these is known in advance, and they vary from day to day. So
the size is doubled as long as that pays off, and then stays near the best one.
"""

from __future__ import annotations

import math

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


class Steering:
    """A controller for the size of the next request.

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
