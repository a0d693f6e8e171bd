"""How patient the supervisor is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds.

    Attributes:
        pause: Before a part that ended is started again; doubled each time that it does not stay.
        longest_pause: What that grows to.
        calm: How long a part has to run until the pause is short again.
        start: How long a part may take until it answers, its wait for others included.
        poll: Between two looks at a part that starts.
        check: Between two looks at a part that runs.
        answer: How long an answer may take.
        hung: How long a part may give no answer until it is ended and started again.
        stop: How long a part may take to end by itself.
        watch: Between two looks at PostgreSQL.
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
        """The pause after a part ran for some seconds.

        Args:
            pause: The one before; None where there was none.
            lived: How long it answered.
        """
        if pause is None or lived >= self.calm:
            return self.pause
        return min(2 * pause, self.longest_pause)
