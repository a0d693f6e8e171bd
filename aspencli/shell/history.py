"""The history of the console: one file a target, and no secrets in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from IPython.core.history import HistoryManager

from aspencli import files, homes

LEFT_OUT = "# left out of the history: it held a secret"
# A password inside an address, or a literal that is given the name of a secret.
_SECRET = re.compile(
    r"""://[^\s/:@'"]*:[^\s/@'"]+@"""
    r"""|(?:pass(?:word|wd)?|pwd|secret\w*|\w*token|api_?key)['"]?\s*[=:,(]\s*[rbf]?['"]"""
    r"""|\b(?:ALTER|CREATE)\s+(?:USER|ROLE)\b.*\bPASSWORD\b""",
    re.IGNORECASE | re.DOTALL,
)


class ConsoleHistory(HistoryManager):
    """IPython's history without the cells that hold a secret."""

    def store_inputs(self, line_num: int, source: str, source_raw: str | None = None) -> None:
        """Keep a cell, or a note in its place."""
        if holds_secret(source_raw or source):
            source = source_raw = LEFT_OUT
        super().store_inputs(line_num, source, source_raw)


def holds_secret(code: str) -> bool:
    """Whether code seems to hold a secret; rather once too often than once too seldom."""
    return _SECRET.search(code) is not None


def history_file(label: str) -> Path:
    """The history of a target, readable by this user only.

    Each target has its own, so that no line of another comes up with the arrow key.
    """
    folder = homes.state_dir() / "console"
    files.make_folder(folder)
    path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '-', label)}.sqlite"
    os.close(files.open_own(path))
    return path
