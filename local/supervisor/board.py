"""The state of the parts, written to a file that commands read."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.record import PartRecord, Record, write_record


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
