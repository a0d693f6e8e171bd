"""The supervisor's timing, its health checks, and its record of the parts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aspen.local.processes import HOST
from aspen.local.services import Service
from aspen.local.state import PartRecord, Record, write_record


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


class Board:
    """The record of every part, saved at each change.

    Args:
        path: The file.
        names: The parts to record.
    """

    def __init__(self, path: Path, names: tuple[str, ...]):
        self._path = path
        self.record: Record = {name: PartRecord(since=time.time()) for name in names}
        self._write()

    def note(self, name: str, **changes: Any) -> None:
        """Record a change to a part."""
        part = self.record[name]
        if changes.get("phase", part.phase) is not part.phase:
            changes["since"] = time.time()
        self.record[name] = replace(part, **changes)
        self._write()

    def _write(self) -> None:
        # A full disk must not end the parts; the next change saves the whole record again.
        with contextlib.suppress(OSError):
            write_record(self._path, self.record)


async def answers(port: int, path: str, seconds: float) -> bool:
    """Return True if a path returns 200 within a number of seconds."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return status.split()[1:2] == [b"200"]


def is_check(line: str, service: Service) -> bool:
    """Return True if a line of a service's log only shows a health check.

    A response of "not ready" is expected until the parts that the service needs answer; the
    supervisor's own log shows the change.
    """
    expected = [(service.health, 200), (service.ready, 200)]
    if service.readiness:
        expected.append((service.readiness, 503))
    return any(f'"GET {path} HTTP/1.1" {status}' in line for path, status in expected)
