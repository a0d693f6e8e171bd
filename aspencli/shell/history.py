"""The console history: one file per target, without secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path

from IPython.core.history import HistoryManager

from aspencli import files, homes

LEFT_OUT = "# left out of the history: it held a secret"
# A password in a URL, a string assigned to a secret-like name, or SQL that sets a password.
_SECRET = re.compile(
    r"""://[^\s/:@'"]*:[^\s/@'"]+@"""
    r"""|(?:pass(?:word|wd)?|pwd|secret\w*|\w*token|api_?key)['"]?\s*[=:,(]\s*[rbf]?['"]"""
    r"""|\b(?:ALTER|CREATE)\s+(?:USER|ROLE)\b.*\bPASSWORD\b""",
    re.IGNORECASE | re.DOTALL,
)


class ConsoleHistory(HistoryManager):
    """IPython's history, without cells that contain secrets."""

    def store_inputs(self, line_num: int, source: str, source_raw: str | None = None) -> None:
        """Store a cell, or a placeholder if it contains a secret."""
        if holds_secret(source_raw or source):
            source = source_raw = LEFT_OUT
        super().store_inputs(line_num, source, source_raw)


def holds_secret(code: str) -> bool:
    """Return True if the code may contain a secret; false positives are preferred to misses."""
    return _SECRET.search(code) is not None


def history_file(label: str) -> Path:
    """Return the history file of a target, creating it readable by this user only.

    Each target has its own, so that the arrow keys never bring up a line from another target.
    """
    folder = homes.state_dir() / "console"
    files.make_folder(folder)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', label)}.sqlite"
    os.close(files.open_own(path))
    return path
