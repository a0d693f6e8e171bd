"""Directories of the program's files: the platform's own, or all below ``ASPEN_HOME``."""

from __future__ import annotations

import os
from pathlib import Path

from aspencli.errors import BadInputError

HOME_VARIABLE = "ASPEN_HOME"


def config_dir() -> Path:
    """Return the directory of ``config.toml``."""
    return _home("config")


def data_dir() -> Path:
    """Return the directory of the local deployment."""
    return _home("data")


def state_dir() -> Path:
    """Return the directory of undo files, journals, console history, and crash reports."""
    return _home("state")


def expand(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home directory.

    Raises:
        BadInputError: The path starts with ``~`` and a user who does not exist.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises RuntimeError instead
    if str(found).startswith("~"):
        raise BadInputError(
            f"No home directory found for {Path(path).parts[0]!r}",
            hint=f"Use the full path, or ./{path} if the directory really has that name.",
        )
    return Path(found)


def _home(kind: str) -> Path:
    moved = os.environ.get(HOME_VARIABLE)
    if moved:
        return expand(moved).absolute() / kind
    import platformdirs  # imported only if ASPEN_HOME is not set

    dirs = platformdirs.PlatformDirs("aspencli", appauthor=False)
    return Path(getattr(dirs, f"user_{kind}_path"))
