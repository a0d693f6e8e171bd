"""Files that only their owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from aspencli.errors import CredentialsError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all; others never see any of it, not even for a moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)  # one that was there keeps its mode
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def read_private(path: Path) -> str | None:
    """The file's text; None where there is no such file.

    Raises:
        CredentialsError: Others can read or change it, and so may have.
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
