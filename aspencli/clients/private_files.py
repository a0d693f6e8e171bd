"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aspencli.errors import CredentialsError
from aspencli.files import make_folder, write_whole

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_private(path: Path, text: str) -> None:
    """Write a file atomically; other users can never see any of it."""
    make_folder(path.parent)
    write_whole(path, text)


def read_private(path: Path) -> str | None:
    """Return the file's text, or None if there is no such file.

    Raises:
        CredentialsError: Other users can read or change it, so it cannot be trusted.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS:
                raise CredentialsError(
                    f"{path} can be read or changed by others ({stat.S_IMODE(mode):04o}), and was "
                    "not used",
                    hint=f"If nobody did: chmod 600 '{path}'. Else sign out, and in again.",
                )
            return file.read()
    except FileNotFoundError:
        return None
