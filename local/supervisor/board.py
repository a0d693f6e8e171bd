"""What is known of the parts, told to commands by a file."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from local.record import PartRecord, Record, write_record


class Board:
    """The record of every part, written down at each change.

    Args:
        path: The file.
        names: The parts that are kept.
    """

    def __init__(self, path: Path, names: tuple[str, ...]):
        self._path = path
        self.record: Record = {name: PartRecord(since=time.time()) for name in names}
        self._write()

    def note(self, name: str, **changes: Any) -> None:
        """Note what changed of a part."""
        part = self.record[name]
        if changes.get("phase", part.phase) is not part.phase:
            changes["since"] = time.time()
        self.record[name] = replace(part, **changes)
        self._write()

    def _write(self) -> None:
        # A full disk must not end the parts; the next change is written with all before it.
        with contextlib.suppress(OSError):
            write_record(self._path, self.record)
