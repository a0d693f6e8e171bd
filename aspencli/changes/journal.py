"""The journal of bulk runs: one event per line, appended and flushed to disk, never changed.

A line is a JSON object with ``v`` (the format version), ``event``, ``run``, and ``at``. Readers
ignore anything they do not know, so that both older and newer journals stay readable.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aspencli import files

VERSION = 1
_NAME = "journal.jsonl"
_NEEDED = ("event", "run", "at")
_RECENT = 1 << 16  # bytes to search for a run ID
_BLOCK = 1 << 16  # bytes to read at once from the end
_FIRST = "started"
_FIRST_LINE = json.dumps({"v": VERSION, "event": _FIRST}).rstrip("}").encode()

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """The contents of a journal.

    Attributes:
        events: The events, oldest first.
        torn: The numbers of the lines that cannot be parsed, such as one cut short by a crash.
    """

    events: tuple[Event, ...]
    torn: tuple[int, ...]


class Journal:
    """The file to which all processes of this machine's operator append.

    Args:
        folder: Its folder; created on the first write.
    """

    def __init__(self, folder: Path):
        self.path = folder / _NAME

    def append(self, event: Event, *, begins: bool = False) -> bool:
        """Append an event, and return once it is safely on disk.

        Args:
            event: The event.
            begins: Whether it begins a run, whose ID must be unique.

        Returns:
            True, or False if the event begins a run whose ID is already taken.

        Raises:
            OSError: The event cannot be written; the journal is unchanged.
        """
        # In ASCII, neither a line separator nor a name that is not UTF-8 can break the line.
        line = json.dumps({"v": VERSION, **event}).encode("ascii") + b"\n"
        self._make_folder()
        descriptor = self._open_locked()
        try:
            size = os.fstat(descriptor).st_size
            if begins and _is_taken(descriptor, size, event["run"]):
                return False
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # keep a line cut short by a crash separate
            self._write(descriptor, line, size)
            if not size:
                sync_folder(self.path.parent)
        finally:
            os.close(descriptor)
        return True

    def read(self) -> Reading:
        """Return all events, or none if there is no journal yet.

        Raises:
            OSError: The journal cannot be read.
        """
        events: list[Event] = []
        torn: list[int] = []
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return Reading((), ())
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)  # wait until no line is half written
            for number, line in enumerate(file, start=1):
                event = _parse(line)
                if event is None:
                    torn.append(number)
                else:
                    events.append(event)
        return Reading(tuple(events), tuple(torn))

    def read_recent(self, runs: int, wanted: Callable[[Event], bool] = lambda _: True) -> Reading:
        """Return the events of the newest runs, without reading the rest of the file.

        Args:
            runs: The number of runs.
            wanted: Returns True if a run with this first event counts.

        Raises:
            OSError: The journal cannot be read.
        """
        events: list[Event] = []
        torn: list[int] = []
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return Reading((), ())
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            for number, line in enumerate(_lines_from_end(file)):
                event = _parse(line)
                if event is None:
                    torn.append(number)
                    continue
                events.append(event)
                if event["event"] == _FIRST and wanted(event):
                    runs -= 1
                    if not runs:
                        break
            if torn:  # rare enough to count all lines for their numbers
                file.seek(0)
                last = sum(1 for _ in file)
                torn = [last - number for number in reversed(torn)]
        return Reading(tuple(reversed(events)), tuple(torn))

    def count_runs(self, wanted: Callable[[Event], bool] | None = None) -> int:
        """Return the number of runs in the journal.

        Args:
            wanted: Returns True if a run with this first event counts; None counts all of them
                without parsing a line.

        Raises:
            OSError: The journal cannot be read.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return 0
        with file:
            first = (line for line in file if line.startswith(_FIRST_LINE))
            if wanted is None:
                return sum(1 for _ in first)
            return sum(1 for line in first if (event := _parse(line)) and wanted(event))

    def rewrite(self, keep: Callable[[Event], bool]) -> None:
        """Replace the journal by the events to keep; lines that cannot be parsed are dropped.

        Other processes that append at the same moment wait, and then append to the new file.

        Raises:
            OSError: The new journal cannot be written; the old one is unchanged.
        """
        descriptor = self._open_locked()
        try:
            with open(descriptor, "rb", closefd=False) as old:
                kept = [line for line in old if (event := _parse(line)) and keep(event)]
            files.write_whole(self.path, b"".join(kept))
        finally:
            os.close(descriptor)

    def _open_locked(self) -> int:
        """Return a descriptor of the journal, locked against other writers."""
        while True:
            descriptor = files.open_own(self.path, flags=os.O_RDWR | os.O_APPEND)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return descriptor
            os.close(descriptor)  # `rewrite` replaced the file while this waited for the lock

    def _make_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            files.make_folder(folder)
            sync_folder(folder.parent)

    def _write(self, descriptor: int, line: bytes, size: int) -> None:
        # A single call, so that other writers append before or after the line but never inside it.
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(descriptor)


def open_journal() -> Journal:
    """Return the journal of this machine's operator."""
    return Journal(files.state_dir() / "history")


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the name of a new file in it survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lines_from_end(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, the last one first."""
    end = file.seek(0, os.SEEK_END)
    rest = b""
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        first, *lines = (file.read(end - start) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line)
        rest, end = first, start
    if rest:
        yield rest


def _is_taken(descriptor: int, size: int, run: str) -> bool:
    """Return True if the run ID is taken; IDs are timestamps, so recent events are enough."""
    end = os.pread(descriptor, _RECENT, max(0, size - _RECENT))
    return json.dumps({"run": run}).strip("{}").encode() in end


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:  # invalid JSON or encoding
        return None
    if isinstance(event, dict) and all(isinstance(event.get(key), str) for key in _NEEDED):
        return event if _is_time(event["at"]) else None
    return None


def _is_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
