"""The journal of bulk runs: one event a line, appended and flushed to disk, never changed.

A line is a JSON object with ``v`` (the version of its form), ``event``, ``run`` and ``at``. Readers
pass over what they do not know, so that old journals and newer ones stay readable.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aspencli import files, homes

VERSION = 1
_NAME = "journal.jsonl"
_NEEDED = ("event", "run", "at")
_RECENT = 1 << 16  # bytes

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Reading:
    """What a journal holds.

    Attributes:
        events: The events, oldest first.
        torn: The numbers of the lines that cannot be read, as a crash may leave one.
    """

    events: tuple[Event, ...]
    torn: tuple[int, ...]


class Journal:
    """The file that every process of this machine's operator appends to.

    Args:
        folder: Its folder; made when first written to.
    """

    def __init__(self, folder: Path):
        self.path = folder / _NAME

    def append(self, event: Event, *, begins: bool = False) -> bool:
        """Add an event, and return only when it is safe on disk.

        Args:
            event: The event.
            begins: Whether it begins a run, whose id no other run may have.

        Returns:
            Whether it was added; only such a beginning is not, where the id is taken.

        Raises:
            OSError: It cannot be written; the journal is as it was.
        """
        # ASCII: neither a line separator nor a name that is no UTF-8 can break the line.
        line = json.dumps({"v": VERSION, **event}).encode("ascii") + b"\n"
        self._make_folder()
        descriptor = files.open_own(self.path, flags=os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            if begins and _is_taken(descriptor, size, event["run"]):
                return False
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # what a crash tore stays a line of its own
            self._write(descriptor, line, size)
            if not size:
                sync_folder(self.path.parent)
        finally:
            os.close(descriptor)
        return True

    def read(self) -> Reading:
        """Every event; none where there is no journal yet.

        Raises:
            OSError: It cannot be read.
        """
        events: list[Event] = []
        torn: list[int] = []
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return Reading((), ())
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)  # no line is half written meanwhile
            for number, line in enumerate(file, start=1):
                event = _parse(line)
                if event is None:
                    torn.append(number)
                else:
                    events.append(event)
        return Reading(tuple(events), tuple(torn))

    def _make_folder(self) -> None:
        folder = self.path.parent
        if not folder.is_dir():
            files.make_folder(folder)
            sync_folder(folder.parent)

    def _write(self, descriptor: int, line: bytes, size: int) -> None:
        # One call: other writers append before it or after it, never into it.
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(descriptor)


def open_journal() -> Journal:
    """The journal of this machine's operator."""
    return Journal(homes.state_dir() / "history")


def sync_folder(folder: Path) -> None:
    """Make sure that a crash of the machine does not lose the name of a new file in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_taken(descriptor: int, size: int, run: str) -> bool:
    """Whether a run of this id has begun; ids are moments, so only the last runs may have it."""
    end = os.pread(descriptor, _RECENT, max(0, size - _RECENT))
    return json.dumps({"run": run}).strip("{}").encode() in end


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:  # of JSON, or of its encoding
        return None
    if isinstance(event, dict) and all(isinstance(event.get(key), str) for key in _NEEDED):
        return event if _is_time(event["at"]) else None
    return None


def _is_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
