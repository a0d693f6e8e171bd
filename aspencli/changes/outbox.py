"""Entries for audit trails that could not be written yet, as files in the state folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aspencli import files
from aspencli.changes.runs import Event, is_event

_SUFFIX = ".json"


@dataclass(frozen=True)
class Waiting:
    """An entry that waits to be sent."""

    path: Path
    label: str  # of the target whose trail it is for
    event: Event

    def done(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


class Outbox:
    """The waiting entries of one audit trail.

    Args:
        label: The target's label.
    """

    def __init__(self, label: str):
        self._label = label
        words = re.sub(r"[^A-Za-z0-9.-]+", "-", label).strip("-.")
        digest = hashlib.sha256(label.encode(errors="surrogateescape")).hexdigest()[:12]
        self.folder = _home() / f"{words or 'target'}-{digest}"

    def put(self, event: Event) -> Waiting:
        """Add an event, and return once it is safely on disk.

        Raises:
            OSError: It cannot be written.
        """
        # Names sort by time, and by their order within a run.
        name = f"{event['at']}-{event['run']}-{event['event']}".replace(":", "")
        path = self.folder / f"{name}{_SUFFIX}"
        files.make_folder(self.folder)
        text = json.dumps({"trail": self._label, "event": event})
        files.write_whole(path, text.encode("ascii"))
        files.sync_folder(self.folder)
        return Waiting(path, self._label, event)

    def waiting(self) -> list[Waiting]:
        """Return the waiting entries, the oldest first; unreadable files are left out."""
        return list(_read(self.folder))

    @staticmethod
    def has(waiting: Waiting) -> bool:
        """Return True if an entry still waits."""
        return waiting.path.exists()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Keep other processes of this machine from sending the same entries.

        Raises:
            OSError: The folder cannot be used.
        """
        files.make_folder(self.folder)
        descriptor = files.open_own(self.folder / "lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def count_waiting() -> dict[str, int]:
    """Return the number of waiting entries of each audit trail, by the target's label."""
    counts: dict[str, int] = {}
    for folder in sorted(_home().glob("*/")):
        for waiting in _read(folder):
            counts[waiting.label] = counts.get(waiting.label, 0) + 1
    return counts


def _home() -> Path:
    return files.state_dir() / "audit"


def _read(folder: Path) -> Iterator[Waiting]:
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            found = json.loads(path.read_bytes())
            event, label = found["event"], found["trail"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        if is_event(event):
            yield Waiting(path, str(label), event)
