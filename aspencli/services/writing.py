"""Explain why a file cannot be written."""

from __future__ import annotations

from pathlib import Path


def why_not(path: Path, error: OSError) -> str:
    """Return the reason why a file cannot be written.

    Args:
        path: The file.
        error: The system's error.
    """
    at = Path(error.filename) if isinstance(error.filename, str) else path
    if at in path.parents and at.exists() and not at.is_dir():
        return f"{at} is no folder"
    return error.strerror or str(error)
