"""The supervisor's timeouts and intervals."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The timeouts and intervals, in seconds.

    Attributes:
        pause: The pause before a restart; doubled each time that the part soon ends again.
        longest_pause: The maximum of that pause.
        calm: The time that a part must run before the pause is reset.
        start: The time that a part may take to be ready, including its wait for others.
        poll: The interval between checks of a part that is starting.
        check: The interval between checks of a part that is running.
        answer: The time that an answer may take.
        hung: The time without an answer after which a part is restarted.
        stop: The time that a part may take to end by itself.
        watch: The interval between checks of PostgreSQL.
    """

    pause: float = 0.5
    longest_pause: float = 30.0
    calm: float = 60.0
    start: float = 150.0
    poll: float = 0.05
    check: float = 5.0
    answer: float = 5.0
    hung: float = 60.0
    stop: float = 2.0
    watch: float = 0.5

    def after(self, pause: float | None, lived: float) -> float:
        """Return the pause before restarting a part that ended.

        Args:
            pause: The previous pause; None if there was none.
            lived: How long the part answered.
        """
        if pause is None or lived >= self.calm:
            return self.pause
        return min(2 * pause, self.longest_pause)
