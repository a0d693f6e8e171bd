"""A log file that is rotated when it grows too large."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from aspencli.files import open_own

_LONGEST = 5_000_000  # bytes
_KEPT = 2  # older files
_STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ")


class RotatingLog:
    """A log file with timestamped lines, in UTC and in PostgreSQL's format.

    Args:
        path: The file; older ones are ``path.1`` and so on.
        longest: The size, in bytes, at which a new file is started.
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
