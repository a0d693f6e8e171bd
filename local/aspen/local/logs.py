"""The log files of the parts: written with rotation, then shown and followed across it."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from aspencli.files import open_own

STARTUP_LOG = "startup.log"
_CURRENT = "current_logfiles"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")  # the start of each line
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")

_LONGEST = 5_000_000  # bytes
_KEPT = 2  # older files


def current_log(data: Path) -> Path:
    """Return the file that the server currently logs to; it changes at midnight UTC.

    Before the server's log collector runs, that is the startup log.
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
    """Return the last lines of a file; none if it does not exist."""
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, lines)]
    except FileNotFoundError:
        return []


class Follower:
    """The last lines of a log, then new ones, even after its file is replaced."""

    def __init__(self, find: Callable[[], Path], lines: int):
        self._find, self._path = find, find()
        self._number, self._position = _number(self._path), 0
        whole = self._read(self._path)
        self.last = whole[-lines:] if lines else []
        """The last lines at the time when the follower was created."""

    def fresh(self) -> list[str]:
        """Return the complete lines written since the last call."""
        path = self._find()
        number = _number(path)
        if path == self._path and number == self._number:
            return self._read(path)
        # First read the rest of the previous file, if it still exists.
        older = (self._path, *self._path.parent.glob(f"{self._path.name}.*"))
        before = [one for one in older if self._number and _number(one) == self._number]
        found = [line for one in before[:1] for line in self._read(one)]
        self._path, self._number, self._position = path, number, 0
        return found + self._read(path)

    def _read(self, path: Path) -> list[str]:
        """Return the complete lines after the current position, and move it past them."""
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < self._position:  # the file was truncated
                    self._position = 0
                file.seek(self._position)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            self._position = 0
            return []
        self._position += len(whole) + len(newline)
        return whole.decode(errors="replace").split("\n") if newline else []


def follow_all(
    logs: Mapping[str, Callable[[], Path]],
    lines: int,
    *,
    until: Callable[[], bool],
    pause: float = 0.2,
) -> Iterator[tuple[str, str]]:
    """Return an iterator over the last lines of several logs in time order, then new ones.

    The last lines are read by this call, not by the first iteration; log rotation is followed.

    Args:
        logs: A function for each log, by name, that returns its current file.
        lines: The number of last lines, over all logs.
        until: Returns True when no more lines will come.
        pause: The seconds between two checks.
    """
    followers = {name: Follower(find, lines) for name, find in logs.items()}
    return _follow(followers, lines, until, pause)


def merged(lines: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Merge the lines of several logs by timestamp, each with the name of its log."""
    timed = []
    for name, written in lines.items():
        moment = ""
        for line in written:
            moment = match[0] if (match := _MOMENT.match(line)) else moment
            timed.append((moment, name, line))
    return [(name, line) for _, name, line in sorted(timed, key=lambda one: one[0])]


def _number(path: Path) -> int:
    """Return the inode, which differs among files of the same name; 0 if there is no file."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def _follow(
    followers: Mapping[str, Follower], lines: int, until: Callable[[], bool], pause: float
) -> Iterator[tuple[str, str]]:
    last = merged({name: one.last for name, one in followers.items()})
    yield from last[-lines:] if lines else []
    while True:
        ended = until()
        fresh = merged({name: one.fresh() for name, one in followers.items()})
        yield from fresh
        if ended:
            return
        if not fresh:
            time.sleep(pause)


class RotatingLog:
    """A log file with timestamped lines, in UTC and in PostgreSQL's format.

    At ``longest`` bytes, a new file is started; older ones are ``path.1`` and so on.
    """

    def __init__(self, path: Path, *, longest: int = _LONGEST):
        self._path, self._longest = path, longest
        self._file = self._open()

    def write(self, line: str) -> None:
        """Append a line; blank lines are dropped.

        A timestamp at the start of the line, as Python's logging writes it, is replaced by ours.
        """
        words = line.rstrip()
        if match := _STAMP.match(words):
            words = words[match.end() :]
        if not words:
            return
        now = datetime.now(UTC)
        text = f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03d} UTC {words}\n"
        # A full disk must not stop the program that logs, so lose the line instead.
        with contextlib.suppress(OSError):
            self._file.write(text.encode(errors="replace"))
            if self._file.tell() > self._longest:
                self._rotate()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(_KEPT - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._file = self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> BinaryIO:
        descriptor = open_own(self._path, flags=os.O_WRONLY | os.O_APPEND)
        return os.fdopen(descriptor, "ab", buffering=0)
