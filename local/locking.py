"""A lock between processes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aspencli.errors import ConflictError
from aspencli.files import open_own


@contextmanager
def file_lock(path: Path, *, timeout: float = 180.0) -> Iterator[None]:
    """Hold an exclusive lock on a file; the system releases it when the process ends.

    Raises:
        ConflictError: Another process held the lock for longer than ``timeout`` seconds.
    """
    descriptor = open_own(path)
    try:
        deadline = time.monotonic() + timeout
        while not _taken(descriptor):
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"another command has been working on the local deployment for {timeout:.0f} s",
                    hint="Wait for it to end, then try again.",
                )
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
