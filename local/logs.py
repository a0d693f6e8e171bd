"""The server's messages: the last ones, and new ones as they come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

STARTUP_LOG = "startup.log"
_CURRENT = "current_logfiles"


def current_log(data: Path) -> Path:
    """The file that the server writes its messages to now; it changes at midnight UTC.

    Before the server's log collector runs, that is what it wrote while starting.
    """
    try:
        written = (data / _CURRENT).read_text()
    except FileNotFoundError:
        return data / STARTUP_LOG
    for line in written.splitlines():
        kind, _, name = line.partition(" ")
        if kind == "stderr":
            return data / name
    return data / STARTUP_LOG


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a file; none when there is no file."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, lines)]
    except FileNotFoundError:
        return []


def follow(
    data: Path, lines: int, *, until: Callable[[], bool], pause: float = 0.2
) -> Iterator[str]:
    """The last messages, then new ones as they come, until ``until`` says so.

    What is last is settled by the call, not by the first step; the change of files is followed.
    """
    path = current_log(data)
    whole, position = _read_from(path, 0)
    return _follow(data, path, position, whole[-lines:] if lines else [], until, pause)


def _follow(
    data: Path,
    path: Path,
    position: int,
    last: list[str],
    until: Callable[[], bool],
    pause: float,
) -> Iterator[str]:
    yield from last
    while True:
        ended = until()
        fresh, position = _read_from(path, position)
        yield from fresh
        if ended:
            return
        latest = current_log(data)
        if latest != path:
            rest, _ = _read_from(path, position)  # written since, before the change
            yield from rest
            path, position = latest, 0
        elif not fresh:
            time.sleep(pause)


def _read_from(path: Path, position: int) -> tuple[list[str], int]:
    """The whole lines after a position, and the position behind them."""
    try:
        with path.open("rb") as file:
            if file.seek(0, 2) < position:  # begun anew
                position = 0
            file.seek(position)
            whole, newline, _ = file.read().rpartition(b"\n")
    except FileNotFoundError:
        return [], 0
    text = whole.decode(errors="replace")
    return (text.split("\n") if newline else []), position + len(whole) + len(newline)
